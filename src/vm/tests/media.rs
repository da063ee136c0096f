//! Images that are opened while the VM runs: in turn, and only if QEMU has opened the given files.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::spec::{DiskBus, UsbSelector, VmSpec};
use crate::vm::{Change, Done, ErrorKind, Kind};

use super::fake_vm::{FakeVm, disk, spec};

const CD: &str = "metadata";

async fn with_cd() -> FakeVm {
    let vm = FakeVm::start_with(VmSpec { metadata: Some("/i/m.iso".into()), ..spec() }).await;
    for name in ["a.iso", "b.iso", "c.iso"] {
        std::fs::write(vm.file(name), name).unwrap();
    }
    vm
}

fn change(file: PathBuf) -> Change {
    Change::ChangeMedia { id: CD.to_owned(), file, format: None, allow_backing: Vec::new() }
}

fn eject() -> Change {
    Change::EjectMedia { id: CD.to_owned(), force: true }
}

/// The nodes that QEMU has, and the one that is in the drive by the inventory.
async fn nodes(vm: &FakeVm) -> (BTreeSet<String>, Option<String>) {
    let status = vm.status().await;
    let entry = status.devices.iter().find(|entry| entry.id.as_str() == CD).unwrap();
    let Kind::Disk(facts) = &entry.kind else { panic!("{entry:?}") };
    (vm.qemu.model().nodes.keys().cloned().collect(), facts.node.clone())
}

#[tokio::test(start_paused = true)]
async fn changes_of_one_drive_at_once_leave_one_medium() {
    let vm = with_cd().await;
    let changes = ["a.iso", "b.iso", "c.iso"].map(|name| vm.begin(change(vm.file(name))));
    for change in changes {
        change.await.unwrap().unwrap();
    }
    let (there, booked) = nodes(&vm).await;
    let node = booked.unwrap();
    assert_eq!(there, BTreeSet::from([format!("{node}.file"), node.clone()]));
    assert_eq!(vm.qemu.model().devices[CD].drive.as_deref(), Some(node.as_str()));
    // a change that fails lets the next begin, and so does an empty drive
    let (failed, taken, again, filled) = tokio::join!(
        vm.change(change(vm.file("none.iso"))),
        vm.change(eject()),
        vm.change(eject()),
        vm.change(change(vm.file("a.iso")))
    );
    failed.unwrap_err();
    taken.unwrap();
    assert_eq!(again.unwrap_err().kind, ErrorKind::NotNow { state: "empty".to_owned() });
    filled.unwrap();
    assert_eq!(nodes(&vm).await.0.len(), 2);
    assert!(vm.qemu.model().refused.is_empty(), "{:?}", vm.qemu.model().refused);
}

#[tokio::test(start_paused = true)]
async fn what_was_swapped_before_qemu_opened_it_is_not_used() {
    let vm = with_cd().await;
    let before = nodes(&vm).await;
    vm.qemu.model().swapped = Some(vm.file("b.iso"));
    let stick = UsbSelector::File { path: vm.file("a.iso"), format: None };
    for change in [
        disk(vm.file("a.iso"), DiskBus::Virtio, Some("data")),
        Change::AddUsb { selector: stick, id: None },
        change(vm.file("a.iso")),
    ] {
        let error = vm.change(change).await.unwrap_err();
        assert!(error.message.contains("another file under its name"), "{error}");
    }
    assert_eq!(nodes(&vm).await, before);
    assert!(!vm.qemu.seen().iter().any(|seen| seen == "blockdev-open-tray"));
    assert!(vm.qemu.model().devices.keys().all(|id| id != "data" && !id.starts_with("usb0")));
    vm.qemu.model().swapped = None;
    let done = vm.change(disk(vm.file("a.iso"), DiskBus::Virtio, Some("data"))).await;
    assert!(matches!(done, Ok(Done::Device(_))), "{done:?}");
}
