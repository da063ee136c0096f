//! Pause, resume, reset; media; other devices; slots; and removals that the guest does not answer at once.

use std::time::Duration;

use crate::support::linux::Linux;

const MOUNT: &str = "mount -t iso9660 -o ro /dev/sr0 /metadata";

#[test]
fn pause_holds_the_guest_and_reset_starts_it_anew() {
    let vm = Linux::boot::<&str>([]);
    vm.run("echo before > /tmp/mark");
    vm.ctl(["pause"]);
    vm.ctl(["pause"]);
    assert_eq!(vm.status()["state"], "paused");
    vm.try_ctl(["powerdown"]).fails(4, &["paused", "resume"]);
    let asked = vm.ask("cat /tmp/mark").unwrap();
    assert!(!asked.is_answered_within(Duration::from_millis(300)), "a paused guest answers nobody");
    vm.ctl(["resume"]);
    assert!(asked.answer(Duration::from_secs(60)).unwrap().starts_with("before"));
    assert_eq!(vm.status()["state"], "running");

    vm.ctl(["reset"]);
    vm.sees("vmrun-guest: ready");
    assert_eq!(vm.sh("cat /tmp/mark").0, 1, "memory is as new");
    assert_eq!(vm.status()["state"], "running");
    vm.quit();
}

#[test]
fn media_are_changed_and_ejected() {
    // two CDs made by vmrun itself: one of an earlier start, one of this
    let first = Linux::boot(["--data", "first"]);
    first.sees("metadata sr0");
    std::fs::copy(first.file("state/metadata.iso"), first.file("other, one.iso")).unwrap();
    let other = first.file("other, one.iso");
    let sandbox = first.quit();
    let vm = Linux::boot_in(sandbox, &crate::support::sandbox::linux_guest(), ["--data", "second"]);
    vm.sees("metadata sr0");
    assert_eq!(vm.run("cat /metadata/config"), "second");
    let drive = vm.ids("disk-list").remove(0);

    // the guest has it mounted, and so locked
    vm.try_ctl(["media-eject", &drive]).fails(4, &["locked", &drive, "hint:", "--force"]);
    assert!(vm.list("disk-list")[0]["file"].is_string());
    assert_eq!(vm.run("cat /metadata/config"), "second");
    vm.run("umount /metadata");
    vm.ctl(["media-change", &drive, other.to_str().unwrap()]);
    assert_eq!(vm.list("disk-list")[0]["file"], other.to_str().unwrap());
    // the drive answers the first request with "the medium may have changed", and this guest polls no drives
    vm.until("the new medium is mounted", |vm| vm.sh(MOUNT).0 == 0);
    assert_eq!(vm.run("cat /metadata/config"), "first");

    vm.ctl(["media-eject", &drive, "--force"]);
    assert!(vm.list("disk-list")[0]["file"].is_null());
    vm.run("umount /metadata");
    assert_ne!(vm.sh(MOUNT).0, 0, "there is no medium");
    vm.try_ctl(["media-eject", &drive]).fails(4, &["empty"]);
    vm.try_ctl(["media-change", &drive, "missing.iso"]).fails(1, &["missing.iso"]);
    vm.try_ctl(["disk-remove", &drive]).fails(4, &["CD-ROM", "media-eject"]);
    vm.ctl(["media-change", &drive, other.to_str().unwrap()]);
    vm.until("the medium is mounted again", |vm| vm.sh(MOUNT).0 == 0);
    assert_eq!(vm.run("cat /metadata/config"), "first");
    vm.quit();
}

#[test]
fn other_devices_come_and_go_and_slots_are_accounted() {
    let vm = Linux::boot(["--hotplug-slots", "2"]);
    let rng = vm.ctl(["device-add", "virtio-rng-pci,max-bytes=1024,period=1000"]);
    vm.sees("add pci");
    vm.until("the driver has it", |vm| {
        vm.run("cat /sys/class/misc/hw_random/rng_available").split_whitespace().count() == 2
    });
    vm.ctl(["qmp", r#"{"execute": "netdev_add", "arguments": {"type": "user", "id": "second"}}"#]);
    vm.ctl(["device-add", "virtio-net-pci,netdev=second,mac=02:00:00:00:00:07,romfile=,id=nic-b"]);
    vm.sees("add net eth1");
    assert_eq!(vm.run("cat /sys/class/net/eth1/address"), "02:00:00:00:00:07");
    let status = vm.status();
    assert_eq!((&status["slots_used"], &status["slots_total"]), (&2.into(), &2.into()));

    // full: nothing is made, and the hint is shown
    vm.try_ctl(["disk-add", "new.img,size=1M"])
        .fails(4, &["2 hot-plug slots", "--hotplug-slots", "bus=scsi"]);
    vm.try_ctl(["device-add", "virtio-rng-pci"]).fails(4, &["slots", "--hotplug-slots"]);
    vm.try_ctl(["usb-add", "usb-kbd"]).fails(4, &["slots"]);
    assert!(!vm.file("new.img").exists());
    assert_eq!(vm.status()["slots_used"], 2);

    vm.ctl(["device-remove", "nic-b"]);
    vm.sees("remove net eth1");
    vm.ctl(["device-remove", &rng]);
    assert_eq!(vm.run("cat /sys/class/misc/hw_random/rng_available").split_whitespace().count(), 1);
    vm.try_ctl(["device-remove", &rng]).fails(4, &[&rng]);

    // many disks fit into one slot
    for number in 0..3 {
        vm.ctl(["disk-add", &format!("s{number}.img,size=1M,bus=scsi,serial=N{number}")]);
        vm.sees_disk(&format!("N{number}"));
    }
    assert_eq!(vm.status()["slots_used"], 1);
    vm.quit();
}

#[test]
fn a_removal_that_the_guest_does_not_answer_stays_pending() {
    let vm = Linux::boot::<&str>([]);
    vm.ctl(["disk-add", "a.img,size=1M,id=a,serial=A"]);
    vm.sees_disk("A");
    vm.ctl(["disk-add", "b.img,size=1M,id=b,serial=B"]);
    vm.sees_disk("B");
    vm.ctl(["pause"]);
    vm.try_ctl(["disk-remove", "a"]).fails(5, &["'a'", "hint:", "resumed"]);
    assert_eq!(vm.list("disk-list")[0]["phase"], "removing");
    // asked again meanwhile: the same answer
    vm.try_ctl(["disk-remove", "a", "--timeout", "100ms"]).fails(5, &["'a'"]);
    vm.try_ctl(["disk-add", "a.img"]).fails(4, &["a.img", "in use"]);
    vm.ctl(["resume"]);
    vm.sees("remove block vda");
    vm.until("the list follows", |vm| vm.ids("disk-list") == ["b"]);
    assert_eq!(vm.status()["slots_used"], 1);

    // a reset completes it as well
    vm.ctl(["pause"]);
    vm.try_ctl(["disk-remove", "b"]).fails(5, &["'b'"]);
    vm.ctl(["reset"]);
    vm.ctl(["resume"]);
    vm.sees("vmrun-guest: ready");
    vm.until("the list follows", |vm| vm.ids("disk-list").is_empty());
    assert_eq!(vm.run("ls /sys/block | grep -c ^vd; true"), "0");

    // the slot and the image are free again
    vm.ctl(["disk-add", "b.img,serial=AGAIN"]);
    vm.sees_disk("AGAIN");
    // what is in use goes, too: Linux does not refuse
    vm.run("exec 9< /dev/vda; sleep 60 & echo ok");
    let id = vm.ids("disk-list").remove(0);
    vm.ctl(["disk-remove", &id]);
    assert_eq!(vm.status()["slots_used"], 0);
    vm.quit();
}
