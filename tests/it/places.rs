//! What vmrun starts a VM with sits where it always sits, whatever else there is.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use serde_json::Value;

use crate::support::boot_sector::Guest;
use crate::support::linux::Linux;
use crate::support::processes::eventually;
use crate::support::sandbox::Sandbox;

/// Where QEMU has the PCI devices with an id: bus, place, function.
type Places = BTreeMap<String, [u64; 3]>;

fn note(device: &Value, bus: u64, places: &mut Places) {
    let number = |name: &str| device[name].as_u64().unwrap();
    if let Some(id) = device["qdev_id"].as_str().filter(|id| !id.is_empty()) {
        places.insert(id.to_owned(), [bus, number("slot"), number("function")]);
    }
    for behind in device["pci_bridge"]["devices"].as_array().into_iter().flatten() {
        // the firmware assigns the bus number; devices behind a bridge are distinguished from others
        note(behind, 1, places);
    }
}

/// What is behind a bridge is found once the firmware has numbered its bus: `awaited` is to be there.
fn places(sandbox: &Sandbox, arguments: &[&str], awaited: &str) -> Places {
    sandbox.detached(arguments.iter().map(OsStr::new));
    let mut places = Places::new();
    eventually("the device is there", || {
        let answer: Value = serde_json::from_str(&sandbox.ctl(["qmp", "query-pci"]).ok().stdout).unwrap();
        for bus in answer.as_array().unwrap() {
            bus["devices"].as_array().unwrap().iter().for_each(|device| note(device, 0, &mut places));
        }
        places.contains_key(awaited)
    });
    sandbox.ctl(["shutdown", "--force"]);
    places
}

fn stays(machine: &str, card: u64) {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let image = image.to_str().unwrap();
    let machine = ["--machine", machine];
    let more = ["--disk", "b.img,size=1M,id=b", "--disk", "n.img,size=1M,bus=nvme,id=n"];
    let card_behind = ["--", "-netdev", "user,id=x", "-device", "virtio-net-pci,netdev=x,id=theirs"];
    let disk_behind = ["--", "-drive", "if=virtio,format=raw,file.driver=null-co,file.size=1M"];
    let with_all = ["--usb", "--display", "headless", "--disk", "s.img,size=1M,bus=scsi,id=s"];
    let first = places(&sandbox, &[&machine[..], &more, &[image]].concat(), "n");
    assert_eq!(first["nic0"], [0, card, 0], "{first:?}");
    assert_eq!([first["disk0"], first["b"], first["n"]], [1, 2, 3].map(|at| [0, card + at, 0]));
    let mut all = first.clone();
    for flags in [
        &card_behind[..],
        &disk_behind,
        &["--", "-vga", "std"],
        &["--hotplug-slots", "0"],
        &["--hotplug-slots", "30"],
        &[
            "--networking",
            "none",
            "--",
            "-device",
            "virtio-blk-pci,drive=z,id=theirs",
            "-blockdev",
            "null-co,node-name=z",
        ],
        &["--nic", "user,id=m1", "--nic", "user,model=e1000,id=m2"],
        &with_all,
        &[&with_all[..], &card_behind].concat(),
        &[&with_all[..], &["--device", "edu", "--hotplug-slots", "64"]].concat(),
    ] {
        let found = places(&sandbox, &[&machine[..], &more, &[image], flags].concat(), "n");
        for (id, place) in found.iter().filter(|(id, _)| *id != "theirs" && !id.starts_with("dev")) {
            // what the guest does not count makes room for what comes with the machine, and closes a gap
            let fills = id == "vmrun-rng" || id == "vmrun-serial";
            let before = all.entry(id.clone()).or_insert(*place);
            assert!(fills || before == place, "{id}: {before:?}, with {flags:?} {place:?}");
        }
        let theirs = found.get("theirs").map_or(u64::MAX, |place| place[1]);
        assert!(theirs > card + 3, "{flags:?}: {found:?}");
    }
}

#[test]
fn on_q35_a_device_has_the_same_place_with_every_flag() {
    stays("q35", 2);
}

#[test]
fn on_pc_a_device_has_the_same_place_with_every_flag() {
    stays("pc", 3);
}

#[test]
fn more_disks_than_the_root_bus_has_room_for_are_behind_a_bridge() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let specs: Vec<String> = (1..=30).map(|number| format!("d{number}.img,size=1M,id=d{number}")).collect();
    for machine in ["q35", "pc"] {
        let disks = specs.iter().flat_map(|spec| ["--disk", spec.as_str()]);
        let arguments: Vec<&str> =
            ["--machine", machine, image.to_str().unwrap()].into_iter().chain(disks).collect();
        let found = places(&sandbox, &arguments, "d30");
        let on_root = (1..=30).filter(|number| found[&format!("d{number}")][0] == 0).count();
        assert_eq!((on_root, found["d30"]), if machine == "q35" { (9, [1, 21, 0]) } else { (8, [1, 22, 0]) });
    }
}

/// Linux counts from the lowest place up.
#[test]
fn eth0_and_vda_do_not_change_hands() {
    let vm = Linux::boot([
        "--disk",
        "ours.img,size=8M,serial=OURS,id=ours",
        "--",
        "-netdev",
        "user,id=x",
        "-device",
        "virtio-net-pci,netdev=x,id=theirs,mac=52:54:00:00:00:99",
        "-drive",
        "if=none,id=y,format=raw,file.driver=null-co,file.size=1M",
        "-device",
        "virtio-blk-pci,drive=y,serial=THEIRS,id=yours",
    ]);
    assert_eq!(vm.run("cat /sys/block/vda/serial"), "OURS");
    assert_eq!(vm.run("cat /sys/block/vdb/serial"), "THEIRS");
    assert_eq!(vm.run("cat /sys/class/net/eth0/address"), vm.status()["mac"].as_str().unwrap());
    assert_eq!(vm.run("cat /sys/class/net/eth1/address"), "52:54:00:00:00:99");
    assert!(vm.run("readlink -f /sys/class/net/eth0/device").contains("0000:00:02.0"));

    // and the others are in the inventory
    assert_eq!(vm.ids("disk-list"), ["ours", "yours"]);
    assert_eq!(vm.ids("nic-list"), ["nic0", "theirs"]);
    vm.ctl(["link", "down", "theirs"]);
    vm.ctl(["link", "up", "theirs"]);
}
