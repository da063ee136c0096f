//! Plugging: what is booked, what QEMU holds, what is taken back.

use std::time::Duration;

use serde_json::json;

use crate::spec::DiskBus;
use crate::vm::{ChangeError, Done, ErrorKind};

use super::fake_qemu::{Fault, Guest};
use super::fake_vm::{FakeVm, device, disk, keyboard, remove};

#[tokio::test(start_paused = true)]
async fn a_disk_gets_a_slot_and_two_nodes() {
    let vm = FakeVm::start().await;
    let file = vm.file("data.img");
    let done = vm.change(disk(file.clone(), DiskBus::Virtio, Some("data"))).await.unwrap();
    let Done::Device(entry) = done else { panic!("{done:?}") };
    assert_eq!((entry.id.as_str(), entry.driver.as_str()), ("data", "virtio-blk-pci"));
    assert_eq!(entry.slot.as_deref(), Some("slot1"));
    assert_eq!(vm.inventory().await, (vec!["data Present".to_owned()], 1));
    // what QEMU has open is looked at before the guest gets it
    let looked = ["query-named-block-nodes", "x-debug-query-block-graph"];
    assert_eq!(vm.qemu.seen(), [&["blockdev-add"; 2], &looked, &["device_add"][..]].concat());
    assert!(file.exists());
}

#[tokio::test(start_paused = true)]
async fn the_first_usb_device_and_the_first_scsi_disk_bring_a_controller() {
    let vm = FakeVm::start().await;
    vm.change(keyboard(None)).await.unwrap();
    vm.change(keyboard(None)).await.unwrap();
    vm.change(disk(vm.file("a.img"), DiskBus::Scsi, None)).await.unwrap();
    vm.change(disk(vm.file("b.img"), DiskBus::Scsi, None)).await.unwrap();
    let (devices, slots) = vm.inventory().await;
    let present =
        ["disk0", "disk1", "usb0", "usb1", "vmrun-scsi", "vmrun-usb"].map(|id| format!("{id} Present"));
    assert_eq!(devices, present);
    assert_eq!(slots, 2);
    assert_eq!(vm.qemu.model().devices["usb1"].bus, "vmrun-usb.0");
    assert_eq!(vm.qemu.model().devices["disk1"].bus, "vmrun-scsi.0");
}

#[tokio::test(start_paused = true)]
async fn a_refused_plug_uses_no_id_up() {
    let vm = FakeVm::start().await;
    let id_of = |done: Result<Done, _>| match done {
        Ok(Done::Device(entry)) => entry.id.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(id_of(vm.change(keyboard(Some("usb2"))).await), "usb2");
    vm.qemu.fault("device_add", Fault::Refuse("no such luck"));
    vm.change(keyboard(None)).await.unwrap_err();
    assert_eq!(id_of(vm.change(keyboard(None)).await), "usb0");
    // what was given out is not given out again; what another has is left out
    vm.change(remove("usb0")).await.unwrap();
    assert_eq!(id_of(vm.change(keyboard(None)).await), "usb1");
    assert_eq!(id_of(vm.change(keyboard(None)).await), "usb3");
    // two at a time have two
    vm.qemu.fault("device_add", Fault::Refuse("no such luck"));
    let (refused, made) = tokio::join!(vm.change(keyboard(None)), vm.change(keyboard(None)));
    refused.unwrap_err();
    assert_eq!(id_of(made), "usb5");
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_any_step_is_undone_whole() {
    for (command, skipped) in [("blockdev-add", 0), ("blockdev-add", 1), ("device_add", 0)] {
        let vm = FakeVm::start().await;
        let file = vm.file("new.qcow2.img");
        for _ in 0..skipped {
            // the first of that name works: its fault is to answer as always
            vm.qemu.fault(command, Fault::Say("fine"));
        }
        if skipped == 1 {
            vm.qemu.model().nodes.insert("data.file".to_owned(), None);
        }
        vm.qemu.fault(command, Fault::Refuse("no such luck"));
        let error = vm.change(disk(file.clone(), DiskBus::Virtio, Some("data"))).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::RefusedByQemu { class: "GenericError".to_owned() });
        assert!(error.message.contains("no such luck"), "{error}");
        assert!(!file.exists(), "{command} {skipped}");
        assert_eq!(vm.inventory().await, (Vec::new(), 0), "{command} {skipped}");
        let model = vm.qemu.model();
        assert!(model.nodes.is_empty(), "{command} {skipped}: {:?}", model.nodes);
        assert_eq!(model.devices.len(), 1, "{command} {skipped}: the card from the start alone");
    }
}

#[tokio::test(start_paused = true)]
async fn an_existing_image_is_left_when_its_disk_fails() {
    let vm = FakeVm::start().await;
    let file = vm.file("precious.img");
    std::fs::write(&file, [1; 512]).unwrap();
    vm.qemu.fault("device_add", Fault::Refuse("no"));
    vm.change(disk(file.clone(), DiskBus::Virtio, None)).await.unwrap_err();
    assert_eq!(std::fs::read(&file).unwrap(), [1; 512]);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_fails_takes_its_device_with_it() {
    let vm = FakeVm::start().await;
    vm.qemu.fault("device_add", Fault::Refuse("no controller today"));
    let error = vm.change(keyboard(Some("k"))).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::RefusedByQemu { .. }), "{error:?}");
    assert_eq!(vm.inventory().await, (Vec::new(), 0));
    vm.change(keyboard(Some("k"))).await.unwrap();
    assert_eq!(vm.inventory().await.0, ["k Present", "vmrun-usb Present"]);
}

#[tokio::test(start_paused = true)]
async fn slots_run_out_and_come_back() {
    let vm = FakeVm::start().await;
    for id in ["a", "b", "c"] {
        vm.change(device("edu", id)).await.unwrap();
    }
    let file = vm.file("late.img");
    let error = vm.change(disk(file.clone(), DiskBus::Virtio, None)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoFreeSlot);
    assert!(error.hint.unwrap().contains("--hotplug-slots"));
    assert!(!file.exists());
    vm.change(remove("b")).await.unwrap();
    vm.change(device("edu", "d")).await.unwrap();
    assert_eq!(vm.qemu.model().devices["d"].bus, "slot2");
}

#[tokio::test(start_paused = true)]
async fn an_id_is_taken_while_its_device_is_only_on_its_way() {
    let vm = FakeVm::start().await;
    vm.qemu.freeze(true);
    let first = vm.begin(device("edu", "a"));
    while vm.inventory().await.0.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let error = vm.change(device("edu", "a")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::AlreadyThere { id: "a".to_owned() });
    // status is answered from the inventory while QEMU hangs
    assert_eq!(vm.inventory().await.0, ["a Adding"]);
    vm.qemu.freeze(false);
    first.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_image_is_one_disk() {
    let vm = FakeVm::start().await;
    let file = vm.file("data.img");
    vm.change(disk(file.clone(), DiskBus::Virtio, Some("one"))).await.unwrap();
    let error = vm.change(disk(file.clone(), DiskBus::Virtio, Some("two"))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::AlreadyThere { id: "one".to_owned() });
    assert!(file.exists());
    assert_eq!(vm.inventory().await, (vec!["one Present".to_owned()], 1));
}

/// Both see that it is not there yet; the loser must not delete the file that the other uses.
#[tokio::test(start_paused = true)]
async fn two_disks_that_want_to_make_the_same_file() {
    for _ in 0..20 {
        let vm = FakeVm::start().await;
        let file = vm.file("data.img");
        let both = [
            vm.begin(disk(file.clone(), DiskBus::Virtio, Some("one"))),
            vm.begin(disk(file.clone(), DiskBus::Virtio, Some("two"))),
        ];
        let mut made = 0;
        for add in both {
            made += usize::from(add.await.unwrap().is_ok());
        }
        assert_eq!(made, 1);
        assert!(file.exists());
        assert_eq!(vm.inventory().await.1, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_plugged_into_a_controller_that_is_leaving() {
    let vm = FakeVm::start().await;
    vm.change(keyboard(Some("k"))).await.unwrap();
    vm.change(remove("k")).await.unwrap();
    vm.qemu.model().guest = Guest::Ignores;
    assert_eq!(vm.change(remove("vmrun-usb")).await, Ok(Done::RemovalPending));
    let error = vm.change(keyboard(Some("k"))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotNow { state: "removing".to_owned() }, "{error}");
    vm.qemu.release("vmrun-usb");
    while vm.inventory().await.1 > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    vm.change(keyboard(Some("k"))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_status_comes_after_what_was_asked_for_before_it() {
    let vm = FakeVm::start().await;
    // cached now, and valid until the next change
    assert!(vm.inventory().await.0.is_empty());
    let change = vm.change(keyboard(Some("keys")));
    tokio::pin!(change);
    tokio::select! { biased;
        done = &mut change => panic!("{done:?}"),
        // it is on its way to the owner, who has not looked yet
        () = std::future::ready(()) => {}
    }
    let (devices, _) = vm.inventory().await;
    assert!(devices.contains(&"keys Adding".to_owned()), "{devices:?}");
    change.await.unwrap();
    let (devices, _) = vm.inventory().await;
    assert!(devices.contains(&"keys Present".to_owned()), "{devices:?}");
}

/// As everything that looks at QEMU finds it, or the VM would not be the one of its snapshots after a takeover.
#[tokio::test(start_paused = true)]
async fn a_device_has_the_slot_that_was_named_for_it() {
    let vm = FakeVm::start().await;
    let done = vm.change(device("virtio-rng-pci,bus=slot3", "dice")).await.unwrap();
    let Done::Device(entry) = done else { panic!("{done:?}") };
    assert_eq!(entry.slot.as_deref(), Some("slot3"));
    assert_eq!(vm.qemu.model().devices["dice"].bus, "slot3");
    assert_eq!(vm.inventory().await, (vec!["dice Present".to_owned()], 1));
    // a plug that is refused gives it back
    vm.change(remove("dice")).await.unwrap();
    vm.qemu.fault("device_add", Fault::Refuse("no such luck"));
    vm.change(device("virtio-rng-pci,bus=slot3", "dice")).await.unwrap_err();
    assert_eq!(vm.inventory().await, (vec![], 0));
}

#[tokio::test(start_paused = true)]
async fn only_what_nobody_would_type_is_reserved_and_called_so() {
    let vm = FakeVm::start().await;
    for id in ["vmrun-kbd", "vmrun-usb", "slot1", "vmrun-medium-1", "vmrun-x"] {
        let error = vm.change(keyboard(Some(id))).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::AlreadyThere { id: id.to_owned() });
        assert!(error.message.contains("is reserved") && error.hint.is_some(), "{error}");
    }
    for id in ["keys", "kbd0", "usb0", "tablet0", "agent0", "serial", "share0", "medium1", "pflash0"] {
        vm.change(keyboard(Some(id))).await.unwrap();
    }
    let error = vm.change(keyboard(Some("keys"))).await.unwrap_err();
    assert!(error.message.contains("is taken"), "{error}");
}

/// Debian's kernel for riscv64 has no PCI hot-plug: QEMU is content, and nothing arrives.
#[tokio::test(start_paused = true)]
async fn what_the_guest_does_not_take_is_told() {
    use crate::spec::{Arch, VmSpec};

    let vm = FakeVm::start_with(VmSpec { arch: Arch::Riscv64, ..super::fake_vm::spec() }).await;
    vm.qemu.model().takes_nothing = true;
    let taken = |done: Result<Done, ChangeError>| match done {
        Ok(Done::Device(entry)) => entry.taken,
        other => panic!("{other:?}"),
    };
    let before = tokio::time::Instant::now();
    // a keyboard is taken if its controller is
    assert_eq!(taken(vm.change(keyboard(Some("keys"))).await), Some(false));
    assert_eq!(before.elapsed().as_secs(), 3);
    let of = |status: &crate::vm::Status, id: &str| {
        status.devices.iter().find(|entry| entry.id.as_str() == id).and_then(|entry| entry.taken)
    };
    assert_eq!(of(&vm.status().await, "keys"), Some(false));
    // it has been taken since, after a reset for example
    vm.qemu.model().takes_nothing = false;
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(of(&vm.status().await, "keys"), Some(true));
    let before = tokio::time::Instant::now();
    assert_eq!(taken(vm.change(disk(vm.file("b.img"), DiskBus::Virtio, Some("b"))).await), Some(true));
    assert!(before.elapsed() < Duration::from_secs(1));

    // where hot-plug always works no client waits for the result, and it is reported later
    let vm = FakeVm::start().await;
    vm.qemu.model().takes_nothing = true;
    let before = tokio::time::Instant::now();
    assert_eq!(taken(vm.change(keyboard(Some("keys"))).await), None);
    assert!(before.elapsed() < Duration::from_millis(10));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(of(&vm.status().await, "keys"), Some(false));
}

/// How often QEMU was asked what the guest has taken.
fn looks(vm: &FakeVm) -> usize {
    vm.qemu.seen().iter().filter(|name| *name == "query-pci").count()
}

#[tokio::test(start_paused = true)]
async fn a_device_that_nobody_takes_is_looked_at_for_a_minute_and_then_after_events() {
    let hours = Duration::from_secs(3 * 3600);
    let vm = FakeVm::start().await;
    vm.qemu.model().takes_nothing = true;
    vm.change(keyboard(Some("keys"))).await.unwrap();
    tokio::time::sleep(Duration::from_secs(70)).await;
    let before = looks(&vm);
    assert!((5..30).contains(&before), "{before}");
    tokio::time::sleep(hours).await;
    assert_eq!(looks(&vm), before, "an idle VM is left alone");

    let resume = ("RESUME", json!({}));
    let reset = ("RESET", json!({ "guest": true, "reason": "guest-reset" }));
    let agent = ("VSERPORT_CHANGE", json!({ "id": "vmrun-agent", "open": true }));
    let wakeup = ("WAKEUP", json!({}));
    for (name, data) in [resume, reset, agent, wakeup] {
        let before = looks(&vm);
        vm.qemu.event(name, data);
        tokio::time::sleep(Duration::from_secs(70)).await;
        let after = looks(&vm);
        assert!((5..30).contains(&(after - before)), "{name}: {}", after - before);
        tokio::time::sleep(hours).await;
        assert_eq!(looks(&vm), after, "{name}");
    }

    // a hundred events at once are followed by as many looks as one
    let before = looks(&vm);
    for _ in 0..100 {
        vm.qemu.event("RESUME", json!({}));
    }
    tokio::time::sleep(hours).await;
    assert!((5..30).contains(&(looks(&vm) - before)), "{}", looks(&vm) - before);

    // a status query causes one poll, and the next status has its result: a driver may have been loaded by hand
    let taken = async || {
        let status = vm.status().await;
        status.devices.iter().find(|entry| entry.id.as_str() == "keys").and_then(|entry| entry.taken)
    };
    vm.qemu.model().takes_nothing = false;
    let before = looks(&vm);
    assert_eq!(taken().await, Some(false));
    assert_eq!(taken().await, Some(false));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(taken().await, Some(true));
    vm.qemu.event("RESUME", json!({}));
    tokio::time::sleep(hours).await;
    assert_eq!(taken().await, Some(true));
    assert!(looks(&vm) <= before + 2, "its controller is looked at once more, and that is all");
}
