//! Snapshots of the model: jobs that break off, and what waits meanwhile. Refusals, standstills and deaths are in `every_step`.

use std::time::Duration;

use crate::spec::DiskBus;
use crate::vm::change::SnapshotChange;
use crate::vm::{Change, Done, ErrorKind, RunState};

use super::fake_qemu::Fault;
use super::fake_vm::{FakeVm, disk, forward, keyboard, qcow2, save, snapshot, snapshot_save};
use super::sequences::compare;

async fn vm() -> FakeVm {
    let vm = FakeVm::start().await;
    std::fs::write(vm.file("a.qcow2"), qcow2()).unwrap();
    vm.change(disk(vm.file("a.qcow2"), DiskBus::Virtio, Some("a"))).await.unwrap();
    vm.change(snapshot_save("there", false)).await.unwrap();
    vm
}

async fn names(vm: &FakeVm) -> Vec<String> {
    let Ok(Done::Snapshots(list)) = vm.change(Change::Snapshot(SnapshotChange::List)).await else {
        panic!("no list")
    };
    list.into_iter().map(|snapshot| snapshot.name).collect()
}

#[tokio::test(start_paused = true)]
async fn a_job_that_breaks_off_lets_the_guest_go_on() {
    let cases = [
        ("snapshot-save", snapshot_save("new", false)),
        ("snapshot-delete", snapshot(SnapshotChange::Delete, "there")),
    ];
    for (command, change) in cases {
        let vm = vm().await;
        vm.qemu.fault(command, Fault::Break("No space left on device"));
        let error = vm.change(change.clone()).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::RefusedByQemu { .. }), "{error:?}");
        assert!(error.message.contains(command) && error.message.contains("No space left"), "{error}");
        assert_eq!(vm.status().await.run_state, RunState::Running, "{command}");
        compare(&vm.status().await, &vm.qemu.model());
        assert_eq!(names(&vm).await, ["there"], "{command}");
        assert!(vm.qemu.model().kept.jobs.is_empty(), "{command}");
        vm.change(change).await.unwrap();
    }
}

/// A guest whose memory is half of one time and half of another must not run, whatever this QEMU's words for it are.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_loaded_half_leaves_the_guest_stopped() {
    for words in [
        "Error -22 while loading VM state",
        // QEMU 11
        "Failed to load vmstate version_id: 4, ret: -22",
        "No space left on device",
    ] {
        let vm = vm().await;
        vm.qemu.fault("snapshot-load", Fault::Break(words));
        let error = vm.change(snapshot(SnapshotChange::Load, "there")).await.unwrap_err();
        assert!(error.message.contains("its memory is inconsistent"), "{error}");
        let status = vm.status().await;
        assert_eq!(status.run_state, RunState::Paused);
        assert!(status.reason.unwrap().contains("inconsistent"));
        assert!(!vm.qemu.model().running);
        // such a memory is in no file, snapshot or template
        for change in [save(vm.file("vm.saved")), snapshot_save("new", false)] {
            let refused = vm.change(change).await.unwrap_err();
            assert!(refused.message.contains("inconsistent") && refused.hint.is_some(), "{refused:?}");
        }
        assert!(!vm.file("vm.saved").exists());
        vm.change(snapshot(SnapshotChange::Load, "there")).await.unwrap();
        assert_eq!(vm.status().await.reason, None);
    }
}

/// What would come in between is refused from the inventory alone: QEMU is not asked.
#[tokio::test(start_paused = true)]
async fn nothing_comes_in_between_of_a_snapshot() {
    let vm = vm().await;
    // before `snapshot-save`
    vm.qemu.model().later = Some((3, Fault::Stall));
    let making = vm.begin(snapshot_save("new", false));
    vm.stands_still().await;
    let seen = vm.qemu.seen().len();
    let others = [
        keyboard(None),
        forward(0, 80),
        Change::Pause,
        Change::Resume,
        Change::Reset,
        snapshot_save("other", false),
        snapshot(SnapshotChange::Load, "there"),
        save(vm.file("vm.saved")),
    ];
    for change in others {
        let error = vm.change(change.clone()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotNow { state: "busy".to_owned() }, "{change:?}");
        assert_eq!(error.message, "snapshot 'new' is being made");
    }
    assert_eq!(vm.qemu.seen().len(), seen);
    // an hour later it is still waited for, and others are still answered
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(vm.status().await.run_state, RunState::Running);
    assert!(!making.is_finished());
    vm.qemu.freeze(false);
    assert!(matches!(making.await.unwrap(), Ok(Done::Snapshot(_))));
    assert_eq!(names(&vm).await, ["new", "there"]);
    vm.change(Change::Pause).await.unwrap();
}

/// An image cannot rename its snapshots: one that replaces another is made beside it.
#[tokio::test(start_paused = true)]
async fn what_outlives_its_replacement_is_not_seen_and_goes_with_it() {
    let tags = |vm: &FakeVm| vm.qemu.model().kept.snapshots.keys().cloned().collect::<Vec<_>>();
    for last in [snapshot_save("there", true), snapshot(SnapshotChange::Delete, "there")] {
        let vm = vm().await;
        for (there, after) in [("there", "there~"), ("there~", "there")] {
            assert_eq!(tags(&vm), [there]);
            vm.change(snapshot_save("there", true)).await.unwrap();
            assert_eq!((tags(&vm), names(&vm).await), (vec![after.to_owned()], vec!["there".to_owned()]));
        }
        vm.qemu.fault("snapshot-delete", Fault::Break("Input/output error"));
        let Ok(Done::Snapshot(made)) = vm.change(snapshot_save("there", true)).await else {
            panic!("no snapshot")
        };
        assert_eq!((made.tag.as_str(), tags(&vm).len(), names(&vm).await.len()), ("there~", 2, 1));
        vm.change(last.clone()).await.unwrap();
        let left = usize::from(matches!(last, Change::Snapshot(SnapshotChange::Save { .. })));
        assert_eq!((tags(&vm).len(), names(&vm).await.len()), (left, left));
    }
}

/// The new one fails: the error names the old one, and it still exists.
#[tokio::test(start_paused = true)]
async fn a_replacement_that_breaks_off_leaves_the_old_one() {
    let vm = vm().await;
    vm.qemu.fault("snapshot-save", Fault::Break("No space left on device"));
    let error = vm.change(snapshot_save("there", true)).await.unwrap_err();
    assert!(error.hint.unwrap().contains("the old snapshot 'there' is still there"), "{}", error.message);
    assert_eq!(names(&vm).await, ["there"]);
    vm.change(snapshot(SnapshotChange::Load, "there")).await.unwrap();
}
