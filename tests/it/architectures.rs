//! VMs of other architectures: changed while they run, as far as each of them can be. Emulation is slow, so each guest boots once.

use std::path::PathBuf;

use crate::support::linux::Linux;
use crate::support::sandbox::Sandbox;

/// The guest of an architecture; see tests/guest/build.sh.
#[track_caller]
fn guest(arch: &str) -> PathBuf {
    let variable = format!("VMRUN_TEST_GUEST_{}", arch.to_uppercase());
    std::env::var_os(&variable).unwrap_or_else(|| panic!("{variable} is not set: use `make test`")).into()
}

#[track_caller]
fn boot(arch: &str, options: &[&str]) -> Linux {
    Linux::boot_in(Sandbox::new(), &guest(arch), [&["--arch", arch], options].concat())
}

/// A disk that is plugged, mounted, refused, unplugged.
fn a_disk_comes_and_goes(vm: &Linux, name: &str) {
    std::fs::copy(vm.file("state/metadata.iso"), vm.file("data.img")).unwrap();
    vm.ctl(["disk-add", "data.img,id=data"]);
    vm.sees(&format!("add block {name}"));
    vm.run(&format!("mount -t iso9660 -o ro /dev/{name} /mnt"));
    vm.try_ctl(["disk-remove", "data"]).fails(4, &["disk 'data' is mounted in the guest at /mnt", "--force"]);
    assert_eq!(vm.run("cat /mnt/config"), "text");
    vm.run("umount /mnt");
    let removed = vm.try_ctl(["disk-remove", "data"]);
    assert_eq!((removed.code, removed.stderr.as_str()), (0, ""), "{removed:#?}");
    vm.sees(&format!("remove block {name}"));
}

fn a_card_comes_and_goes(vm: &Linux) {
    let card = vm.ctl(["nic-add", "user,mac=02:00:00:00:00:07"]);
    vm.sees("add net eth1");
    assert_eq!(vm.run("cat /sys/class/net/eth1/address"), "02:00:00:00:00:07");
    vm.ctl(["nic-remove", &card]);
    vm.sees("remove net eth1");
}

#[test]
#[cfg_attr(lacks = "qemu-system-aarch64", ignore = "needs qemu-system-aarch64")]
fn aarch64_is_changed_while_it_runs() {
    let vm = boot("aarch64", &["--data", "text"]);
    // at once after the plug QEMU refuses an unplug for five seconds: that is waited for
    vm.ctl(["disk-add", "quick.img,size=1M,id=quick"]);
    vm.sees("add block vda");
    vm.ctl(["disk-remove", "quick"]);
    vm.sees("remove block vda");
    a_disk_comes_and_goes(&vm, "vda");
    a_card_comes_and_goes(&vm);
    vm.try_ctl(["send-key", "a"]).fails(4, &["no keyboard", "usb-kbd"]);
    vm.ctl(["usb-add", "usb-kbd", "--id", "keys"]);
    vm.sees("add input QEMU QEMU USB Keyboard");
    vm.ctl(["send-key", "a"]);
    vm.ctl(["usb-remove", "keys"]);
    vm.sees("remove input QEMU QEMU USB Keyboard");
    vm.sees("power button ready");
    vm.ctl(["powerdown"]);
    vm.sees("power button pressed");
    assert_eq!(vm.end().0.code(), 0);
}

#[test]
#[cfg_attr(lacks = "qemu-system-s390x", ignore = "needs qemu-system-s390x")]
fn s390x_is_changed_while_it_runs() {
    let vm = boot("s390x", &["--data", "text", "--disk", "state.qcow2,size=1G", "--on-panic", "pause"]);
    vm.sees("add block vda");
    a_disk_comes_and_goes(&vm, "vdb");
    a_card_comes_and_goes(&vm);
    vm.try_ctl(["usb-add", "usb-kbd"]).fails(4, &["no USB"]);
    for bus in ["usb", "sata", "nvme"] {
        let refused = vm.try_ctl(["disk-add", &format!("no.img,size=1M,bus={bus}")]);
        assert!(refused.stderr.ends_with("hint: it takes disks on: virtio, scsi\n"), "{refused:#?}");
        assert_eq!(refused.code, 4);
    }
    vm.try_ctl(["type", "x"]).fails(4, &["no keyboard", "virtio-keyboard"]);
    // QEMU would leave a half of it that no snapshot can be made with
    vm.try_ctl(["device-add", "virtio-balloon-pci"]).fails(4, &["PCI", "hint: use 'virtio-balloon-ccw'"]);
    vm.ctl(["device-add", "virtio-balloon-ccw,id=balloon"]);
    vm.ctl(["snapshot-save", "whole"]);
    let _ = vm.ask("echo c > /proc/sysrq-trigger");
    vm.until("the panic is seen", |vm| vm.status()["state"] == "panicked");
    vm.try_ctl(["shutdown", "--force"]).fails(10, &[]);
    assert_eq!(vm.end().0.code(), 10);
}

#[test]
#[cfg_attr(lacks = "qemu-system-riscv64", ignore = "needs qemu-system-riscv64")]
fn riscv64_says_what_its_guest_does_not_take() {
    let vm = boot("riscv64", &[]);
    // Debian's kernel has no PCI hot-plug
    for (add, list) in [
        (&["disk-add", "data.img,size=1M,id=data"][..], "disk-list"),
        (&["nic-add", "user,id=card"], "nic-list"),
        (&["usb-add", "usb-kbd", "--id", "keys"], "usb-list"),
    ] {
        let added = vm.try_ctl(add).ok();
        assert!(added.stderr.contains("is plugged, but the guest does not use it"), "{added:#?}");
        let listed = vm.ctl([list]);
        assert!(listed.contains("plugged, but the guest does not use it"), "{listed}");
        assert_eq!(vm.list(list).last().unwrap()["taken"], false);
    }
    assert_eq!(vm.sh("ls /sys/block | grep vd; ls /sys/class/net | grep eth1").1, "");
    vm.ctl(["usb-remove", "keys"]);
    vm.ctl(["nic-remove", "card"]);
    vm.ctl(["disk-remove", "data"]);
    vm.try_ctl(["powerdown"]).fails(4, &["no power button", "shutdown"]);
    vm.ctl(["shutdown"]);
    assert_eq!(vm.end().0.code(), 0);
}
