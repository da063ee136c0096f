//! The ladder, signals, and how it ended. Time is virtual: the budgets are exact.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::qemu::Command;
use crate::vm::{Change, Done, Ending, ErrorKind, RunState, ShutdownOptions};

use crate::vm::signals::EndSignal;

use super::fake_qemu::Fault;
use super::fake_vm::{FakeVm, device, forward};

const TERM: EndSignal = EndSignal::sent("SIGTERM");

fn options(seconds: u64) -> ShutdownOptions {
    ShutdownOptions { timeout: Duration::from_secs(seconds), force: false, no_repeat: false }
}

/// When QEMU saw which command, in seconds from now; until it has seen `last`.
async fn timeline(vm: &FakeVm, last: &str) -> Vec<(String, u64)> {
    let start = Instant::now();
    let mut times = Vec::new();
    loop {
        let seen = vm.qemu.seen();
        for name in &seen[times.len()..] {
            times.push((name.clone(), start.elapsed().as_secs()));
        }
        if times.iter().any(|(name, _)| name == last) {
            return times;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_ladder_asks_twice_quits_and_kills() {
    let vm = FakeVm::start().await;
    // the guest has booted
    tokio::time::sleep(Duration::from_secs(60)).await;
    let handle = vm.handle.clone();
    // QEMU's main loop hangs: it says nothing to `quit`
    vm.qemu.fault("quit", Fault::Say("later"));
    let shutdown = tokio::spawn(async move { handle.shutdown(options(30)).await });
    let times = timeline(&vm, "quit").await;
    let expected = [("system_powerdown", 0), ("system_powerdown", 15), ("quit", 30)];
    assert_eq!(times, expected.map(|(name, second)| (name.to_owned(), second)));
    let outcome = shutdown.await.unwrap().unwrap();
    assert_eq!((outcome.ending, outcome.exit_code), (Ending::Killed, 12));
    assert!(outcome.after_ms.is_some_and(|after| (35_000..38_000).contains(&after)), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_follows_is_told_by_its_events() {
    let vm = FakeVm::start().await;
    let handle = vm.handle.clone();
    let shutdown = tokio::spawn(async move { handle.shutdown(options(30)).await });
    vm.sees("system_powerdown").await;
    vm.qemu.event("SHUTDOWN", json!({ "guest": true, "reason": "guest-shutdown" }));
    while vm.status().await.run_state != RunState::Off {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let ended = vm.exits(0).await;
    assert_eq!((ended.ending, ended.exit_code), (Ending::AskedAcpi, 0));
    assert_eq!(shutdown.await.unwrap().unwrap(), ended);
}

#[tokio::test(start_paused = true)]
async fn force_skips_the_asking_and_a_second_request_shortens_the_first() {
    let vm = FakeVm::start().await;
    let handle = vm.handle.clone();
    let first = tokio::spawn(async move { handle.shutdown(options(600)).await });
    vm.sees("system_powerdown").await;
    let handle = vm.handle.clone();
    let force = ShutdownOptions { force: true, ..options(600) };
    let second = tokio::spawn(async move { handle.shutdown(force).await });
    vm.sees("quit").await;
    assert_eq!(vm.qemu.seen(), ["system_powerdown", "quit"]);
    let ended = vm.exits(0).await;
    assert_eq!((ended.ending, ended.exit_code), (Ending::Quit, 12));
    assert_eq!(first.await.unwrap().unwrap(), ended);
    assert_eq!(second.await.unwrap().unwrap(), ended);
}

#[tokio::test(start_paused = true)]
async fn a_paused_guest_is_let_go_before_it_is_asked() {
    let vm = FakeVm::start().await;
    vm.change(Change::Pause).await.unwrap();
    let handle = vm.handle.clone();
    let shutdown = tokio::spawn(async move { handle.shutdown(options(2)).await });
    vm.sees("quit").await;
    assert_eq!(vm.qemu.seen(), ["stop", "cont", "system_powerdown", "system_powerdown", "quit"]);
    vm.exits(0).await;
    shutdown.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn signals_ask_then_quit_then_kill() {
    let vm = FakeVm::start().await;
    vm.qemu.fault("quit", Fault::Say("later"));
    vm.signals.send(TERM).await.unwrap();
    vm.sees("system_powerdown").await;
    assert!(vm.status().await.stopping);
    tokio::time::sleep(Duration::from_secs(1)).await;
    vm.signals.send(EndSignal::sent("SIGINT")).await.unwrap();
    vm.sees("quit").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = Instant::now();
    vm.signals.send(EndSignal::sent("SIGINT")).await.unwrap();
    let outcome = vm.ended().await;
    assert_eq!(outcome.ending, Ending::Killed);
    // the wait is for the last events of a monitor that stays open
    assert!(before.elapsed() <= Duration::from_secs(3), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn two_signals_at_once_are_one_request_and_two_keys_are_two() {
    let vm = FakeVm::start().await;
    for signal in [TERM, TERM, EndSignal::sent("SIGHUP")] {
        vm.signals.send(signal).await.unwrap();
    }
    let times = timeline(&vm, "quit").await;
    // the whole of the default budget
    assert_eq!(times.last().unwrap(), &("quit".to_owned(), 30));
    vm.exits(0).await;

    let vm = FakeVm::start().await;
    for _ in 0..2 {
        vm.signals.send(EndSignal::typed("SIGINT")).await.unwrap();
    }
    let times = timeline(&vm, "quit").await;
    assert_eq!(times, [("system_powerdown".to_owned(), 0), ("quit".to_owned(), 0)]);
    vm.exits(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_signal_during_a_clients_shutdown_shortens_it_to_its_own_budget() {
    let vm = FakeVm::start().await;
    let handle = vm.handle.clone();
    let shutdown = tokio::spawn(async move { handle.shutdown(options(3600)).await });
    vm.sees("system_powerdown").await;
    vm.signals.send(TERM).await.unwrap();
    let times = timeline(&vm, "quit").await;
    assert_eq!(times.last().unwrap(), &("quit".to_owned(), 30));
    vm.exits(0).await;
    shutdown.await.unwrap().unwrap();
}

/// Answers the agent's first command.
async fn answer_sync(vm: &mut FakeVm) {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.push(vm.agent.read_u8().await.unwrap());
    }
    let text = String::from_utf8_lossy(&line).into_owned();
    let json: Value = serde_json::from_str(text.trim_start_matches(|c| c != '{')).unwrap();
    let answer = format!("\u{0}{}\n", json!({ "return": json["arguments"]["id"] }));
    let mut answer = answer.into_bytes();
    answer[0] = 0xff;
    tokio::io::AsyncWriteExt::write_all(&mut vm.agent, &answer).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_guest_agent_is_asked_first_and_only_if_it_has_answered() {
    let mut vm = FakeVm::start().await;
    vm.qemu.event("VSERPORT_CHANGE", json!({ "id": "vmrun-agent", "open": true }));
    answer_sync(&mut vm).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let handle = vm.handle.clone();
    let shutdown = tokio::spawn(async move { handle.shutdown(options(30)).await });
    let times = timeline(&vm, "quit").await;
    let expected = [("system_powerdown", 10), ("system_powerdown", 20), ("quit", 30)];
    assert_eq!(times, expected.map(|(name, second)| (name.to_owned(), second)));
    let mut rest = vec![0; 4096];
    let count = vm.agent.read(&mut rest).await.unwrap();
    assert!(String::from_utf8_lossy(&rest[..count]).contains("guest-shutdown"));
    vm.exits(0).await;
    shutdown.await.unwrap().unwrap();
}

/// A guest that missed the button while it booted.
#[tokio::test(start_paused = true)]
async fn an_agent_that_answers_during_a_shutdown_is_asked_at_once() {
    let mut vm = FakeVm::start().await;
    let handle = vm.handle.clone();
    let shutdown = tokio::spawn(async move { handle.shutdown(options(600)).await });
    vm.sees("system_powerdown").await;
    let began = Instant::now();
    vm.qemu.event("VSERPORT_CHANGE", json!({ "id": "vmrun-agent", "open": true }));
    answer_sync(&mut vm).await;
    let mut rest = vec![0; 4096];
    let count = vm.agent.read(&mut rest).await.unwrap();
    assert!(String::from_utf8_lossy(&rest[..count]).contains("guest-shutdown"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    vm.qemu.event("SHUTDOWN", json!({ "guest": true, "reason": "guest-shutdown" }));
    while vm.status().await.run_state != RunState::Off {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(vm.exits(0).await.ending, Ending::AskedAgent);
    shutdown.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_longest_budget_that_can_be_asked_for_is_no_trouble() {
    let vm = FakeVm::start().await;
    let handle = vm.handle.clone();
    let timeout = Duration::from_millis(i64::MAX as u64);
    let endless = ShutdownOptions { timeout, ..options(0) };
    let shutdown = tokio::spawn(async move { handle.shutdown(endless).await });
    vm.sees("system_powerdown").await;
    assert!(vm.status().await.stopping);
    vm.exits(0).await;
    shutdown.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_new_is_begun_while_it_shuts_down() {
    let vm = FakeVm::start().await;
    vm.signals.send(TERM).await.unwrap();
    vm.sees("system_powerdown").await;
    for change in [device("edu", "e"), forward(0, 80), Change::Pause, Change::Reset] {
        let error = vm.change(change).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotNow { state: "stopping".to_owned() });
    }
}

#[tokio::test(start_paused = true)]
async fn a_qemu_that_crashes_is_a_crash_whatever_was_going_on() {
    for code in [1, 139] {
        let vm = FakeVm::start().await;
        let outcome = vm.exits(code).await;
        assert_eq!((outcome.ending, outcome.exit_code), (Ending::Crashed, 11));
    }
}

#[tokio::test(start_paused = true)]
async fn pause_resume_and_the_power_button() {
    let vm = FakeVm::start().await;
    vm.change(Change::Pause).await.unwrap();
    assert_eq!(vm.status().await.run_state, RunState::Paused);
    vm.change(Change::Pause).await.unwrap();
    let error = vm.change(Change::Powerdown).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotNow { state: "paused".to_owned() });
    vm.change(Change::Resume).await.unwrap();
    vm.change(Change::Powerdown).await.unwrap();
    assert_eq!(vm.qemu.seen(), ["stop", "cont", "qom-get", "system_powerdown"]);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_qemu_does_not_know_is_an_error() {
    let vm = FakeVm::start().await;
    let error = vm.change(Change::Hmp("nonsense 1".to_owned())).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::RefusedByQemu { class: "CommandNotFound".to_owned() });
    assert_eq!(error.message, "QEMU refused the line: unknown command: 'nonsense 1'");
    // any other text is the answer, whatever it says
    let said = vm.change(Change::Hmp("hostfwd_remove net0 tcp:127.0.0.1:1".to_owned())).await;
    let Ok(Done::Text(text)) = said else { panic!("{said:?}") };
    assert!(text.contains("not found"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn commands_of_many_clients_leave_room_for_vmruns_own() {
    let vm = FakeVm::start().await;
    vm.qemu.freeze(true);
    let schema = Command::new("query-qmp-schema", Value::Null);
    let ask = |_| {
        let (handle, schema) = (vm.handle.clone(), schema.clone());
        tokio::spawn(async move { handle.client_qmp(schema).await })
    };
    let clients: Vec<_> = (0..100).map(ask).collect();
    let handle = vm.handle.clone();
    let force = ShutdownOptions { force: true, ..options(5) };
    // time is virtual: when it has passed, all have done what they can
    tokio::time::sleep(Duration::from_millis(100)).await;
    let shutdown = tokio::spawn(async move { handle.shutdown(force).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    vm.qemu.freeze(false);
    vm.sees("quit").await;
    let seen = vm.qemu.seen();
    let before = seen.iter().take_while(|name| *name != "quit").count();
    assert!((1..=2).contains(&before), "{seen:?}");
    let ended = vm.exits(0).await;
    assert_eq!(ended.ending, Ending::Quit);
    assert_eq!(shutdown.await.unwrap().unwrap(), ended);
    for client in clients {
        // answered, or refused since the VM has ended
        drop(client.await.unwrap());
    }
}
