//! Images that another user or the guest made: they are opened as what they were, and refer to no file that is not allowed.

use std::collections::BTreeSet;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::boot_sector::Guest;
use crate::support::cd;
use crate::support::processes::qemu_of;
use crate::support::sandbox::{Done, Sandbox};

fn qemu_img(folder: &Path, arguments: &[&str]) {
    let made = Command::new("qemu-img").args(arguments).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A sandbox with `guest.img`, `secret` beside the folder `in`, and what an image's author could try in that.
struct Traps {
    sandbox: Sandbox,
}

/// Each leads to `secret`, or, with the last word, is refused for another reason.
const TRAPS: [(&str, &str); 9] = [
    ("backing.qcow2", "outside its own folder"),
    ("linked.qcow2", "outside its own folder"),
    ("chain.qcow2", "outside its own folder"),
    ("data.qcow2", "outside its own folder"),
    // QEMU would guess that its backing file is a vmdk
    ("guessed.qcow2", "outside its own folder"),
    ("description.vmdk", "outside its own folder"),
    // a sparse file without any room is a description for QEMU
    ("empty.vmdk", "outside its own folder"),
    ("relative.qcow2", "working directory"),
    ("loop.qcow2", "in a circle"),
];

impl Traps {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        sandbox.boot_sector(Guest::Halted);
        let inner = sandbox.file("in");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(sandbox.file("secret"), [b's'; 512]).unwrap();
        let secret = sandbox.file("secret").display().to_string();
        let unsafe_overlay = |name: &str, backing: &str| {
            qemu_img(&inner, &["create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "raw", name, "1M"]);
        };
        unsafe_overlay("backing.qcow2", &secret);
        std::os::unix::fs::symlink("../secret", inner.join("link")).unwrap();
        unsafe_overlay("linked.qcow2", "link");
        let over = ["create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b"];
        qemu_img(&inner, &[&over[..], &["backing.qcow2", "chain.qcow2", "1M"]].concat());
        qemu_img(&inner, &[&over[..], &["round.qcow2", "loop.qcow2", "1M"]].concat());
        qemu_img(&inner, &[&over[..], &["loop.qcow2", "round.qcow2", "1M"]].concat());
        let description = format!("#\nversion=1\ncreateType=\"monolithicFlat\"\nRW\n1 FLAT \"{secret}\" 0\n");
        std::fs::write(inner.join("description.vmdk"), &description).unwrap();
        let mut empty = vec![0; 512];
        empty[..4].copy_from_slice(b"KDMV");
        empty[4] = 1;
        empty[28] = 1;
        empty.extend_from_slice(description.as_bytes());
        empty.resize(64 << 10, 0);
        std::fs::write(inner.join("empty.vmdk"), empty).unwrap();
        unsafe_overlay("guessed.qcow2", "description.vmdk");
        forget_backing_format(&inner.join("guessed.qcow2"));
        let data = |name: &str, file: &str, place: &Path| {
            let option = format!("data_file={file}");
            let path = inner.join(name).display().to_string();
            qemu_img(place, &["create", "-q", "-f", "qcow2", "-o", &option, &path, "1M"]);
        };
        data("data.qcow2", &sandbox.file("other").display().to_string(), sandbox.path());
        data("relative.qcow2", "data", &inner);
        Self { sandbox }
    }

    fn path(&self, name: &str) -> String {
        self.sandbox.file("in").join(name).display().to_string()
    }
}

/// Turns the header extension with the backing file's format into one that QEMU skips.
fn forget_backing_format(image: &Path) {
    let bytes = std::fs::read(image).unwrap();
    let mark = 0xe279_2aca_u32.to_be_bytes();
    let at = bytes.windows(4).position(|window| window == mark).unwrap();
    let mut file = std::fs::File::options().write(true).open(image).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(&0x7777_7777_u32.to_be_bytes()).unwrap();
}

#[test]
fn images_that_lead_elsewhere_are_refused_at_the_start() {
    let traps = Traps::new();
    for (name, why) in TRAPS {
        for position in [vec![traps.path(name)], vec!["--disk".into(), traps.path(name), "guest.img".into()]]
        {
            let arguments = [vec!["qemu".to_owned(), "--detached".into()], position].concat();
            traps.sandbox.run(&arguments).fails(1, &[why, "hint: "]);
        }
        // and a dry run finds it, too
        traps.sandbox.run(["qemu", "--dry-run", &traps.path(name)]).fails(1, &[why]);
    }
    traps.sandbox.is_clean();
}

#[test]
fn images_that_lead_elsewhere_are_refused_while_the_vm_runs() {
    let traps = Traps::new();
    let iso = traps.sandbox.file("first.iso");
    cd::write(Guest::Halted, &iso);
    traps.sandbox.detached(["--usb", "first.iso"]);
    for (name, why) in TRAPS {
        let path = traps.path(name);
        traps.sandbox.ctl(["disk-add", &path]).fails(1, &[why, "hint: "]);
        traps.sandbox.ctl(["media-change", "cd0", &path]).fails(1, &[why, "hint: "]);
        traps.sandbox.ctl(["usb-add", &format!("file={path}")]).fails(1, &[why, "hint: "]);
    }
    let disks = traps.sandbox.ctl_json(["disk-list"]);
    assert_eq!(disks.as_array().unwrap().len(), 1, "{disks}");
    // nor has QEMU opened any of it, as the kernel and QEMU itself tell
    let links = std::fs::read_dir(format!("/proc/{}/fd", qemu_of(traps.sandbox.path()))).unwrap().flatten();
    let open: Vec<PathBuf> = links.filter_map(|link| std::fs::read_link(link.path()).ok()).collect();
    let nodes = traps.sandbox.ctl_json(["qmp", "{\"execute\":\"query-named-block-nodes\"}"]).to_string();
    assert!(
        open.iter().any(|file| file.ends_with("first.iso")) && nodes.contains("first.iso"),
        "{open:?} {nodes}"
    );
    for (name, _) in TRAPS {
        let trap = std::path::absolute(traps.path(name)).unwrap();
        assert!(
            !open.contains(&trap) && !nodes.contains(&trap.display().to_string()),
            "{name}: {open:?} {nodes}"
        );
    }
    traps.sandbox.ctl(["shutdown", "--force"]);
}

#[test]
fn allow_backing_lets_them() {
    let traps = Traps::new();
    let sandbox = &traps.sandbox;
    let iso = sandbox.file("first.iso");
    cd::write(Guest::Halted, &iso);
    // a file or its folder, relative or absolute, several; a wrong one allows nothing
    for allowed in [vec!["secret"], vec!["."], vec!["nowhere", "./secret"]] {
        let flags: Vec<&str> = allowed.iter().flat_map(|path| ["--allow-backing", path]).collect();
        let disk = traps.path("chain.qcow2");
        let start = [&["qemu", "--detached", "--disk", &disk][..], &flags, &["first.iso"]].concat();
        Done::of(sandbox.vmrun().args(&start).output().unwrap()).ok();
        sandbox.ctl(["shutdown", "--force"]);
        sandbox.is_clean();
    }
    let refused = ["qemu", "--allow-backing", "in", "--disk", &traps.path("chain.qcow2"), "first.iso"];
    sandbox.run(refused).fails(1, &["outside its own folder", "--allow-backing"]);

    sandbox.detached(["first.iso"]);
    let disk = traps.path("backing.qcow2");
    // what one disk may is not what the next may
    let add = ["disk-add", &format!("{disk},readonly=on,id=a"), "--allow-backing", "secret"];
    assert_eq!(sandbox.ctl(add).line(), "a");
    sandbox.ctl(["disk-add", &traps.path("linked.qcow2")]).fails(1, &["outside its own folder"]);
    sandbox.ctl(["media-change", "cd0", &traps.path("linked.qcow2"), "--allow-backing", "."]).ok();
    let facts = sandbox.ctl_json(["disk-list"]);
    assert!(facts.to_string().contains("linked.qcow2"), "{facts}");
    sandbox.ctl(["shutdown", "--force"]);
}

#[test]
fn a_deep_chain_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    qemu_img(sandbox.path(), &["create", "-q", "-f", "qcow2", "0", "1M"]);
    for number in 1..=20 {
        let (over, name) = ((number - 1).to_string(), number.to_string());
        let link = ["create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", &over, &name, "1M"];
        qemu_img(sandbox.path(), &link);
    }
    sandbox.run(["qemu", "--disk", "20", "guest.img"]).fails(1, &["more than 16 images"]);
    sandbox.detached(["--disk", "15,readonly=on", "guest.img"]);
    let links = std::fs::read_dir(format!("/proc/{}/fd", qemu_of(sandbox.path()))).unwrap().flatten();
    let open: BTreeSet<PathBuf> = links.filter_map(|link| std::fs::read_link(link.path()).ok()).collect();
    let of_chain = (0..=15).filter(|number| open.contains(&sandbox.file(number.to_string()))).count();
    assert_eq!(of_chain, 16, "{open:?}");
    sandbox.ctl(["shutdown", "--force"]);
}

/// What a guest can write into its raw disk: the start of an image, for QEMU's guess.
fn headers(sandbox: &Sandbox) -> Vec<(&'static str, Vec<u8>)> {
    let made = |format: &str, options: &[&str]| -> Vec<u8> {
        let path: PathBuf = sandbox.file(format!("made.{format}"));
        let name = path.display().to_string();
        qemu_img(sandbox.path(), &[&["create", "-q", "-u", "-f", format], options, &[&name, "1M"]].concat());
        std::fs::read(path).unwrap()
    };
    let mut damaged = b"QFI\xfb\0\0\0\x03".to_vec();
    damaged.resize(512, 0xff);
    vec![
        ("qcow2", made("qcow2", &["-b", "/etc/hostname", "-F", "raw"])),
        ("vmdk", b"# Disk DescriptorFile\nversion=1\nRW 1 FLAT \"/etc/hostname\" 0\n".to_vec()),
        ("vhdx", made("vhdx", &[])),
        ("LUKS", b"LUKS\xba\xbe\0\x01aes".to_vec()),
        ("damaged", damaged),
    ]
}

#[test]
fn a_raw_image_stays_raw_whatever_the_guest_writes() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    for (number, (kind, header)) in headers(&sandbox).into_iter().enumerate() {
        let name = format!("data{number}.img");
        std::fs::write(sandbox.file(&name), vec![0; 1 << 20]).unwrap();
        sandbox.detached(["--disk", &name, "guest.img"]);
        sandbox.ctl(["disk-remove", "disk1", "--timeout", "0s"]);
        sandbox.ctl(["shutdown", "--force"]);
        // as the guest would: in place
        let file = std::fs::File::options().write(true).open(sandbox.file(&name)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &header, 0).unwrap();
        let before = std::fs::read(sandbox.file(&name)).unwrap();

        let started = sandbox.run(["qemu", "--detached", "--disk", &name, "guest.img"]).ok();
        for words in [name.as_str(), kind, "stays raw"] {
            assert!(started.stderr.contains(words), "{kind}: {started:#?}");
        }
        let disks = sandbox.ctl_json(["disk-list"]);
        let disk = disks.as_array().unwrap().iter().find(|disk| disk["id"] == "disk1").unwrap();
        assert_eq!(disk["format"], "raw", "{kind}");
        assert_eq!(disk["size_bytes"], before.len(), "{kind}");
        let opened = sandbox.ctl(["hmp", "info block disk1"]).ok().stdout;
        assert!(!opened.contains("Backing file") && !opened.contains("hostname"), "{kind}: {opened}");
        sandbox.ctl(["shutdown", "--force"]);
        // and while the VM runs it is refused in the same way
        sandbox.detached(["guest.img"]);
        let added = sandbox.ctl_json(["disk-add", &format!("{name},id=again")]);
        assert_eq!(added["format"], "raw", "{kind}");
        sandbox.ctl(["shutdown", "--force"]);
        assert_eq!(std::fs::read(sandbox.file(&name)).unwrap(), before, "{kind}");
    }
}

#[test]
fn an_encrypted_volume_is_the_guests_if_it_is_said() {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::Halted);
    let mut volume = b"LUKS\xba\xbe\0\x02".to_vec();
    volume.resize(1 << 20, 7);
    std::fs::write(sandbox.file("luks.img"), volume).unwrap();
    sandbox.run(["qemu", "--disk", "luks.img", "guest.img"]).fails(1, &["encrypted", "format=raw"]);
    sandbox.detached(["--disk", "luks.img,format=raw", "guest.img"]);
    assert_eq!(sandbox.ctl_json(["disk-list"])[1]["format"], "raw");
    sandbox.ctl(["shutdown", "--force"]);
}
