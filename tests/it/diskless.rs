//! VMs without an IMAGE: what boots then, where their state is, and what they are called; and IMAGE with the options of a disk.

use std::path::Path;

use serde_json::Value;

use crate::support::boot_sector::{self, Guest};
use crate::support::sandbox::{Sandbox, linux_guest};

/// Its state directory, as the supervisor tells it.
fn state_of(sandbox: &Sandbox, name: &str) -> String {
    sandbox.ctl_json(["--vm", name, "status"])["state_directory"].as_str().unwrap().to_owned()
}

/// The block nodes that QEMU has for its disks: device, file, format.
fn disks(sandbox: &Sandbox) -> Vec<(String, String, String)> {
    let reply = sandbox.ctl(["qmp", r#"{"execute":"query-block"}"#]).json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let drive = |drive: &Value| {
        let image = &drive["inserted"]["image"];
        (text(&drive["qdev"]), text(&image["filename"]), text(&image["format"]))
    };
    reply.as_array().unwrap().iter().map(drive).collect()
}

#[test]
fn without_an_image_the_first_disk_is_booted() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("data.img"), vec![0; 1 << 20]).unwrap();
    boot_sector::write(Guest::IgnoresButton, &sandbox.file("root.img"));
    let vm = sandbox.foreground(["--disk", "root.img,bus=scsi", "--disk", "data.img"]);
    vm.wait_for(Guest::IgnoresButton.greeting());
    // named after the first, beside which its state is, as if it were the image
    assert_eq!(state_of(&sandbox, "root"), sandbox.file("root-state").to_str().unwrap());
    let disks = disks(&sandbox);
    assert!(disks[0].1.ends_with("/root.img") && disks[1].1.ends_with("/data.img"), "{disks:?}");
    sandbox.ctl(["shutdown", "--force"]).ok();
    drop(vm);
    sandbox.is_clean();
}

#[test]
fn without_any_disk_the_network_boots_and_the_state_is_the_users() {
    let sandbox = Sandbox::new();
    let state = sandbox.state_home().join("vmrun/machines/vm-state");
    let mac = || std::fs::read_to_string(state.join("mac-addr")).unwrap();
    let vm = sandbox.foreground::<&str>([]);
    vm.wait_for("iPXE");
    assert_eq!(state_of(&sandbox, "vm"), state.to_str().unwrap());
    let first = mac();
    // a second one at the same time has a name and a state of its own
    let second = sandbox.detached(["--networking", "none"]);
    assert_eq!(second, "vm-2");
    let ephemeral = sandbox.ephemeral_states();
    assert_eq!([state_of(&sandbox, "vm-2")], [ephemeral[0].to_str().unwrap()]);
    sandbox.ctl(["--vm", "vm-2", "shutdown", "--force"]).ok();
    sandbox.ctl(["shutdown", "--force"]).ok();
    drop(vm);
    sandbox.is_clean();
    // the same machine again, by its address; it survives being saved
    let name = sandbox.detached::<&str>([]);
    assert_eq!((name.as_str(), mac()), ("vm", first.clone()));
    let tree = sandbox.ctl(["hmp", "info qtree"]).ok().stdout;
    assert!(tree.contains(&first), "{first}: {tree}");
    sandbox.ctl(["save", "vm.vmrun"]).ok();
    sandbox.detached(["--restore", "vm.vmrun"]);
    assert_eq!(state_of(&sandbox, "vm"), state.to_str().unwrap());
    let tree = sandbox.ctl(["hmp", "info qtree"]).ok().stdout;
    assert!(tree.contains(&first), "{first}: {tree}");
    sandbox.ctl(["shutdown", "--force"]).ok();
    sandbox.is_clean();
}

#[test]
fn a_disk_without_a_path_is_found_again_by_the_vms_name() {
    let sandbox = Sandbox::new();
    let state = sandbox.state_home().join("vmrun/machines/box-state");
    for _ in 0..2 {
        sandbox.detached(["--name", "box", "--disk", "size=1M", "--networking", "none"]);
        assert_eq!(disks(&sandbox)[0].1, state.join("disk.img").to_str().unwrap());
        sandbox.ctl(["shutdown", "--force"]).ok();
    }
    // with a disk to keep, there is no second VM beside it
    sandbox.detached(["--name", "box", "--disk", "size=1M", "--networking", "none"]);
    let again = ["qemu", "--name", "box", "--disk", "size=1M"];
    sandbox.run(again).fails(1, &["'box'", "--name"]);
    sandbox.ctl(["shutdown", "--force"]).ok();
    sandbox.is_clean();
}

#[test]
fn a_kernel_alone_leaves_nothing_beside_itself() {
    let sandbox = Sandbox::new();
    let guest = linux_guest().display().to_string();
    for part in ["kernel", "initrd.img"] {
        std::os::unix::fs::symlink(format!("{guest}-{part}"), sandbox.file(format!("the.{part}"))).unwrap();
    }
    let words = std::fs::read_to_string(format!("{guest}-cmdline")).unwrap();
    let flags = ["--kernel=the.kernel", "--initrd", "the.initrd.img", "--append", words.trim()];
    let vm = sandbox.foreground(flags.iter().chain(&["--mem", "256"]));
    vm.wait_for("vmrun-guest: ready");
    let state = sandbox.state_home().join("vmrun/machines/the-state");
    assert_eq!(state_of(&sandbox, "the"), state.to_str().unwrap());
    assert_eq!(disks(&sandbox), []);
    sandbox.ctl(["shutdown"]).ok();
    assert_eq!(vm.end().code(), 0);
    // beside a disk it is the disk's
    let flags = flags.iter().chain(&["--mem", "256", "--disk", "root.img,size=1M"]);
    let name = sandbox.detached(flags);
    assert_eq!(state_of(&sandbox, &name), sandbox.file("root-state").to_str().unwrap());
    sandbox.ctl(["shutdown", "--force"]).ok();
    sandbox.is_clean();
}

#[test]
fn an_image_takes_every_option_of_a_disk() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::IgnoresButton);
    std::fs::rename(&image, sandbox.file("a,b.img")).unwrap();
    for (typed, driver, id, readonly) in [
        // a comma is written twice, and an existing file of that whole name takes precedence
        ("a,b.img", "virtio-blk-pci", "disk0", false),
        ("a,,b.img,bus=scsi,serial=S1,id=root", "scsi-hd", "root", false),
        ("file=a,,b.img,bus=nvme,format=raw,readonly=on", "nvme", "disk0", true),
        ("file=a,,b.img", "virtio-blk-pci", "disk0", false),
        ("a,,b.img,bus=usb,readonly=on", "usb-storage", "disk0", true),
    ] {
        let vm = sandbox.foreground([typed]);
        vm.wait_for(Guest::IgnoresButton.greeting());
        let reply = sandbox.ctl(["qmp", r#"{"execute":"query-block"}"#]).json();
        let inserted = &reply[0]["inserted"];
        assert_eq!(inserted["image"]["filename"], sandbox.file("a,b.img").to_str().unwrap(), "{typed}");
        assert_eq!(inserted["ro"], readonly, "{typed}");
        let tree = sandbox.ctl(["hmp", "info qtree"]).ok().stdout;
        assert!(tree.contains(&format!("dev: {driver}, id \"{id}\"")), "{typed}: {tree}");
        assert_eq!(tree.contains("serial = \"S1\""), typed.contains("S1"), "{typed}: {tree}");
        sandbox.ctl(["shutdown", "--force"]).ok();
        vm.end();
    }
    // one that is not there is made
    sandbox.detached(["new.qcow2,size=8M,format=qcow2"]);
    let [(_, file, format)] = &disks(&sandbox)[..] else { panic!("one disk") };
    assert_eq!((Path::new(file), format.as_str()), (sandbox.file("new.qcow2").as_path(), "qcow2"));
    sandbox.ctl(["shutdown", "--force"]).ok();
    sandbox.is_clean();
}

#[test]
fn what_needs_an_image_says_so() {
    let sandbox = Sandbox::new();
    for flag in ["--kernel", "--iso", "--squashfs", "--linuxkit"] {
        let flags = ["qemu", flag, "--disk", "size=1M"];
        sandbox.run(flags).fails(2, &["which image", flag, "hint: vmrun qemu IMAGE"]);
    }
    sandbox.run(["qemu", "--append", "x"]).fails(2, &["--append", "there is none", "--kernel=FILE"]);
    assert!(!sandbox.state_home().exists());
}
