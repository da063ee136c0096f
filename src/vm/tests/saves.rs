//! `save` against the model: refused, stood still and died in at every step; aborted by a shutdown; nothing in between.
//! Either the file is there, complete, and the VM has ended for it; or there is none, and the guest goes on.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use crate::host::saved;
use crate::qemu::Command;
use crate::spec::DiskBus;
use crate::vm::signals::EndSignal;
use crate::vm::{Change, ChangeError, Done, Ending, ErrorKind, Outcome, RunState, ShutdownOptions};

use super::fake_keeping::STREAM;
use super::fake_qemu::Fault;
use super::fake_vm::{FakeVm, disk, forward, keyboard, qcow2, save, snapshot_save};
use super::sequences::compare;

const NAME: &str = "vm.saved";
/// The commands to QEMU when the file is complete.
const LAST: &str = "quit";

async fn vm() -> FakeVm {
    let vm = FakeVm::start().await;
    std::fs::write(vm.file("a.qcow2"), qcow2()).unwrap();
    vm.change(disk(vm.file("a.qcow2"), DiskBus::Virtio, Some("a"))).await.unwrap();
    vm.change(disk(vm.file("b.img"), DiskBus::Scsi, Some("b"))).await.unwrap();
    vm.change(keyboard(Some("keys"))).await.unwrap();
    vm.change(forward(0, 22)).await.unwrap();
    vm
}

fn begin(vm: &FakeVm) -> JoinHandle<Result<Done, ChangeError>> {
    vm.begin(save(vm.file(NAME)))
}

/// A VM whose stream is held, so that its save is under way.
async fn under_way() -> (FakeVm, JoinHandle<Result<Done, ChangeError>>) {
    let vm = vm().await;
    vm.qemu.model().kept.holds = true;
    let saving = begin(&vm);
    vm.sees_now("migrate").await;
    (vm, saving)
}

/// The commands of a save that nothing goes wrong with.
async fn commands() -> Vec<String> {
    let vm = vm().await;
    let before = vm.qemu.seen().len();
    assert_eq!(vm.change(save(vm.file(NAME))).await, Ok(Done::Nothing));
    vm.sees(LAST).await;
    let commands = vm.qemu.seen().split_off(before);
    is_saved(vm).await;
    commands
}

fn is_whole(file: &Path) {
    let (description, mut stream) = saved::open(file).unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    assert_eq!(text, STREAM);
    assert!(String::from_utf8(description).unwrap().contains("a.qcow2"));
}

/// The file is there, and that is how the VM has ended, whatever its QEMU did after it.
async fn is_saved(vm: FakeVm) {
    let (file, folder) = (vm.file(NAME), vm.folder());
    is_whole(&file);
    assert!(!saved::part(&file).exists());
    let outcome = vm.exits(0).await;
    assert_eq!((outcome.ending, outcome.exit_code), (Ending::Saved, 0), "{outcome:?}");
    drop(folder);
}

fn no_file(vm: &FakeVm, what: &str) {
    let file = vm.file(NAME);
    assert!(!file.exists() && !saved::part(&file).exists(), "{what}");
}

/// Nothing is left of a save that failed: the guest runs, changes are taken, and the next one works.
async fn goes_on(vm: FakeVm, what: &str) {
    no_file(&vm, what);
    await_settled(&vm).await;
    assert_eq!(vm.status().await.run_state, RunState::Running, "{what}");
    compare(&vm.status().await, &vm.qemu.model());
    vm.change(Change::Pause).await.unwrap_or_else(|error| panic!("{error}; {what}"));
    vm.change(Change::Resume).await.unwrap();
    vm.change(save(vm.file(NAME))).await.unwrap_or_else(|error| panic!("again: {error}; {what}"));
    is_saved(vm).await;
}

/// Until QEMU has carried out all that it was sent.
async fn await_settled(vm: &FakeVm) {
    let query = Command::new("query-status", json!({}));
    for _ in 0..3 {
        vm.change(Change::Qmp(query.clone())).await.unwrap();
    }
}

/// Lets time pass although threads are at work, for whose sake it would stand still.
async fn pass(time: Duration) {
    for _ in 0..time.as_secs() {
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_save_that_is_refused_at_any_step() {
    let commands = commands().await;
    for (step, command) in commands.iter().enumerate() {
        let vm = vm().await;
        vm.qemu.model().later = Some((step, Fault::Refuse("planned")));
        let answer = vm.change(save(vm.file(NAME))).await;
        let what = format!("{command}: {answer:?}");
        println!("{what}");
        if command == LAST {
            assert!(answer.is_ok(), "{what}");
            is_saved(vm).await;
            continue;
        }
        let error = answer.expect_err(command);
        assert!(matches!(error.kind, ErrorKind::RefusedByQemu { .. }), "{what}");
        goes_on(vm, &what).await;
    }
    println!("{} refusals", commands.len());
    assert!(commands.len() > 9, "{commands:?}");
}

#[tokio::test(start_paused = true)]
async fn a_save_whose_qemu_stands_still_at_any_step() {
    let commands = commands().await;
    for (step, command) in commands.iter().enumerate() {
        let vm = vm().await;
        vm.qemu.model().later = Some((step, Fault::Stall));
        let saving = begin(&vm);
        vm.stands_still().await;
        pass(Duration::from_secs(120)).await;
        let patient = !saving.is_finished();
        vm.qemu.freeze(false);
        let answer = saving.await.unwrap();
        let what = format!("{command}, patient: {patient}: {answer:?}");
        println!("{what}");
        match answer {
            Ok(_) => is_saved(vm).await,
            Err(error) => {
                assert!(!patient && error.kind == ErrorKind::TimedOut, "{what}");
                goes_on(vm, &what).await;
            }
        }
    }
    println!("{} standstills", commands.len());
}

#[tokio::test(start_paused = true)]
async fn a_save_whose_qemu_dies_at_any_step() {
    let commands = commands().await;
    let mut deaths = 0;
    for (step, command) in commands.iter().enumerate() {
        for fault in [Fault::HangUp, Fault::HangUpAfter] {
            let vm = vm().await;
            vm.qemu.model().later = Some((step, fault));
            let answer = vm.change(save(vm.file(NAME))).await;
            let what = format!("{command}: {answer:?}");
            deaths += 1;
            if command == LAST {
                assert!(answer.is_ok(), "{what}");
                is_saved(vm).await;
                continue;
            }
            assert_eq!(answer.unwrap_err().kind, ErrorKind::NotRunning, "{what}");
            no_file(&vm, &what);
            let (file, folder) = (vm.file(NAME), vm.folder());
            let outcome = vm.exits(1).await;
            assert_eq!((outcome.ending, outcome.exit_code), (Ending::Crashed, 11), "{what}");
            assert!(!file.exists(), "{what}");
            drop(folder);
        }
    }
    println!("{deaths} deaths");
}

/// At no moment of its last steps is there a file without the outcome that tells of it, or the other way round.
#[tokio::test(start_paused = true)]
async fn a_qemu_that_dies_while_the_file_is_finished() {
    let mut saved = 0;
    for delay in 0..40u32 {
        let (mut vm, saving) = under_way().await;
        vm.qemu.end_stream();
        vm.sees_now("query-named-block-nodes").await;
        let (file, folder) = (vm.file(NAME), vm.folder());
        for _ in 0..delay * 4 {
            tokio::task::yield_now().await;
        }
        vm.process.exit(1);
        vm.qemu.hang_up();
        let answer = saving.await.unwrap();
        let outcome = vm.ended().await;
        tokio::time::pause();
        let there = file.exists();
        assert_eq!(there, outcome.ending == Ending::Saved, "{delay}: {answer:?}, {outcome:?}");
        assert!(there || answer.is_err(), "{delay}: {answer:?}, {outcome:?}");
        assert!(!saved::part(&file).exists());
        saved += u32::from(there);
        drop(folder);
    }
    println!("{saved} of 40 were saved");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_in_the_middle_of_a_save() {
    let (mut vm, saving) = under_way().await;
    let (file, folder) = (vm.file(NAME), vm.folder());
    vm.process.exit(1);
    assert_eq!(saving.await.unwrap().unwrap_err().kind, ErrorKind::NotRunning);
    // the stream's other end is open yet
    let model = vm.qemu.clone();
    let outcome = vm.ended().await;
    assert_eq!((outcome.ending, outcome.exit_code), (Ending::Crashed, 11));
    assert!(!file.exists() && !saved::part(&file).exists());
    model.hang_up();
    drop(folder);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_lets_the_guest_go_on() {
    let vm = vm().await;
    vm.qemu.fault("migrate", Fault::Break("a device is on fire"));
    let error = vm.change(save(vm.file(NAME))).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::RefusedByQemu { .. }), "{error:?}");
    assert!(error.message.ends_with("a device is on fire"), "{error}");
    goes_on(vm, "a break").await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_guest_stays_paused_when_it_cannot_be_saved() {
    let vm = vm().await;
    vm.change(Change::Pause).await.unwrap();
    vm.qemu.fault("migrate", Fault::Break("a device is on fire"));
    vm.change(save(vm.file(NAME))).await.unwrap_err();
    assert_eq!(vm.status().await.run_state, RunState::Paused);
    compare(&vm.status().await, &vm.qemu.model());
    vm.change(save(vm.file(NAME))).await.unwrap();
    is_saved(vm).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_comes_in_between_of_a_save() {
    let (vm, saving) = under_way().await;
    let seen = vm.qemu.seen().len();
    let others = [
        keyboard(None),
        forward(0, 80),
        Change::Pause,
        Change::Resume,
        Change::Reset,
        Change::Powerdown,
        snapshot_save("s", false),
        save(vm.file("other.saved")),
    ];
    for change in others {
        let error = vm.change(change.clone()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotNow { state: "busy".to_owned() }, "{change:?}");
        assert!(error.message.contains("is being saved to") && error.hint.is_some(), "{error}");
    }
    assert_eq!(vm.qemu.seen().len(), seen);
    assert_eq!(vm.status().await.run_state, RunState::Paused);
    // what changes nothing is answered
    await_settled(&vm).await;
    assert!(!saving.is_finished());
    vm.qemu.end_stream();
    assert_eq!(saving.await.unwrap(), Ok(Done::Nothing));
    is_saved(vm).await;
}

/// The guest is asked to switch itself off, so it must run, and what is on its disks then is in no file.
async fn aborted(vm: FakeVm, saving: JoinHandle<Result<Done, ChangeError>>, what: &str) {
    let error = saving.await.unwrap().expect_err(what);
    assert_eq!(error.kind, ErrorKind::NotNow { state: "stopping".to_owned() }, "{what}: {error}");
    no_file(&vm, what);
    await_settled(&vm).await;
    assert!(vm.qemu.model().running, "{what}");
    assert!(vm.qemu.model().kept.descriptors.is_empty(), "{what}");
    assert!(vm.qemu.seen().iter().any(|seen| seen == "system_powerdown"), "{what}");
    vm.qemu.event("SHUTDOWN", json!({ "guest": true, "reason": "guest-shutdown" }));
    while vm.status().await.run_state != RunState::Off {
        tokio::task::yield_now().await;
    }
    let (file, folder) = (vm.file(NAME), vm.folder());
    let outcome = vm.exits(0).await;
    assert_eq!((outcome.ending, outcome.exit_code), (Ending::AskedAcpi, 0), "{what}");
    assert!(!file.exists(), "{what}");
    drop(folder);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_a_save_and_lets_the_guest_go_on() {
    let (vm, saving) = under_way().await;
    vm.signals.send(EndSignal::sent("SIGTERM")).await.unwrap();
    aborted(vm, saving, "a signal").await;
}

/// Whatever the save is doing at that moment.
#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_a_save_at_any_step() {
    let commands = commands().await;
    for (step, command) in commands.iter().enumerate().filter(|(_, command)| *command != LAST) {
        let vm = vm().await;
        vm.qemu.model().later = Some((step, Fault::Stall));
        let saving = begin(&vm);
        vm.stands_still().await;
        vm.signals.send(EndSignal::sent("SIGTERM")).await.unwrap();
        while !vm.status().await.stopping {
            tokio::task::yield_now().await;
        }
        vm.qemu.freeze(false);
        aborted(vm, saving, command).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_forced_shutdown_waits_for_no_save() {
    let (vm, saving) = under_way().await;
    let handle = vm.handle.clone();
    let options = ShutdownOptions { timeout: Duration::from_secs(30), force: true, no_repeat: false };
    let shutdown = tokio::spawn(async move { handle.shutdown(options).await });
    vm.sees_now("quit").await;
    assert!(saving.await.unwrap().is_err());
    no_file(&vm, "forced");
    let outcome: Outcome = vm.exits(0).await;
    assert_eq!((outcome.ending, outcome.exit_code), (Ending::Quit, 12));
    assert_eq!(shutdown.await.unwrap().unwrap(), outcome);
}
