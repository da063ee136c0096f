//! Removals: `device_del` is only the request, DEVICE_DELETED is the end.

use std::time::Duration;

use serde_json::json;

use crate::spec::DiskBus;
use crate::vm::{Change, DeviceKind, Done, ErrorKind};

use super::fake_qemu::Guest;
use super::fake_vm::{FakeVm, device, disk, keyboard, remove};

async fn with_disk() -> FakeVm {
    let vm = FakeVm::start().await;
    vm.change(disk(vm.file("data.img"), DiskBus::Virtio, Some("data"))).await.unwrap();
    vm
}

fn take(kind: DeviceKind, id: &str, seconds: u64) -> Change {
    Change::Remove { kind, id: id.to_owned(), wait: Duration::from_secs(seconds) }
}

async fn empty(vm: &FakeVm) {
    while vm.inventory().await != (Vec::new(), 0) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(vm.qemu.model().nodes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_disk_goes_with_its_nodes_and_its_slot() {
    let vm = with_disk().await;
    assert_eq!(vm.change(remove("data")).await, Ok(Done::Removed));
    empty(&vm).await;
    assert!(vm.file("data.img").exists());
    assert!(vm.qemu.model().refused.is_empty(), "{:?}", vm.qemu.model().refused);
}

#[tokio::test(start_paused = true)]
async fn the_event_of_the_child_is_not_the_devices_own() {
    let vm = with_disk().await;
    vm.qemu.model().guest = Guest::Ignores;
    let removal = vm.begin(remove("data"));
    vm.sees("device_del").await;
    vm.qemu.event("DEVICE_DELETED", json!({ "path": "/machine/peripheral/data/virtio-backend" }));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!removal.is_finished());
    assert_eq!(vm.inventory().await.0, ["data Removing"]);
    vm.qemu.release("data");
    assert_eq!(removal.await.unwrap(), Ok(Done::Removed));
    empty(&vm).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_guest_leaves_the_disk_where_it_is() {
    let vm = with_disk().await;
    vm.qemu.model().guest = Guest::Refuses;
    let error = vm.change(remove("data")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::RefusedByGuest { id: "data".to_owned() });
    assert_eq!(vm.inventory().await, (vec!["data Present".to_owned()], 1));
    vm.qemu.model().guest = Guest::Obeys;
    assert_eq!(vm.change(remove("data")).await, Ok(Done::Removed));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_acpi_is_one_and_nothing_else_is() {
    let ost = |source: u64, status: u64| json!({ "info": { "device": "data", "slot": "0", "slot-type": "DIMM", "source": source, "status": status } });
    for status in [0x80, 0x81, 0x82, 0x83, 1] {
        let vm = with_disk().await;
        vm.qemu.model().guest = Guest::Ignores;
        let removal = vm.begin(take(DeviceKind::Disk, "data", 600));
        vm.sees("device_del").await;
        // success, progress, and what is about the plugging
        for (source, status) in [(3, 0), (3, 0x84), (1, 0x80), (0x103, 0x81)] {
            vm.qemu.event("ACPI_DEVICE_OST", ost(source, status));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!removal.is_finished(), "{status}");
        vm.qemu.event("ACPI_DEVICE_OST", ost(3, status));
        let error = removal.await.unwrap().unwrap_err();
        assert_eq!(error.kind, ErrorKind::RefusedByGuest { id: "data".to_owned() });
        assert_eq!(vm.inventory().await.0, ["data Present"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_pending_completes_later() {
    let vm = with_disk().await;
    vm.qemu.model().guest = Guest::Ignores;
    let before = tokio::time::Instant::now();
    assert_eq!(vm.change(take(DeviceKind::Disk, "data", 7)).await, Ok(Done::RemovalPending));
    assert_eq!(before.elapsed().as_secs(), 7);
    assert_eq!(vm.inventory().await, (vec!["data Removing".to_owned()], 1));
    // asked again, QEMU says "already in the process of unplug": that is what is wanted
    let again = vm.begin(take(DeviceKind::Disk, "data", 7));
    tokio::time::sleep(Duration::from_secs(1)).await;
    vm.qemu.release("data");
    assert_eq!(again.await.unwrap(), Ok(Done::Removed));
    empty(&vm).await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_completes_what_is_pending() {
    let vm = with_disk().await;
    vm.qemu.model().guest = Guest::Ignores;
    assert_eq!(vm.change(take(DeviceKind::Disk, "data", 1)).await, Ok(Done::RemovalPending));
    vm.change(Change::Reset).await.unwrap();
    empty(&vm).await;
}

#[tokio::test(start_paused = true)]
async fn several_who_wait_all_hear_of_it() {
    let vm = with_disk().await;
    vm.qemu.model().guest = Guest::Ignores;
    let (short, long) =
        (vm.begin(take(DeviceKind::Disk, "data", 2)), vm.begin(take(DeviceKind::Any, "data", 60)));
    assert_eq!(short.await.unwrap(), Ok(Done::RemovalPending));
    vm.qemu.release("data");
    assert_eq!(long.await.unwrap(), Ok(Done::Removed));
    assert_eq!(vm.qemu.seen().iter().filter(|name| *name == "device_del").count(), 1);
}

/// It has left the machine and its image is being closed: one more request for it is only late.
#[tokio::test(start_paused = true)]
async fn a_request_while_the_image_is_closed_is_answered_with_its_end() {
    let vm = with_disk().await;
    vm.qemu.model().guest = Guest::Ignores;
    assert_eq!(vm.change(take(DeviceKind::Disk, "data", 1)).await, Ok(Done::RemovalPending));
    vm.qemu.release("data");
    vm.qemu.freeze(true);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let late = vm.begin(remove("data"));
    tokio::time::sleep(Duration::from_millis(10)).await;
    vm.qemu.freeze(false);
    assert_eq!(late.await.unwrap(), Ok(Done::Removed));
    empty(&vm).await;
}

#[tokio::test(start_paused = true)]
async fn the_kind_must_fit() {
    let vm = with_disk().await;
    vm.change(keyboard(Some("k"))).await.unwrap();
    vm.change(device("edu", "e")).await.unwrap();
    for (kind, id) in
        [(DeviceKind::Usb, "data"), (DeviceKind::Disk, "k"), (DeviceKind::Disk, "e"), (DeviceKind::Any, "x")]
    {
        let error = vm.change(take(kind, id, 1)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSuchThing { id: id.to_owned() });
    }
    let error = vm.change(remove("vmrun-usb")).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NotNow { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_paused_guest_is_not_waited_for() {
    let vm = with_disk().await;
    vm.change(Change::Pause).await.unwrap();
    vm.qemu.model().guest = Guest::Ignores;
    let before = tokio::time::Instant::now();
    assert_eq!(vm.change(take(DeviceKind::Disk, "data", 60)).await, Ok(Done::RemovalPending));
    assert!(before.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn the_longest_time_that_can_be_asked_for_is_no_trouble() {
    let vm = with_disk().await;
    vm.qemu.model().guest = Guest::Ignores;
    let wait = Duration::from_millis(i64::MAX as u64);
    let removal = vm.begin(Change::Remove { kind: DeviceKind::Any, id: "data".to_owned(), wait });
    vm.sees("device_del").await;
    assert_eq!(vm.inventory().await.0, ["data Removing"]);
    vm.qemu.release("data");
    assert_eq!(removal.await.unwrap(), Ok(Done::Removed));
}

/// Native PCIe hot-plug: for five seconds QEMU refuses, in words that are its own matter.
#[tokio::test(start_paused = true)]
async fn a_slot_that_is_busy_is_asked_again_until_the_deadline() {
    let vm = with_disk().await;
    vm.qemu.model().busy_slots = 12;
    let before = tokio::time::Instant::now();
    assert_eq!(vm.change(take(DeviceKind::Disk, "data", 7)).await, Ok(Done::Removed));
    assert_eq!(before.elapsed().as_secs(), 3);
    empty(&vm).await;

    // what is still refused then stands, and goes without another request
    let vm = with_disk().await;
    vm.qemu.model().busy_slots = 12;
    let before = tokio::time::Instant::now();
    assert_eq!(vm.change(take(DeviceKind::Disk, "data", 2)).await, Ok(Done::RemovalPending));
    assert_eq!(before.elapsed().as_secs(), 2);
    empty(&vm).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_built_in_is_refused_at_once() {
    let vm = FakeVm::start().await;
    let before = tokio::time::Instant::now();
    let error = vm.change(take(DeviceKind::Any, "nic0", 7)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotSupported);
    assert!(error.message.contains("built into the machine"), "{error}");
    assert_eq!(before.elapsed().as_secs(), 0);
    let status = vm.status().await;
    let phase = status.devices.iter().find(|entry| entry.id.as_str() == "nic0").map(|entry| entry.phase);
    assert_eq!(phase, Some(crate::vm::Phase::Present));
}
