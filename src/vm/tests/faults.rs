//! QEMU goes away, or stands still, in the middle of every change.

use std::time::Duration;

use crate::spec::DiskBus;
use crate::vm::{Change, Done, ErrorKind, Phase};

use super::fake_qemu::Fault;
use super::fake_vm::{FakeVm, card, device, disk, forward, keyboard, link, remove, throttle};

/// Each change with the commands of it that QEMU can die in.
fn changes(vm: &FakeVm) -> Vec<(Change, &'static [&'static str])> {
    vec![
        (disk(vm.file("a.img"), DiskBus::Virtio, None), &["blockdev-add", "device_add"]),
        (disk(vm.file("b.img"), DiskBus::Scsi, None), &["blockdev-add", "device_add"]),
        (keyboard(None), &["device_add"]),
        (card("lan"), &["netdev_add", "device_add"]),
        (link(Some("nic0"), false), &["set_link"]),
        (throttle("old", 5), &["query-block", "block_set_io_throttle"]),
        (device("edu", "e"), &["qom-list-types", "device_add"]),
        (device("edu,serial=1", "e"), &["device-list-properties"]),
        (remove("old"), &["device_del", "blockdev-del"]),
        (forward(0, 80), &["human-monitor-command"]),
        (Change::Pause, &["stop"]),
        (Change::Reset, &["system_reset"]),
        (Change::Powerdown, &["system_powerdown"]),
        (Change::Hmp("info status".to_owned()), &["human-monitor-command"]),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_change_is_answered_when_qemu_dies_in_it() {
    let count = {
        let vm = FakeVm::start().await;
        changes(&vm).len()
    };
    for number in 0..count {
        for step in 0.. {
            for fault in [Fault::HangUp, Fault::HangUpAfter] {
                let vm = FakeVm::start().await;
                vm.change(disk(vm.file("old.img"), DiskBus::Virtio, Some("old"))).await.unwrap();
                let (change, steps) = changes(&vm).swap_remove(number);
                let Some(command) = steps.get(step).copied() else { break };
                vm.qemu.fault(command, fault);
                let what = format!("{change:?} at {command}");
                let answer = vm.change(change).await;
                if command == "blockdev-del" {
                    // it had left the machine by then
                    assert_eq!(answer, Ok(Done::Removed), "{what}");
                } else {
                    let error = answer.unwrap_err();
                    assert_eq!(error.kind, ErrorKind::NotRunning, "{what}: {error}");
                }
                assert!(!vm.file("a.img").exists() && !vm.file("b.img").exists(), "{what}");
                // an existing file must not be deleted
                assert!(vm.file("old.img").exists(), "{what}");
                let handle = vm.handle.clone();
                vm.exits(1).await;
                let error = handle.change(Change::Pause).await.unwrap_err();
                assert_eq!(error.kind, ErrorKind::NotRunning, "{what}");
            }
            let vm = FakeVm::start().await;
            if changes(&vm)[number].1.len() <= step {
                break;
            }
        }
    }
}

/// The process ends while its monitor is still held open, e.g. by a child of it.
#[tokio::test(start_paused = true)]
async fn those_who_wait_are_answered_when_the_process_ends() {
    let mut vm = FakeVm::start().await;
    vm.qemu.freeze(true);
    let file = vm.file("new.img");
    let waiting = vm.begin(disk(file.clone(), DiskBus::Virtio, None));
    while vm.inventory().await.1 == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    vm.process.exit(1);
    assert_eq!(waiting.await.unwrap().unwrap_err().kind, ErrorKind::NotRunning);
    vm.ended().await;
}

/// SIGSTOP of QEMU: "QEMU does not answer"; what was sent is carried out after SIGCONT, and the inventory follows.
#[tokio::test(start_paused = true)]
async fn a_qemu_that_stands_still_loses_nothing() {
    let vm = FakeVm::start().await;
    vm.change(disk(vm.file("old.img"), DiskBus::Virtio, Some("old"))).await.unwrap();
    vm.qemu.freeze(true);
    let file = vm.file("new.img");
    let adding = vm.begin(disk(file.clone(), DiskBus::Virtio, Some("new")));
    let forwarding = vm.begin(forward(0, 80));
    let plugging = vm.begin(keyboard(Some("k")));
    for waiting in [adding, forwarding, plugging] {
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.kind, ErrorKind::TimedOut, "{error}");
    }
    assert!(vm.status().await.devices.iter().any(|entry| entry.phase == Phase::Adding));
    vm.qemu.freeze(false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = vm.status().await;
    let devices = status.devices.iter().filter(|entry| entry.id.as_str() != "nic0");
    let present: Vec<_> = devices.map(|e| (e.id.as_str(), e.phase)).collect();
    assert_eq!(present, ["k", "new", "old", "vmrun-usb"].map(|id| (id, Phase::Present)));
    // and the card from the start
    assert_eq!(vm.qemu.model().devices.len(), 5);
    assert_eq!(status.forwards.len(), vm.qemu.model().forwards.len());
    assert!(file.exists());
    assert_eq!(vm.change(remove("new")).await, Ok(Done::Removed));
    assert_eq!(vm.qemu.model().nodes.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_removal_from_a_qemu_that_stands_still_completes_later() {
    let vm = FakeVm::start().await;
    vm.change(disk(vm.file("old.img"), DiskBus::Virtio, Some("old"))).await.unwrap();
    vm.qemu.freeze(true);
    let first = vm.change(remove("old")).await;
    assert_eq!(first, Ok(Done::RemovalPending));
    vm.qemu.freeze(false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(vm.inventory().await, (Vec::new(), 0));
    assert!(vm.qemu.model().nodes.is_empty());
}
