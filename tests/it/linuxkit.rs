//! `linuxkit run qemu`, by a link of that name: linuxkit's own cases (test/cases/010_platforms/000_qemu) with stand-in images, and its habits.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::boot_sector::{self, Guest};
use crate::support::cd;
use crate::support::processes::qemu_of;
use crate::support::sandbox::{Done, Foreground, Sandbox, linux_guest};

/// A folder with a link to vmrun in it.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    symlink(env!("CARGO_BIN_EXE_vmrun"), sandbox.file("linuxkit")).unwrap();
    sandbox
}

/// `linuxkit run qemu` in the foreground.
fn run(sandbox: &Sandbox, arguments: &[&str]) -> Foreground {
    let mut command = sandbox.program(sandbox.file("linuxkit"));
    command.args(["run", "qemu"]).args(arguments);
    Foreground::start(command)
}

/// A guest of one sector at this path, in this format.
fn image(sandbox: &Sandbox, name: &str, format: &str) -> PathBuf {
    let raw = sandbox.file("raw");
    boot_sector::write(Guest::PowersOff, &raw);
    let path = sandbox.file(name);
    let made = Command::new("qemu-img").args(["convert", "-O", format]).args([&raw, &path]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    path
}

/// The drivers of QEMU's disks, in the order in which QEMU lists them, with what is inserted.
fn drives(sandbox: &Sandbox) -> Vec<Value> {
    let reply = sandbox.ctl(["qmp", r#"{"execute":"query-block"}"#]).json();
    let blocks = reply.as_array().cloned().unwrap_or_default();
    assert!(!blocks.is_empty(), "{reply}");
    blocks
}

#[test]
fn kernel_and_initrd_boot() {
    let sandbox = sandbox();
    let guest = linux_guest();
    for part in ["-kernel", "-initrd.img", "-cmdline"] {
        let with = |prefix: &std::path::Path| PathBuf::from(format!("{}{part}", prefix.display()));
        std::fs::copy(with(&guest), with(&sandbox.file("qemu-kernel"))).unwrap();
    }
    let vm = run(&sandbox, &["--kernel", "qemu-kernel"]);
    vm.wait_for("vmrun-guest: ready");
    // as QEMU's own -pidfile
    let pid = std::fs::read_to_string(sandbox.file("qemu-kernel-state/qemu.pid")).unwrap();
    assert_eq!(pid, format!("{}\n", qemu_of(sandbox.path())));
    sandbox.ctl(["shutdown"]).ok();
    assert_eq!(vm.end().code(), 0);
    assert!(!sandbox.file("qemu-kernel-state/qemu.pid").exists());
}

#[test]
fn a_squashfs_is_the_root_behind_the_images_own_words() {
    for (arguments, root) in [(&["--squashfs=true", "qemu-squashfs"][..], "sda"), (&["--squashfs"], "vda")] {
        let sandbox = sandbox();
        let guest = linux_guest();
        std::fs::copy(format!("{}-kernel", guest.display()), sandbox.file("qemu-squashfs-kernel")).unwrap();
        std::fs::write(sandbox.file("qemu-squashfs-squashfs.img"), [0; 4096]).unwrap();
        std::fs::write(sandbox.file("qemu-squashfs-cmdline"), "console=ttyS0 root=/dev/nowhere panic=-1")
            .unwrap();
        let vm = match root {
            "sda" => run(&sandbox, arguments),
            _ => sandbox.foreground([arguments, &["--append", "last=1", "qemu-squashfs"]].concat()),
        };
        let told = vm.wait_for("Kernel command line: ");
        let words = format!("console=ttyS0 root=/dev/nowhere panic=-1 root=/dev/{root}");
        let end = if root == "sda" { words } else { format!("{words} last=1") };
        assert!(told.ends_with(&end), "{told}");
        let device = drives(&sandbox)[0]["qdev"].to_string();
        assert!(device.contains("squashfs"), "{device}");
        let tree = sandbox.ctl(["hmp", "info qtree"]).ok().stdout;
        assert_eq!(tree.contains("ide-hd"), root == "sda", "{tree}");
        sandbox.ctl(["shutdown", "--force"]);
    }
}

#[test]
fn iso_qcow2_and_raw_bios_images_boot() {
    let sandbox = sandbox();
    cd::write(Guest::PowersOff, &sandbox.file("qemu-iso.iso"));
    image(&sandbox, "qemu-qcow2.qcow2", "qcow2");
    image(&sandbox, "qemu-raw-bios.img", "raw");
    for (arguments, state) in [
        (&["--iso", "qemu-iso.iso"][..], "qemu-iso-state"),
        (&["qemu-qcow2.qcow2"], "qemu-qcow2.qcow2-state"),
        (&["qemu-raw-bios.img"], "qemu-raw-bios.img-state"),
    ] {
        let vm = run(&sandbox, arguments);
        vm.wait_for(Guest::PowersOff.greeting());
        let ended = vm.end();
        assert_eq!(ended.code(), 0, "{arguments:?}: {ended:#?}");
        assert!(sandbox.file(state).join("mac-addr").exists(), "{state}");
    }
}

#[test]
fn the_firmware_sees_the_sata_disk_of_a_raw_efi_image() {
    let sandbox = sandbox();
    image(&sandbox, "qemu-raw-efi.img", "raw");
    let vm = run(&sandbox, &["--uefi", "qemu-raw-efi.img"]);
    // it has nothing for the firmware in it, who says so
    let told = vm.wait_for("HARDDISK");
    assert!(told.contains("BdsDxe"), "{told}");
    sandbox.ctl(["shutdown", "--force"]).ok();
}

#[test]
fn disks_and_published_ports_are_as_linuxkit_has_them() {
    let sandbox = sandbox();
    image(&sandbox, "guest.img", "raw");
    boot_sector::write(Guest::IgnoresButton, &sandbox.file("guest.img"));
    let flags =
        ["--disk", "size=1", "--disk", "size=512M", "--publish", "0:80/TCP", "--gui=false", "guest.img"];
    let vm = run(&sandbox, &flags);
    vm.wait_for(Guest::IgnoresButton.greeting());
    let drives = drives(&sandbox);
    let image = |number: usize| drives[number]["inserted"]["image"].clone();
    for (number, name, bytes) in
        [(1, "guest.img-state/disk.img", 1u64 << 30), (2, "guest.img-state/disk1.img", 512 << 20)]
    {
        assert_eq!(image(number)["filename"], sandbox.file(name).to_str().unwrap());
        assert_eq!(image(number)["format"], "qcow2");
        assert_eq!(image(number)["virtual-size"], bytes);
    }
    let tree = sandbox.ctl(["hmp", "info qtree"]).ok().stdout;
    assert_eq!(tree.matches("dev: ide-hd").count(), 3, "{tree}");
    let port = sandbox.ctl_json(["port-list"])[0]["host_port"].as_u64().unwrap();
    let listening = std::fs::read_to_string("/proc/net/tcp").unwrap();
    assert!(listening.contains(&format!("00000000:{port:04X} 00000000:0000 0A")), "{port:04X}: {listening}");
    sandbox.ctl(["shutdown", "--force"]).ok();
    drop(vm);
    // without it everything is as ever, but the disks are found again
    let vm = sandbox.foreground(["--state", "guest.img-state", "--disk", "size=1", "guest.img"]);
    vm.wait_for(Guest::IgnoresButton.greeting());
    let disks = sandbox.ctl_json(["disk-list"]);
    assert_eq!(disks[1]["file"], sandbox.file("guest.img-state/disk.img").to_str().unwrap());
    assert_eq!(disks[1]["bus"], "virtio");
    sandbox.ctl(["shutdown", "--force"]).ok();
}

#[test]
fn linuxkit_does_nothing_else() {
    let sandbox = sandbox();
    let done = sandbox.program(sandbox.file("linuxkit")).args(["build", "x.yml"]).output().unwrap();
    Done::of(done).fails(2, &["under the name of linuxkit", "linuxkit run qemu"]);
}

#[test]
fn a_kernel_boots_beside_any_root_disk_and_words_are_added() {
    let sandbox = sandbox();
    let guest = linux_guest().display().to_string();
    std::fs::write(sandbox.file("root.img"), vec![0; 1 << 20]).unwrap();
    let initrd = format!("{guest}-initrd.img");
    let kernel = format!("{guest}-kernel");
    // a quiet kernel does not say what it was given
    let own = std::fs::read_to_string(format!("{guest}-cmdline")).unwrap().replace("quiet", "loglevel=7");
    let flags =
        ["--kernel", &kernel, "--initrd", &initrd, "--append", own.trim(), "--mem", "256", "root.img"];
    let vm = sandbox.foreground(flags);
    let told = vm.wait_for("Kernel command line: ");
    assert!(told.ends_with(own.trim()), "{told}");
    vm.wait_for("add block vda");
    let disks = sandbox.ctl_json(["disk-list"]);
    assert_eq!(disks[0]["file"], sandbox.file("root.img").to_str().unwrap());
    sandbox.ctl(["shutdown", "--force"]).ok();
    drop(vm);
    // added to a prefix's own
    for part in ["kernel", "initrd.img"] {
        symlink(format!("{guest}-{part}"), sandbox.file(format!("p-{part}"))).unwrap();
    }
    std::fs::write(sandbox.file("p-cmdline"), &own).unwrap();
    let vm = sandbox.foreground(["--append", "added=1", "--mem", "256", "p"]);
    let told = vm.wait_for("Kernel command line: ");
    assert!(told.ends_with(&format!("{} added=1", own.trim())), "{told}");
    sandbox.ctl(["shutdown", "--force"]).ok();
    drop(vm);
    let long = "a".repeat(2048);
    let kernel = format!("--kernel={kernel}");
    sandbox.run(["qemu", &kernel, "--append", &long]).fails(2, &["2048 bytes", "2047"]);
    sandbox.run(["qemu", "--append", "x", "root.img"]).fails(2, &["boots by itself", "--kernel=FILE"]);
    sandbox.run(["qemu", "--initrd", &initrd, &guest]).fails(2, &["--initrd", "--kernel=FILE"]);
}
