//! `--unpack`: compressed images and archives; and images that are kernels.

use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::boot_sector::{self, Guest};
use crate::support::cd;
use crate::support::processes::{self, eventually};
use crate::support::pty::OnTerminal;
use crate::support::sandbox::{Done, Foreground, Sandbox, linux_guest};

/// Runs a command of a shell in the sandbox.
#[track_caller]
fn sh(sandbox: &Sandbox, command: &str) {
    let done = Command::new("sh").args(["-ec", command]).current_dir(sandbox.path()).output().unwrap();
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A guest that idles, compressed as `guest.img.xz`; the image itself is not there.
fn packed() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.boot_sector(Guest::IgnoresButton);
    sh(&sandbox, "xz guest.img");
    sandbox
}

/// The file of QEMU's first disk, and the one under it.
fn disk(sandbox: &Sandbox) -> (PathBuf, Option<PathBuf>) {
    let reply = sandbox.ctl(["qmp", r#"{"execute":"query-block"}"#]).json();
    let image = &reply[0]["inserted"]["image"];
    let path = |value: &Value| value.as_str().map(PathBuf::from);
    (path(&image["filename"]).unwrap(), path(&image["backing-image"]["filename"]))
}

/// Ends the VM.
fn quit(sandbox: &Sandbox, vm: Foreground) {
    sandbox.ctl(["shutdown", "--force"]).ok();
    vm.end();
}

/// What is in the state directory and has to do with unpacking.
fn parts(state: &Path) -> Vec<String> {
    let names = std::fs::read_dir(state).into_iter().flatten();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.contains("unpacked")).collect();
    names.sort();
    names
}

#[test]
fn a_compressed_image_is_unpacked_once_and_a_changed_one_is_noticed() {
    let sandbox = packed();
    let start = ["--unpack", "guest.img.xz"];
    sandbox.run(["qemu", "guest.img.xz"]).fails(1, &["compressed (xz)", "`--unpack`", "xz -dk"]);
    sandbox.run(["qemu", "--dry-run", "--unpack", "guest.img.xz"]).fails(2, &["not unpacked yet"]);
    let image = sandbox.file("guest.img.xz-state/unpacked.img");
    let vm = sandbox.foreground(start);
    vm.wait_for(Guest::IgnoresButton.greeting());
    assert_eq!(disk(&sandbox), (image.clone(), None));
    assert_eq!(sandbox.ctl_json(["status"])["name"], "guest");
    quit(&sandbox, vm);
    let facts = std::fs::metadata(&image).unwrap();
    assert_eq!((facts.len(), facts.mode() & 0o777), (boot_sector::DISK_SIZE, 0o600));
    assert!(facts.blocks() * 512 < facts.len(), "holes");
    // what the guest has written stays: also when the source is another file with the same bytes
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    file.write_all_at(b"written", 1 << 19).unwrap();
    for again in ["true", "touch guest.img.xz", "cp guest.img.xz b && mv b guest.img.xz"] {
        sh(&sandbox, again);
        let vm = sandbox.foreground(start);
        vm.wait_for(Guest::IgnoresButton.greeting());
        quit(&sandbox, vm);
        let mut read = [0; 7];
        std::fs::File::open(&image).unwrap().read_exact_at(&mut read, 1 << 19).unwrap();
        assert_eq!((&read, std::fs::metadata(&image).unwrap().ino()), (b"written", facts.ino()), "{again}");
    }
    // a run that is thrown away lies over it, as over any image
    let vm = sandbox.foreground(["--ephemeral", "--unpack", "guest.img.xz"]);
    vm.wait_for(Guest::IgnoresButton.greeting());
    let (overlay, below) = disk(&sandbox);
    assert_eq!(below, Some(image.clone()));
    assert!(overlay.starts_with(sandbox.temporary()), "{overlay:?}");
    quit(&sandbox, vm);
    assert_eq!(parts(&sandbox.file("guest.img.xz-state")), ["unpacked.img", "unpacked.json"]);
    // another source
    boot_sector::write(Guest::PowersOff, &sandbox.file("new"));
    sh(&sandbox, "xz -c new > guest.img.xz");
    let refused = sandbox.run(["qemu", "--unpack", "guest.img.xz"]);
    refused.fails(1, &["guest.img.xz", "not any more what", "unpacked.img", "hint: remove"]);
    std::fs::remove_file(&image).unwrap();
    let vm = sandbox.foreground(start);
    vm.wait_for(Guest::PowersOff.greeting());
    assert_eq!(vm.end().code(), 0);
    sandbox.is_clean();
}

#[test]
fn a_run_that_is_thrown_away_unpacks_into_its_own_state() {
    let sandbox = packed();
    let vm = sandbox.foreground(["--ephemeral", "--unpack", "guest.img.xz"]);
    vm.wait_for(Guest::IgnoresButton.greeting());
    let (overlay, below) = disk(&sandbox);
    assert!(overlay.starts_with(sandbox.temporary()), "{overlay:?}");
    assert!(below.as_ref().is_some_and(|below| below.starts_with(sandbox.temporary())), "{below:?}");
    quit(&sandbox, vm);
    assert!(!sandbox.file("guest.img.xz-state").exists());
    sandbox.is_clean();
}

#[test]
fn archives_appliances_and_cds_are_unpacked() {
    let sandbox = Sandbox::new();
    boot_sector::write(Guest::PowersOff, &sandbox.file("disk.raw"));
    cd::write(Guest::PowersOff, &sandbox.file("live.iso"));
    std::fs::write(sandbox.file("box.ovf"), "<Envelope/>").unwrap();
    sh(
        &sandbox,
        "qemu-img convert -f raw -O vmdk -o subformat=streamOptimized disk.raw box-disk1.vmdk
        tar -cf box.ova box.ovf box-disk1.vmdk
        tar --format=oldgnu -Sczf image.tar.gz disk.raw
        qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2 && zstd -q disk.qcow2
        xz live.iso",
    );
    for (image, unpacked) in [
        ("box.ova", "unpacked.qcow2"),
        ("image.tar.gz", "unpacked.img"),
        ("disk.qcow2.zst", "unpacked.qcow2"),
        ("live.iso.xz", "unpacked.iso"),
    ] {
        let vm = sandbox.foreground(["--unpack", image]);
        vm.wait_for(Guest::PowersOff.greeting());
        let ended = vm.end();
        assert_eq!(ended.code(), 0, "{image}: {ended:#?}");
        let state = sandbox.file(format!("{image}-state"));
        assert!(state.join(unpacked).is_file(), "{image}: {:?}", parts(&state));
    }
    // a CD is one
    let vm = sandbox.detached(["--unpack", "live.iso.xz", "--name", "cd"]);
    assert_eq!(vm, "cd");
}

/// A sandbox in which `xz` says that it has begun, and never ends.
fn with_a_stuck_xz(sandbox: &Sandbox) -> String {
    let bin = sandbox.file("bin");
    std::fs::create_dir(&bin).unwrap();
    let script =
        format!("#!/bin/sh\nprintf data\ntouch {}\nexec sleep 1000\n", sandbox.file("begun").display());
    std::fs::write(bin.join("xz"), script).unwrap();
    std::fs::set_permissions(bin.join("xz"), PermissionsExt::from_mode(0o755)).unwrap();
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

#[test]
fn one_that_is_killed_meanwhile_leaves_nothing_and_two_do_not_meet() {
    let sandbox = packed();
    let path = with_a_stuck_xz(&sandbox);
    let mut first = sandbox.vmrun();
    first.args(["qemu", "--unpack", "guest.img.xz"]).env("PATH", &path);
    let first = Foreground::start(first);
    eventually("it unpacks", || sandbox.file("begun").exists());
    let second = sandbox.run(["qemu", "--unpack", "guest.img.xz", "--name", "b"]);
    second.fails(1, &["guest.img.xz-state", "in use"]);
    first.signal(Signal::SIGKILL);
    assert_eq!(first.end().code(), -1);
    eventually("xz is gone", || processes::of(sandbox.path()).is_empty());
    assert_eq!(parts(&sandbox.file("guest.img.xz-state")), Vec::<String>::new());
    // the next one cleans up and does it
    let vm = sandbox.foreground(["--unpack", "guest.img.xz"]);
    vm.wait_for(Guest::IgnoresButton.greeting());
    quit(&sandbox, vm);
    sandbox.is_clean();
}

#[test]
fn what_does_not_fit_or_is_not_whole_leaves_nothing() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("big.img"), vec![1; 1 << 20]).unwrap();
    sh(&sandbox, "xz big.img; head -c 60 big.img.xz > cut.img.xz; echo '<html>' | gzip -c > page.gz");
    // as many blocks of 512 bytes as a file may have
    let limited = "ulimit -f 1024; exec \"$0\" qemu --unpack big.img.xz";
    let mut command = sandbox.program("sh");
    let done = command.args(["-c", limited, env!("CARGO_BIN_EXE_vmrun")]).output().unwrap();
    Done::of(done).fails(1, &["big.img.xz", "cannot be unpacked", "File too large"]);
    sandbox.run(["qemu", "--unpack", "cut.img.xz"]).fails(1, &["xz has failed", "hint: is it whole?"]);
    sandbox.run(["qemu", "--unpack", "page.gz"]).fails(1, &["what is packed in it is a web page"]);
    for state in ["big.img.xz-state", "cut.img.xz-state", "page.gz-state"] {
        assert!(!sandbox.file(state).exists(), "{state}");
    }
    sandbox.is_clean();
}

#[test]
fn a_person_at_a_terminal_sees_how_far_it_is() {
    let sandbox = Sandbox::new();
    boot_sector::write(Guest::PowersOff, &sandbox.file("disk.raw"));
    let file = std::fs::File::options().write(true).open(sandbox.file("disk.raw")).unwrap();
    file.write_all_at(&[1], 16 << 20).unwrap();
    sh(&sandbox, "gzip disk.raw");
    let mut command = sandbox.vmrun();
    command.args(["qemu", "--unpack", "disk.raw.gz"]);
    let mut terminal = OnTerminal::start(&command);
    terminal.shows("unpacking ");
    terminal.shows("% read");
    terminal.shows(Guest::PowersOff.greeting());
    assert!(terminal.end().success());
    // and no other
    std::fs::remove_dir_all(sandbox.file("disk.raw.gz-state")).unwrap();
    let vm = sandbox.foreground(["--unpack", "disk.raw.gz"]);
    let ended = vm.end();
    assert_eq!((ended.code(), ended.stderr.as_str()), (0, ""));
}

/// An EFI program with these sections, as far as vmrun looks.
fn uki(sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; 0x1000];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x80;
    bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
    bytes[0x86] = u8::try_from(sections.len()).unwrap();
    for (number, (name, content)) in sections.iter().enumerate() {
        let at = 0x98 + number * 40;
        let start = u32::try_from(bytes.len()).unwrap();
        let size = u32::try_from(content.len()).unwrap().to_le_bytes();
        bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
        bytes[at + 8..at + 12].copy_from_slice(&size);
        bytes[at + 16..at + 20].copy_from_slice(&size);
        bytes[at + 20..at + 24].copy_from_slice(&start.to_le_bytes());
        bytes.extend(content);
    }
    bytes
}

#[test]
fn an_image_that_is_a_kernel_boots() {
    let sandbox = Sandbox::new();
    let guest = linux_guest().with_file_name("bzimage");
    let of = |part: &str| PathBuf::from(format!("{}-{part}", guest.display()));
    let words = std::fs::read_to_string(of("cmdline")).unwrap().replace("quiet", "loglevel=7");
    std::os::unix::fs::symlink(of("kernel"), sandbox.file("vmlinuz")).unwrap();
    let parts = [
        (".cmdline", words.trim().as_bytes().to_owned()),
        (".linux", std::fs::read(of("kernel")).unwrap()),
        (".initrd", std::fs::read(of("initrd.img")).unwrap()),
    ];
    std::fs::write(sandbox.file("linux.efi"), uki(&parts)).unwrap();
    let initrd = of("initrd.img").display().to_string();
    let kernel = ["vmlinuz", "--initrd", &initrd, "--append", words.trim()];
    let unified = ["linux.efi", "--append", "added=1"];
    for (arguments, end) in [(&kernel[..], words.trim()), (&unified, "added=1")] {
        let vm = sandbox.foreground(arguments.iter().chain(&["--mem", "512"]));
        let told = vm.wait_for("Kernel command line: ");
        assert!(told.contains(words.trim()) && told.ends_with(end), "{told}");
        vm.wait_for("vmrun-guest: ready");
        sandbox.ctl(["shutdown"]).ok();
        assert_eq!(vm.end().code(), 0);
    }
    // for `--disk` it is none
    sandbox.run(["qemu", "--disk", "vmlinuz"]).fails(1, &["a Linux kernel", "format=raw"]);
}

#[test]
fn a_raw_disk_that_its_guest_has_made_look_otherwise_stays_one() {
    for mark in [&b"\xfd7zXZ\0"[..], b"HdrS"] {
        let sandbox = Sandbox::new();
        let image = sandbox.boot_sector(Guest::IgnoresButton);
        let vm = sandbox.foreground([&image]);
        vm.wait_for(Guest::IgnoresButton.greeting());
        quit(&sandbox, vm);
        let file = std::fs::File::options().write(true).open(&image).unwrap();
        file.write_all_at(mark, if mark == b"HdrS" { 0x202 } else { 0 }).unwrap();
        sandbox.detached(["--unpack", "guest.img"]);
        assert_eq!(disk(&sandbox), (image, None));
        sandbox.ctl(["shutdown", "--force"]).ok();
    }
}
