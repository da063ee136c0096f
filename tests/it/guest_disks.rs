//! Disks, cold and hot, on every bus: what the guest writes is found on the host.

use std::path::Path;
use std::process::Command;

use crate::support::linux::{Linux, text};

const MIB: u64 = 1 << 20;

/// The raw bytes of an image from an offset on.
fn bytes(image: &Path, offset: usize, count: usize) -> Vec<u8> {
    let raw = image.with_extension("raw-copy");
    let done = Command::new("qemu-img").args(["convert", "-O", "raw"]).args([image, &raw]).status().unwrap();
    assert!(done.success());
    let all = std::fs::read(&raw).unwrap();
    std::fs::remove_file(raw).unwrap();
    all[offset..offset + count].to_vec()
}

fn write(vm: &Linux, disk: &str, words: &str) {
    vm.run(&format!("printf '{words}' | dd of=/dev/{disk} bs=512 seek=2000 conv=notrunc,fsync"));
}

#[test]
fn disks_are_plugged_written_resized_and_unplugged() {
    let vm = Linux::boot::<&str>([]);
    for (bus, file, serial) in [
        ("virtio", "v.qcow2", "VIRTIO-1"),
        ("scsi", "s.img", "SCSI-1"),
        ("usb", "u.qcow2", "USB-1"),
        ("nvme", "n.img", "NVME-1"),
    ] {
        let image = vm.file(file);
        let spec = format!("{file},size=64M,bus={bus},serial={serial},id=my-{bus}");
        let id = vm.ctl(["disk-add", &spec]);
        assert_eq!(id, format!("my-{bus}"));
        let (disk, size) = vm.sees_disk(serial);
        assert_eq!(size, 64 * MIB);
        write(&vm, &disk, bus);
        let listed = vm.list("disk-list");
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!(listed[0]["serial"], serial);
        assert_eq!(listed[0]["size_bytes"], 64 * MIB);
        assert_eq!(listed[0]["file"], image.to_str().unwrap());

        if bus == "virtio" {
            assert_eq!(vm.run("cat /sys/block/vda/serial"), serial);
            vm.ctl(["disk-resize", &id, "96M"]);
            vm.sees(&format!("change block vda size={}", 96 * MIB));
            assert_eq!(vm.run("cat /sys/block/vda/size"), (96 * MIB / 512).to_string());
            vm.try_ctl(["disk-resize", &id, "32M"]).fails(2, &["lose data", "only be made larger"]);
            // the boot image's rule holds for every disk: one user only
            vm.try_ctl(["disk-add", file]).fails(4, &[file, "in use", &id]);
        }

        vm.ctl(["disk-remove", &id]);
        vm.sees(&format!("remove block {disk}"));
        assert!(vm.list("disk-list").is_empty());
        assert_eq!(bytes(&image, 2000 * 512, bus.len()), bus.as_bytes(), "{bus}");
    }
    // the controllers of SCSI and USB stay, one slot each
    let status = vm.status();
    assert_eq!(status["slots_used"], 2);
    // and can be taken out when nothing hangs on them
    for device in status["devices"].as_array().unwrap() {
        vm.ctl(["device-remove", &text(&device["id"])]);
    }
    assert_eq!(vm.status()["slots_used"], 0);

    // a failure leaves nothing: the file that it made goes, too
    vm.try_ctl(["disk-add", "new.img,size=1M,bus=sata"]).fails(4, &["sata"]);
    assert!(!vm.file("new.img").exists());
    vm.quit();
}

#[test]
fn disks_from_the_start_on_every_bus() {
    let buses = ["virtio", "scsi", "sata", "usb", "nvme"];
    let mut options: Vec<String> = Vec::new();
    for bus in buses {
        options.push("--disk".to_owned());
        options.push(format!("{bus}.qcow2,size=8M,bus={bus},serial=S-{bus}"));
    }
    options.extend(["--disk", "size=4M,readonly=on,serial=READONLY"].map(str::to_owned));
    let vm = Linux::boot(&options);
    for bus in buses {
        let (disk, size) = vm.sees_disk(&format!("S-{bus}"));
        assert_eq!(size, 8 * MIB, "{bus}");
        write(&vm, &disk, bus);
    }
    let (disk, size) = vm.sees_disk("READONLY");
    assert_eq!(size, 4 * MIB);
    assert_eq!(vm.run(&format!("cat /sys/block/{disk}/ro")), "1");
    assert_eq!(vm.status()["slots_used"], 0);
    let sandbox = vm.quit();
    for bus in buses {
        assert_eq!(bytes(&sandbox.file(format!("{bus}.qcow2")), 2000 * 512, bus.len()), bus.as_bytes());
    }
    assert_eq!(std::fs::metadata(sandbox.file("state/disk5.img")).unwrap().len(), 4 * MIB);
}

/// Linux lets go of a mounted disk without a word.
#[test]
fn a_mounted_disk_stays_unless_that_is_forced() {
    let vm = Linux::boot(["--data", "text"]);
    vm.sees("metadata sr0");
    for bus in ["virtio", "scsi", "usb", "nvme"] {
        let (file, serial) = (format!("{bus}.img"), format!("S-{bus}"));
        std::fs::copy(vm.file("state/metadata.iso"), vm.file(&file)).unwrap();
        vm.ctl(["disk-add", &format!("{file},bus={bus},id={bus},serial={serial}")]);
        let (disk, _) = vm.sees_disk(&serial);
        vm.run(&format!("mount -t iso9660 -o ro /dev/{disk} /mnt"));
        for remove in ["disk-remove", "device-remove"] {
            let words = [&format!("disk '{bus}' is mounted in the guest at /mnt"), "hint: ", "--force"];
            vm.try_ctl([remove, bus]).fails(4, &words);
        }
        assert_eq!(vm.run("cat /mnt/config"), "text", "{bus}");
        // another disk on the same controller is not meant
        vm.ctl(["disk-add", &format!("other-{bus}.img,size=1M,bus={bus},id=other,serial=OTHER")]);
        vm.sees_disk("OTHER");
        if bus != "usb" {
            let removed = vm.try_ctl(["disk-remove", "other"]);
            assert_eq!((removed.code, removed.stderr.as_str()), (0, ""), "{bus}: {removed:#?}");
        } else {
            // without udev the agent knows no serial numbers
            let removed = vm.try_ctl(["disk-remove", "other"]).ok();
            assert!(removed.stderr.contains("was not checked: the guest has a disk mounted"), "{removed:#?}");
        }
        let remove = if bus == "nvme" { "device-remove" } else { "disk-remove" };
        vm.ctl([remove, bus, "--force"]);
        vm.sees(&format!("remove block {disk}"));
        vm.run("umount -l /mnt");
    }
    vm.try_ctl(["disk-add", "n.img,size=1M,bus=nvme,id=n"]).ok();
    vm.try_ctl(["disk-resize", "n", "2M"]).fails(4, &["NVMe", "qemu-img resize"]);
    vm.try_ctl(["disk-add", "u.img,size=1M,bus=usb,id=u"]).ok();
    vm.try_ctl(["disk-resize", "u", "2M"]).fails(4, &["USB", "qemu-img resize"]);
    assert_eq!(std::fs::metadata(vm.file("u.img")).unwrap().len(), MIB);
    vm.quit();
}
