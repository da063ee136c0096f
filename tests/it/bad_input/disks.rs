//! Images and disks that cannot be used.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::Bad;

fn chmod(bad: &Bad, name: &str, mode: u32) {
    std::fs::set_permissions(bad.sandbox.file(name), PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn images_that_are_none() {
    let bad = Bad::new();
    bad.file("empty.img", "");
    std::fs::create_dir(bad.sandbox.file("folder")).unwrap();
    symlink("nowhere", bad.sandbox.file("dangling")).unwrap();
    symlink("loop", bad.sandbox.file("loop")).unwrap();
    for (image, words) in [
        ("none.img", &["image", "none.img: there is no such file", "hint: ", "none.img-kernel"][..]),
        ("folder", &["image: ", "folder is a directory"]),
        ("empty.img", &["empty.img is empty", "hint: "]),
        ("dangling", &["dangling"]),
        ("loop", &["loop"]),
        ("guest.img/x", &["guest.img/x"]),
        ("\u{1b}[31mred", &["\\u{1b}[31mred: there is no such file"]),
        ("/dev/null", &["/dev/null is neither a file nor a block device"]),
    ] {
        bad.refused(&["qemu", image], 1, words);
        bad.refused(&["qemu", "--detached", image], 1, words);
        bad.refused(&["qemu", "--dry-run", image], 1, words);
    }
    for (disk, words) in [
        ("none.img", &["--disk none.img: ", "does not exist", "hint: ", "size=10G"][..]),
        ("folder", &["--disk folder: ", "is a directory"]),
        ("empty.img", &["--disk empty.img: ", "is empty"]),
        ("no/where.img,size=1", &["no/where.img", "cannot create", "No such file or directory"]),
        ("huge.img,size=4000P", &["huge.img", "cannot create", "too large"]),
    ] {
        bad.start(&["--disk", disk], 1, words);
    }
    bad.refused(&["qemu", "--kernel", "guest.img"], 1, &["kernel", "guest.img-kernel"]);
    bad.refused(&["qemu", "--iso", "folder"], 1, &["ISO", "directory"]);
}

#[test]
fn images_of_somebody_else() {
    let bad = Bad::new();
    chmod(&bad, "guest.img", 0o600);
    bad.start_as_nobody(
        &["--state", "nobody/state"],
        1,
        &["image: ", "may not be read", "mode 0600", "hint: "],
    );
    chmod(&bad, "guest.img", 0o644);
    let words = ["image: ", "no permission to write to", "guest.img", "hint: "];
    bad.start_as_nobody(&["--state", "nobody/state"], 1, &words);
    chmod(&bad, "guest.img", 0o666);
    bad.image("other.img");
    chmod(&bad, "other.img", 0o644);
    let disk = ["--state", "nobody/state", "--disk", "other.img"];
    bad.start_as_nobody(&disk, 1, &["--disk other.img", "no permission to write", "readonly=on"]);
    // the folder of the image is not theirs to make a state directory in
    bad.start_as_nobody(&[], 1, &["state directory", "guest-state", "Permission denied", "--state"]);
}

#[test]
fn formats_that_contradict_the_file() {
    let bad = Bad::new();
    bad.qcow2("disk.qcow2", "1M");
    bad.start(&["--disk", "guest.img,format=qcow2"], 2, &["guest.img is raw, not qcow2", "hint: "]);
    bad.start(&["--disk", "disk.qcow2,format=vmdk"], 2, &["disk.qcow2 is qcow2, not vmdk", "hint: "]);
}

#[test]
fn the_same_file_twice() {
    let bad = Bad::new();
    bad.image("disk.img");
    symlink("disk.img", bad.sandbox.file("symlink.img")).unwrap();
    std::fs::hard_link(bad.sandbox.file("disk.img"), bad.sandbox.file("hardlink.img")).unwrap();
    for other in ["disk.img", "./disk.img", "symlink.img", "hardlink.img", "disk.img,readonly=on"] {
        let words = [&format!("--disk {other}: the same file as"), "disk.img"];
        bad.start(&["--disk", "disk.img", "--disk", other], 2, &words);
    }
    bad.start(&["--disk", "guest.img"], 2, &["--disk guest.img: the same file as"]);
    // what was created for the first is taken back
    bad.start(&["--disk", "new.img,size=1", "--disk", "new.img"], 2, &["the same file"]);
}

#[test]
fn ids_that_clash() {
    let bad = Bad::new();
    bad.image("disk.img");
    bad.start(&["--disk", "disk.img,id=slot1"], 2, &["'slot1'", "is reserved for vmrun's own devices"]);
    let twice = ["--disk", "disk.img,id=a", "--disk", "new.img,size=1,id=a"];
    bad.start(&twice, 2, &["'a' is given twice"]);
    let twice = ["--disk", "disk.img,id=a", "--device", "virtio-rng-pci,id=a"];
    bad.start(&twice, 2, &["'a' is given twice"]);
}
