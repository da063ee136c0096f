//! Files into the guest and out of it, through its agent.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use crate::guest_exec::with_agent;
use crate::support::sandbox::Done;

const SIZE: usize = 64 << 20;

/// Bytes without a pattern that a lost or doubled piece could hide in.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

#[test]
fn files_go_there_and_back() {
    let vm = with_agent(&[]);
    let bytes = noise(SIZE);
    fs::write(vm.file("big"), &bytes).unwrap();
    fs::set_permissions(vm.file("big"), Permissions::from_mode(0o750)).unwrap();
    let begun = Instant::now();
    let facts = vm.sandbox.ctl_json(["copy-to", "big", "/tmp/big"]);
    assert_eq!((&facts["size_bytes"], &facts["checked"]), (&SIZE.into(), &"sha256".into()), "{facts}");
    let there = begun.elapsed();
    assert_eq!(vm.run("stat -c '%a %s' /tmp/big; ls /tmp/big*"), format!("750 {SIZE}\n/tmp/big"));
    let begun = Instant::now();
    assert_eq!(vm.ctl(["copy-from", "/tmp/big", "back"]), "back");
    let back = begun.elapsed();
    assert!(fs::read(vm.file("back")).unwrap() == bytes);
    assert_eq!(fs::metadata(vm.file("back")).unwrap().permissions().mode() & 0o7777, 0o750);
    let speed = |time: std::time::Duration| 64.0 / time.as_secs_f64();
    eprintln!("64 MiB: {:.1} MiB/s there, {:.1} MiB/s back", speed(there), speed(back));
    vm.run("rm /tmp/big");

    // names with anything in them, empty files, directories as destinations
    fs::write(vm.file("a b'$(x).txt"), "").unwrap();
    assert_eq!(vm.ctl(["copy-to", "a b'$(x).txt", "/tmp"]), "/tmp/a b'$(x).txt");
    fs::create_dir(vm.file("out")).unwrap();
    vm.ctl(["copy-from", "/tmp/a b'$(x).txt", "out"]);
    assert_eq!(fs::read(vm.file("out/a b'$(x).txt")).unwrap(), b"");
    vm.run("rm /tmp/*.txt");
    // a file without a size, and a destination that must not be replaced
    vm.ctl(["copy-from", "/proc/version", "version"]);
    assert!(fs::read_to_string(vm.file("version")).unwrap().starts_with("Linux version"));
    vm.ctl(["copy-from", "/proc/version", "/dev/null"]);
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    vm.ctl(["copy-to", "version", "/dev/null"]);
    assert_eq!(vm.run("stat -c %F /dev/null"), "character special file");

    // standard streams
    let mut piped = vm.sandbox.program("sh");
    piped.args(["-c", "echo piped | \"$0\" ctl copy-to - /tmp/piped", env!("CARGO_BIN_EXE_vmrun")]);
    Done::of(piped.output().unwrap()).ok();
    assert_eq!(vm.ctl(["copy-from", "/tmp/piped", "-"]), "piped");
    vm.run("rm /tmp/piped");
    // folders
    fs::write(vm.file("out/x"), "x").unwrap();
    let facts = vm.sandbox.ctl_json(["copy-to", "out", "/tmp"]);
    assert_eq!((&facts["path"], &facts["checked"]), (&"/tmp/out".into(), &"tar".into()), "{facts}");
    assert_eq!(vm.ctl(["copy-from", "/tmp/out/", "."]), "./out");
    assert_eq!(vm.ctl(["copy-from", "/tmp/out", "other"]), "other");
    assert_eq!(fs::read(vm.file("other/x")).unwrap(), b"x");
    vm.run("rm -r /tmp/out");
    // what does not work leaves nothing behind
    vm.try_ctl(["copy-from", "/no/such", "x"]).fails(4, &["/no/such", "No such file"]);
    vm.try_ctl(["copy-from", "/no/folder/", "x"]).fails(4, &["/no/folder"]);
    vm.try_ctl(["copy-from", "relative", "x"]).fails(2, &["relative", "absolute"]);
    vm.try_ctl(["copy-from", "/proc/version", "no/such/x"]).fails(1, &["no/such/x"]);
    for endless in ["/dev/zero", "/dev/urandom"] {
        vm.try_ctl(["copy-to", endless, "/tmp/endless"]).fails(1, &[endless, "may have no end", "head -c"]);
        vm.run("[ ! -e /tmp/endless ] && ! ls /tmp/endless*.part");
    }
    vm.ctl(["copy-to", "/dev/null", "/tmp/empty"]);
    vm.run("[ -f /tmp/empty ] && [ ! -s /tmp/empty ]");
    vm.try_ctl(["copy-to", "no-such", "/tmp/x"]).fails(1, &["no-such"]);
    vm.try_ctl(["copy-from", "/etc", "-"]).fails(4, &["/etc", "directory"]);
    vm.try_ctl(["copy-to", "version", "/no/such"])
        .fails(4, &["/no/such in the guest: there is no directory /no\n"]);
    vm.run("mkdir -p /tmp/small /tmp/fixed; mount -t tmpfs -o size=1M none /tmp/small; mount -t tmpfs -o ro none /tmp/fixed");
    vm.try_ctl(["copy-to", "version", "/tmp/fixed/x"]).fails(4, &["/tmp/fixed/x", "Read-only file system"]);
    fs::write(vm.file("medium"), &bytes[..3 << 20]).unwrap();
    vm.try_ctl(["copy-to", "medium", "/tmp/small/x"]).fails(4, &["/tmp/small/x", "No space left on device"]);
    vm.until("nothing is left of it", |vm| vm.run("ls -A /tmp/small").is_empty());
    // the caller went away in the middle
    let mut child = vm.sandbox.vmrun().args(["ctl", "copy-to", "big", "/tmp/late"]).spawn().unwrap();
    vm.until("it has begun", |vm| vm.run("ls /tmp").contains("late"));
    child.kill().unwrap();
    child.wait().unwrap();
    vm.until("nothing is left of it", |vm| !vm.run("ls /tmp").contains("late"));
    let mut names: Vec<_> =
        fs::read_dir(vm.file(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| name.to_string_lossy().contains(".part") || name == "x");
    assert!(names.is_empty(), "{names:?}");
    vm.quit();
}
