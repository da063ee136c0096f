//! A QEMU that sends nonsense: too much, too slowly, too long, in halves. The client gets an error, others are answered, and
//! the VM can be ended. One that refuses, stands still or dies is in `every_step`.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::qemu::Command;
use crate::spec::DiskBus;
use crate::vm::signals::EndSignal;
use crate::vm::{BusEvent, Change, ChangeError, Done, Ending, ErrorKind, RunState, ShutdownOptions};

use super::every_step;
use super::fake_qemu::{Corruption, Fault, Guest};
use super::fake_vm::{FakeVm, disk, keyboard, remove};
use super::sequences::compare;

fn query() -> Change {
    Change::Qmp(Command::new("query-status", json!({})))
}

/// A VM whose QEMU has answered `stop` with nonsense.
async fn spoiled(corruption: Corruption) -> (FakeVm, ChangeError) {
    let vm = FakeVm::start().await;
    vm.qemu.fault("stop", Fault::Spoil(corruption));
    let error = vm.change(Change::Pause).await.unwrap_err();
    (vm, error)
}

/// Its process runs on, but its monitor cannot be used.
#[tokio::test(start_paused = true)]
async fn a_qemu_that_talks_nonsense_is_named_and_can_be_ended() {
    let cases =
        [(Corruption::Garbage, "sent what is no message"), (Corruption::Long, "more than 16777216 bytes")];
    for (corruption, words) in cases {
        let (vm, error) = spoiled(corruption).await;
        assert_eq!(error.kind, ErrorKind::NotRunning, "{error}");
        assert!(error.message.contains(words) && !error.message.contains("the VM has ended"), "{error}");
        // later clients get the same error, and `status` says so
        for change in [query(), Change::Resume, keyboard(None), Change::Hmp("info usb".to_owned())] {
            let later = vm.change(change).await.unwrap_err();
            assert_eq!((later.kind, later.message), (ErrorKind::NotRunning, error.message.clone()));
            assert!(later.hint.unwrap().contains("shutdown"));
        }
        let status = vm.status().await;
        assert!(status.reason.clone().unwrap().contains(words), "{:?}", status.reason);
        assert_eq!(status.devices.len(), 1);
        let options = ShutdownOptions { timeout: Duration::from_secs(9), force: false, no_repeat: false };
        let begun = Instant::now();
        let outcome = vm.handle.shutdown(options).await.unwrap();
        assert_eq!((outcome.ending, outcome.exit_code), (Ending::Killed, 12), "{outcome:?}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        vm.ended().await;
    }
}

/// It may end a moment later, which is usual after its monitor was closed; if it does not, that is reported.
#[tokio::test(start_paused = true)]
async fn a_monitor_that_closes_while_its_qemu_lives_on_is_told_of() {
    let vm = FakeVm::start().await;
    vm.qemu.hang_up();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let error = vm.change(query()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotRunning);
    assert!(error.message.contains("closed its monitor"), "{error}");
    assert!(vm.status().await.reason.unwrap().contains("closed its monitor"));
    vm.signals.send(EndSignal::sent("SIGTERM")).await.unwrap();
    assert_eq!(vm.ended().await.ending, Ending::Killed);
}

#[tokio::test(start_paused = true)]
async fn half_an_answer_is_the_end_of_qemu() {
    let (vm, error) = spoiled(Corruption::Half).await;
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::NotRunning, "the VM has ended"));
    assert_eq!(vm.exits(1).await.ending, Ending::Crashed);
}

/// Every command of every change is answered with half a message, or with none.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_none_at_any_step() {
    let mut injected = 0;
    for number in 0..every_step::count().await {
        for step in 0..every_step::commands_of(number).await {
            for corruption in [Corruption::Half, Corruption::Garbage] {
                let vm = every_step::vm().await;
                vm.qemu.model().later = Some((step, Fault::Spoil(corruption)));
                let change = every_step::changes(&vm).swap_remove(number);
                let answer = tokio::time::timeout(Duration::from_secs(5), vm.change(change.clone())).await;
                let answer = answer.unwrap_or_else(|_| panic!("{change:?} at step {step}: no answer"));
                let what = format!("{change:?} at step {step}, {corruption:?}: {answer:?}");
                if let Err(error) = answer {
                    assert_eq!(error.kind, ErrorKind::NotRunning, "{what}");
                    assert!(every_step::made_files(&vm).is_empty(), "{what}");
                }
                // the inventory can be read for as long as its process lives
                vm.status().await;
                vm.exits(1).await;
                injected += 1;
            }
        }
    }
    println!("{injected} answers");
    assert!(injected > 80, "{injected}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_byte_by_byte_is_waited_for_and_then_is_an_answer() {
    let vm = FakeVm::start().await;
    vm.qemu.fault("stop", Fault::Spoil(Corruption::Slow));
    let begun = Instant::now();
    let error = vm.change(Change::Pause).await.unwrap_err();
    assert_eq!((error.kind, begun.elapsed().as_secs()), (ErrorKind::TimedOut, 30));
    // others are answered meanwhile, from the inventory
    assert_eq!(vm.status().await.run_state, RunState::Running);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(vm.status().await.run_state, RunState::Paused);
    vm.change(Change::Resume).await.unwrap();
    compare(&vm.status().await, &vm.qemu.model());
}

#[tokio::test(start_paused = true)]
async fn a_message_of_ten_megabytes_is_a_message() {
    let vm = FakeVm::start().await;
    let text: &'static str = "x".repeat(10 << 20).leak();
    vm.qemu.fault("human-monitor-command", Fault::Say(text));
    assert_eq!(vm.change(Change::Hmp("info".to_owned())).await, Ok(Done::Text(text.to_owned())));
    vm.change(Change::Pause).await.unwrap();
}

/// An event that size would be kept a thousand times over.
#[tokio::test(start_paused = true)]
async fn an_event_of_ten_megabytes_is_counted_and_not_kept() {
    let vm = FakeVm::start().await;
    let mut subscriber = vm.handle.bus.subscribe(None);
    vm.qemu.event("HUGE", json!({ "text": "x".repeat(10 << 20) }));
    vm.qemu.event("SMALL", json!({}));
    vm.change(Change::Pause).await.unwrap();
    let mut names = Vec::new();
    while let Some(event) = subscriber.try_next() {
        names.push(match event {
            BusEvent::Record(record) => record.name.clone(),
            BusEvent::Lost(count) => format!("lost {count}"),
        });
    }
    assert_eq!(names[..2], ["VMRUN_EVENTS_LOST", "SMALL"], "{names:?}");
}

/// Lost events are made up for by queries: the inventory has some facts from events only.
#[tokio::test(start_paused = true)]
async fn what_lost_events_would_have_told_is_asked_for() {
    let vm = FakeVm::start().await;
    vm.change(disk(vm.file("a.img"), DiskBus::Virtio, Some("a"))).await.unwrap();
    vm.change(disk(vm.file("b.img"), DiskBus::Virtio, Some("b"))).await.unwrap();
    vm.qemu.model().guest = Guest::Ignores;
    let removing = vm.begin(remove("a"));
    vm.sees("device_del").await;
    vm.qemu.release_unheard("a");
    let begun = Instant::now();
    assert_eq!(removing.await.unwrap(), Ok(Done::Removed));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    compare(&vm.status().await, &vm.qemu.model());
    // it stopped, and the event was lost
    vm.qemu.model().running = false;
    vm.qemu.event("STOP", json!({ "padding": "x".repeat(100_000) }));
    while vm.status().await.run_state == RunState::Running {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(vm.status().await.run_state, RunState::Paused);
    compare(&vm.status().await, &vm.qemu.model());
}

/// A hundred thousand events, and the changes are made all the same; subscribers get the number of lost events.
#[tokio::test(start_paused = true)]
async fn a_flood_of_events_drowns_nobody() {
    const EVENTS: u64 = 100_000;
    let vm = FakeVm::start().await;
    let mut subscriber = vm.handle.bus.subscribe(None);
    let waiting = vm.begin(Change::Pause);
    let flood: String = (0..EVENTS)
        .map(|n| format!("{{\"event\": \"RTC_CHANGE\", \"data\": {{\"offset\": {n}}}}}\r\n"))
        .collect();
    vm.qemu.say(flood.into_bytes());
    assert_eq!(waiting.await.unwrap(), Ok(Done::Nothing));
    vm.change(Change::Resume).await.unwrap();
    vm.change(keyboard(None)).await.unwrap();
    compare(&vm.status().await, &vm.qemu.model());
    let (mut received, mut lost) = (0, 0);
    while let Some(next) = subscriber.try_next() {
        match next {
            BusEvent::Record(record) if record.name == "RTC_CHANGE" => received += 1,
            BusEvent::Record(record) if record.name == "VMRUN_EVENTS_LOST" => {
                lost += record.data["count"].as_u64().unwrap();
            }
            BusEvent::Record(_) => {}
            BusEvent::Lost(count) => lost += count,
        }
    }
    println!("{received} received, {lost} lost");
    assert!(received + lost >= EVENTS, "{received} + {lost}");
}

/// Events that are none: of known names and wrong data, of empty names, of names as long as a book.
#[tokio::test(start_paused = true)]
async fn events_that_make_no_sense_change_nothing() {
    let vm = FakeVm::start().await;
    let before = vm.inventory().await;
    for name in [
        "STOP ",
        "",
        "DEVICE_DELETED",
        "DEVICE_UNPLUG_GUEST_ERROR",
        "BLOCK_IO_ERROR",
        "RESET",
        "GUEST_PANICKED",
        "VSERPORT_CHANGE",
        "DEVICE_TRAY_MOVED",
        "MIGRATION",
        "JOB_STATUS_CHANGE",
    ] {
        for data in [
            json!(null),
            json!([1]),
            json!("text"),
            json!({ "device": [1], "id": 5, "guest": "no", "action": {} }),
        ] {
            vm.qemu.event(name, data);
        }
    }
    vm.qemu.event(&"N".repeat(60_000), json!({ "device": "nic0" }));
    vm.change(Change::Pause).await.unwrap();
    vm.change(Change::Resume).await.unwrap();
    assert_eq!(vm.inventory().await, before);
    compare(&vm.status().await, &vm.qemu.model());
}
