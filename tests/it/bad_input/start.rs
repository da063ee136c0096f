//! Starts that fail late: nothing is left of them, in the foreground or in the background.

use std::os::unix::fs::PermissionsExt;

use super::Bad;
use crate::support::boot_sector::Guest;

/// Both ways; the message is on the caller's standard error in both.
fn refused_both_ways(bad: &Bad, arguments: &[&str], code: i32, words: &[&str]) {
    bad.refused(&[&["qemu"], arguments].concat(), code, words);
    bad.refused(&[&["qemu", "--detached"], arguments].concat(), code, words);
}

#[test]
fn a_qemu_that_refuses_is_quoted_and_leaves_nothing() {
    let bad = Bad::new();
    let new_disks = ["--disk", "new.img,size=1", "--disk", "new.qcow2,size=1", "--disk", "size=1"];
    let flags =
        [&new_disks[..], &["--data", "hello", "--qmp", "my-qmp", "guest.img", "--", "-device", "nonsense"]];
    let words = ["QEMU did not start: ", "-device nonsense: 'nonsense' is not a valid device model name"];
    refused_both_ways(&bad, &flags.concat(), 1, &words);
    refused_both_ways(&bad, &["--device", "nonsense", "guest.img"], 1, &["'nonsense' is not a valid device"]);
    refused_both_ways(&bad, &["--cpu", "nonsense", "guest.img"], 1, &["CPU model 'nonsense'"]);
    refused_both_ways(&bad, &["--machine", "nonsense", "guest.img"], 1, &["unsupported machine type"]);
    let words = ["-monitor stdio: cannot use stdio", "hint: ", "vmrun ctl hmp"];
    refused_both_ways(&bad, &["guest.img", "--", "-monitor", "stdio"], 1, &words);
    // (q35 has so many in newer QEMUs)
    refused_both_ways(&bad, &["--machine", "pc", "--cpus", "4096", "guest.img"], 1, &["CPUs 4096"]);
    refused_both_ways(&bad, &["--cpus", "4097", "guest.img"], 2, &["--cpus 4097"]);
    assert_eq!(processes_with(bad.sandbox.path().to_str().unwrap()), Vec::<String>::new());
}

#[test]
fn a_failed_start_leaves_an_old_state_directory_as_it_was() {
    let bad = Bad::new();
    let state = bad.sandbox.file("guest-state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::write(state.join("mine"), "x").unwrap();
    std::fs::write(state.join("lock"), "").unwrap();
    std::fs::write(state.join("console.log"), "said in the run before").unwrap();
    let flags = ["--disk", "size=1", "--data", "hello", "guest.img", "--", "-device", "nonsense"];
    bad.refused(&[&["qemu"], &flags[..]].concat(), 1, &["'nonsense'"]);
    bad.refused(&["qemu", "--disk", "size=1", "--disk", "none", "guest.img"], 1, &["--disk none"]);
    let log = std::fs::read_to_string(state.join("console.log"));
    assert_eq!(log.unwrap(), "said in the run before");
}

#[test]
fn state_directories_that_cannot_be_used() {
    let bad = Bad::new();
    bad.file("file", "x");
    std::fs::create_dir(bad.sandbox.file("theirs")).unwrap();
    std::fs::create_dir(bad.sandbox.file("open")).unwrap();
    std::fs::set_permissions(bad.sandbox.file("open"), PermissionsExt::from_mode(0o777)).unwrap();
    std::os::unix::fs::symlink("theirs", bad.sandbox.file("link")).unwrap();
    for (state, words) in [
        ("file", &["state directory: ", "file is not a directory", "hint: ", "--state"][..]),
        ("file/x", &["state directory: ", "file/x", "Not a directory"]),
        ("no/where", &["state directory: ", "/no does not exist", "hint: "]),
        ("open", &["state directory: ", "open is open to other users (mode 0777)", "chmod"]),
        ("link", &["state directory: ", "link is a symbolic link"]),
    ] {
        refused_both_ways(&bad, &["--state", state, "guest.img"], 1, words);
    }
    std::fs::set_permissions(bad.sandbox.file("guest.img"), PermissionsExt::from_mode(0o666)).unwrap();
    bad.start_as_nobody(&["--state", "theirs"], 1, &["theirs belongs to another user (uid 0)", "--state"]);
    std::fs::create_dir(bad.sandbox.file("nobody/readonly")).unwrap();
    std::os::unix::fs::chown(bad.sandbox.file("nobody/readonly"), Some(super::NOBODY), None).unwrap();
    std::fs::set_permissions(bad.sandbox.file("nobody/readonly"), PermissionsExt::from_mode(0o500)).unwrap();
    bad.start_as_nobody(&["--state", "nobody/readonly"], 1, &["nobody/readonly is not writable", "hint: "]);
}

#[test]
fn a_name_or_an_image_that_is_in_use() {
    let bad = Bad::running();
    bad.image("other.img");
    refused_both_ways(
        &bad,
        &["--name", "vm", "other.img"],
        1,
        &["'vm' is already running", "--name", "vmrun ls"],
    );
    let words = ["guest-state is in use by VM 'vm'", "hint: ", "--state"];
    refused_both_ways(&bad, &["--name", "b", "guest.img"], 1, &words);
    let words = ["\"write\" lock", "guest.img"];
    refused_both_ways(&bad, &["--name", "b", "--state", "b-state", "guest.img"], 1, &words);
    bad.refused(&["ls", "--json", "x"], 2, &["'x'"]);
}

#[test]
fn other_files_that_a_start_needs() {
    let bad = Bad::new();
    bad.file("file", "x");
    for (flags, words) in [
        (["--data-file", "none"], &["metadata file none: No such file"][..]),
        (["--data-file", "/"], &["metadata file /: ", "directory"]),
        (["--virtiofs", "file"], &["shared folder", "file: it is not a folder"]),
        (["--virtiofs", "none"], &["shared folder", "none: there is no such folder"]),
        (["--fw", "none"], &["firmware", "none does not exist"]),
        (["--qmp", "no/where"], &["QMP socket", "no/where: "]),
        (["--qmp", "file"], &["QMP socket", "file: something has that name", "hint: "]),
        (["--qmp-log", "no/where"], &["--qmp-log no/where: No such file"]),
        (["--qemu", "none"], &["none is not a program"]),
        (["--qemu", "./file"], &["./file is not a program"]),
        (["--qemu", "/"], &["/ is not a program"]),
        (["--qemu", "/bin/true"], &["QEMU did not start", "without any output"]),
        (["--qemu", "/bin/false"], &["QEMU did not start", "without any output"]),
        (["--qemu", "/bin/cat"], &["QEMU did not start", "cat: "]),
        // its output is shown, too
        (["--qemu", "/bin/echo"], &["QEMU did not start: -nodefaults"]),
    ] {
        bad.start(&flags, 1, words);
    }
    bad.start(&["--device", "virtio-rng-pci,nonsense=1"], 2, &["--device virtio-rng-pci", "'nonsense'"]);
    bad.start(&["--uefi", "--machine", "microvm"], 1, &["UEFI", "microvm"]);
    bad.start(&["--machine", "microvm", "--disk", "x.img,size=1,bus=nvme"], 2, &["microvm", "no nvme bus"]);
}

#[test]
fn a_guest_that_ends_by_itself_leaves_its_disks() {
    // the counterpart: what a good start has made stays
    let bad = Bad::new();
    crate::support::boot_sector::write(Guest::PowersOff, &bad.sandbox.file("off.img"));
    bad.sandbox.run(["qemu", "--disk", "new.img,size=1M", "off.img"]).ok();
    assert_eq!(std::fs::metadata(bad.sandbox.file("new.img")).unwrap().len(), 1 << 20);
    assert!(bad.sandbox.file("off-state/mac-addr").exists());
}

/// Command lines of processes that have this text in them.
fn processes_with(text: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .filter(|line| line.contains(text))
        .collect()
}
