//! Every command of every change is refused once, stands still once, and is QEMU's last once: the inventory still equals what
//! QEMU holds, and what the change had made is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::qemu::snapshot::{self as qemu, Snapshot};
use crate::spec::{DiskBus, UsbSelector, VmSpec};
use crate::vm::change::ForwardPattern;
use crate::vm::change::SnapshotChange;
use crate::vm::{Change, ChangeError, Done, ErrorKind};

use super::fake_qemu::Fault;
use super::fake_vm::{
    FakeVm, card, device, disk, forward, keyboard, link, qcow2, remove, snapshot, snapshot_save, spec,
    throttle,
};
use super::sequences::compare;

type Answer = Result<Done, ChangeError>;

/// Longer than the deadline of a client.
const STANDSTILL: Duration = Duration::from_secs(120);
/// What a change makes goes by one of these names.
const MADE: [&str; 4] = ["new.img", "new-scsi.img", "new-usb.img", "new-nvme.img"];

pub(super) fn changes(vm: &FakeVm) -> Vec<Change> {
    let stick = UsbSelector::File { path: vm.file("stick.img"), format: None };
    let forwarded = ForwardPattern { host: 40_001, guest: None, address: None, protocol: None };
    vec![
        disk(vm.file(MADE[0]), DiskBus::Virtio, None),
        disk(vm.file(MADE[1]), DiskBus::Scsi, None),
        disk(vm.file(MADE[2]), DiskBus::Usb, None),
        disk(vm.file(MADE[3]), DiskBus::Nvme, None),
        keyboard(None),
        Change::AddUsb { selector: stick, id: None },
        card("lan"),
        link(Some("nic0"), false),
        throttle("old", 5),
        device("edu", "e"),
        device("edu,serial=1", "e"),
        Change::ResizeDisk { id: "old".to_owned(), size: "2M".parse().unwrap() },
        remove("old"),
        remove("keys"),
        remove("card"),
        forward(0, 80),
        Change::RemoveForward(forwarded),
        Change::ChangeMedia {
            id: "metadata".to_owned(),
            file: vm.file("stick.img"),
            format: None,
            allow_backing: Vec::new(),
        },
        Change::EjectMedia { id: "metadata".to_owned(), force: false },
        snapshot_save("new", false),
        snapshot_save("there", true),
        snapshot(SnapshotChange::Load, "there"),
        snapshot(SnapshotChange::Delete, "there"),
        Change::Pause,
        Change::Resume,
        Change::Reset,
        Change::Powerdown,
    ]
}

/// Changes without a fault at every step, and why.
const APART: [(&str, &str); 4] = [
    ("Freeze", "only a real QEMU has memory to freeze: `forks` kills at random moments"),
    ("Save", "the VM is gone then: `saves` has its faults"),
    ("Qmp", "what it changes is the client's business"),
    ("Hmp", "what it changes is the client's business"),
];

/// The variants of [`Change`], as its source has them.
fn variants() -> BTreeSet<&'static str> {
    let source = include_str!("../change.rs");
    let body =
        source.split("pub enum Change {\n").nth(1).and_then(|rest| rest.split("\n}\n").next()).unwrap();
    let names = body.lines().filter_map(|line| line.strip_prefix("    "));
    names.filter(|line| line.starts_with(char::is_uppercase)).map(name).collect()
}

fn name(text: &str) -> &str {
    text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn every_change_is_tried() {
    let vm = vm().await;
    let printed: Vec<String> = changes(&vm).iter().map(|change| format!("{change:?}")).collect();
    let tried = printed.iter().map(|printed| name(printed)).chain(APART.map(|(name, _)| name));
    assert_eq!(tried.collect::<BTreeSet<_>>(), variants());
}

/// A VM with something of everything.
pub(super) async fn vm() -> FakeVm {
    let vm =
        FakeVm::start_with(VmSpec { metadata: Some("/metadata.iso".into()), hotplug_slots: 6, ..spec() })
            .await;
    std::fs::write(vm.file("stick.img"), [0; 512]).unwrap();
    std::fs::write(vm.file("old.qcow2"), qcow2()).unwrap();
    vm.change(disk(vm.file("old.qcow2"), DiskBus::Virtio, Some("old"))).await.unwrap();
    vm.change(keyboard(Some("keys"))).await.unwrap();
    vm.change(card("card")).await.unwrap();
    vm.change(forward(0, 22)).await.unwrap();
    vm.change(snapshot_save("there", false)).await.unwrap();
    vm
}

/// How many commands a change takes when nothing goes wrong.
pub(super) async fn commands_of(number: usize) -> usize {
    let vm = vm().await;
    let before = vm.qemu.seen().len();
    let change = changes(&vm).swap_remove(number);
    vm.change(change.clone()).await.unwrap_or_else(|error| panic!("{change:?}: {error}"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    compare(&vm.status().await, &vm.qemu.model());
    vm.qemu.seen().len() - before
}

pub(super) async fn count() -> usize {
    changes(&vm().await).len()
}

pub(super) fn made_files(vm: &FakeVm) -> Vec<&'static str> {
    MADE.into_iter().filter(|name| vm.file(name).exists()).collect()
}

/// The snapshots, as `snapshot-list` tells of them; of a QEMU that has ended those in its images.
fn kept(vm: &FakeVm) -> Vec<Snapshot> {
    qemu::list(&qemu::writable(&vm.qemu.model().blocks()))
}

/// A change that failed has made no file, and no snapshot of a name that was not there.
fn made_nothing(vm: &FakeVm, before: &[Snapshot], what: &str) {
    assert!(made_files(vm).is_empty(), "{what}");
    let after = kept(vm);
    let was_there = |snapshot: &Snapshot| before.iter().any(|other| other.name == snapshot.name);
    assert!(after.iter().all(was_there), "{after:?} after {what}");
}

/// The snapshot that was there is there, complete, or the one that replaces it; after an answer that all is well it is the new one.
fn lost_nothing(vm: &FakeVm, change: &Change, answer: &Answer, before: &[Snapshot], what: &str) {
    let replaced = match change {
        Change::Snapshot(SnapshotChange::Save { overwrite, .. }) => *overwrite,
        Change::Snapshot(SnapshotChange::Load(_)) => false,
        _ => return,
    };
    let after = kept(vm);
    for old in before {
        let there: Vec<_> = after.iter().filter(|snapshot| snapshot.name == old.name).collect();
        assert!(matches!(there[..], [one] if one.state_bytes > 0), "{after:?} after {what}");
        if answer.is_ok() || !replaced {
            assert_eq!(there[0].id != old.id, replaced, "{after:?} after {what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_at_any_step() {
    let mut injected = 0;
    for number in 0..count().await {
        for step in 0..commands_of(number).await {
            let vm = vm().await;
            let (before, snapshots) = (vm.qemu.seen().len(), kept(&vm));
            vm.qemu.model().later = Some((step, Fault::Refuse("planned")));
            let change = changes(&vm).swap_remove(number);
            let answer = vm.change(change.clone()).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            let what = format!("{change:?} at step {step} of {:?}: {answer:?}", &vm.qemu.seen()[before..]);
            println!("{what}");
            injected += 1;
            // a QEMU that does not delete an unused back-end keeps it: the device is gone, and that is reported
            let refused = vm.qemu.seen().get(before + step).cloned().unwrap_or_default();
            if ["blockdev-del", "netdev_del", "job-dismiss"].contains(&refused.as_str()) {
                assert!(answer.is_ok() || !matches!(change, Change::Remove { .. }), "{what}");
                continue;
            }
            compare(&vm.status().await, &vm.qemu.model());
            lost_nothing(&vm, &change, &answer, &snapshots, &what);
            assert!(vm.qemu.model().kept.jobs.is_empty(), "{what}");
            if answer.is_err() && kept(&vm) != snapshots && ["query-jobs", "query-block"].contains(&&*refused)
            {
                // a QEMU that does not tell how it went has done it all the same
                assert!(matches!(change, Change::Snapshot(_)), "{what}");
                continue;
            }
            if answer.is_err() {
                made_nothing(&vm, &snapshots, &what);
            }
            // the same works afterwards, if it was undone
            if answer.is_err() && !matches!(change, Change::Remove { .. } | Change::RemoveForward(_)) {
                vm.change(changes(&vm).swap_remove(number))
                    .await
                    .unwrap_or_else(|error| panic!("again: {error}; {what}"));
            }
        }
    }
    println!("{injected} refusals");
    assert!(injected > 40, "{injected}");
}

#[tokio::test(start_paused = true)]
async fn a_qemu_that_stands_still_at_any_step() {
    let mut injected = 0;
    for number in 0..count().await {
        for step in 0..commands_of(number).await {
            let vm = vm().await;
            let snapshots = kept(&vm);
            vm.qemu.model().later = Some((step, Fault::Stall));
            let change = changes(&vm).swap_remove(number);
            let waiting = vm.begin(change.clone());
            tokio::time::sleep(STANDSTILL).await;
            let patient = !waiting.is_finished();
            vm.qemu.freeze(false);
            let answer = waiting.await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
            let what = format!("{change:?} at step {step}, patient: {patient}: {answer:?}");
            println!("{what}");
            // what has begun and cannot be left half-way goes on when QEMU does
            let endless = matches!(change, Change::Snapshot(_));
            assert!(endless || !patient, "{what}");
            if patient {
                assert!(answer.is_ok(), "{what}");
            } else if let Err(error) = &answer {
                assert_eq!(error.kind, ErrorKind::TimedOut, "{what}");
            }
            if answer.is_err() && endless {
                made_nothing(&vm, &snapshots, &what);
            }
            lost_nothing(&vm, &change, &answer, &snapshots, &what);
            assert!(vm.qemu.model().kept.jobs.is_empty(), "{what}");
            compare(&vm.status().await, &vm.qemu.model());
            injected += 1;
        }
    }
    println!("{injected} standstills");
    assert!(injected > 40, "{injected}");
}

#[tokio::test(start_paused = true)]
async fn the_death_of_qemu_at_any_step() {
    let mut injected = 0;
    for number in 0..count().await {
        for step in 0..commands_of(number).await {
            for fault in [Fault::HangUp, Fault::HangUpAfter] {
                let vm = vm().await;
                let snapshots = kept(&vm);
                vm.qemu.model().later = Some((step, fault));
                let change = changes(&vm).swap_remove(number);
                let answer = tokio::time::timeout(Duration::from_secs(5), vm.change(change.clone())).await;
                let answer = answer.unwrap_or_else(|_| panic!("{change:?} at step {step}: no answer"));
                let what = format!("{change:?} at step {step}: {answer:?}");
                if let Err(error) = &answer {
                    assert_eq!(error.kind, ErrorKind::NotRunning, "{what}");
                    assert!(made_files(&vm).is_empty(), "{what}");
                }
                lost_nothing(&vm, &change, &answer, &snapshots, &what);
                assert!(vm.file("old.qcow2").exists() && vm.file("stick.img").exists(), "{what}");
                let handle = vm.handle.clone();
                vm.exits(1).await;
                assert_eq!(handle.change(Change::Pause).await.unwrap_err().kind, ErrorKind::NotRunning);
                injected += 1;
            }
        }
    }
    println!("{injected} deaths");
    assert!(injected > 80, "{injected}");
}
