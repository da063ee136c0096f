//! What is known of the guest agent, and what is begun in the guest and not wanted any more. The agent is played by hand.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::spec::Condition;
use crate::vm::{Change, ChangeError, ErrorKind, Exec, Executed, Wait};

use super::fake_vm::FakeVm;

/// What the agent is asked next.
pub(super) async fn asked(vm: &mut FakeVm) -> Value {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.push(vm.agent.read_u8().await.unwrap());
    }
    let begin = line.iter().position(|byte| *byte == b'{').unwrap();
    serde_json::from_slice(&line[begin..]).unwrap()
}

pub(super) async fn answers(vm: &mut FakeVm, value: Value) {
    let answer = format!("{}\n", json!({ "return": value }));
    vm.agent.write_all(answer.as_bytes()).await.unwrap();
}

/// Answers what finds out whether an agent is there.
async fn is_there(vm: &mut FakeVm) {
    let sync = asked(vm).await;
    assert_eq!(sync["execute"], "guest-sync-delimited", "{sync}");
    vm.agent.write_all(&[0xff]).await.unwrap();
    answers(vm, sync["arguments"]["id"].clone()).await;
}

fn port(vm: &FakeVm, open: bool) {
    vm.qemu.event("VSERPORT_CHANGE", json!({ "id": "vmrun-agent", "open": open }));
}

/// An event that the owner has taken when this returns.
pub(super) async fn happens(vm: &FakeVm, event: &str, data: Value) {
    let mut events = vm.handle.bus.subscribe(None);
    vm.qemu.event(event, data);
    events.next().await.unwrap();
}

/// A VM whose agent has answered.
pub(super) async fn with_agent() -> FakeVm {
    let mut vm = FakeVm::start().await;
    port(&vm, true);
    is_there(&mut vm).await;
    wait_agent(&vm).await.unwrap();
    vm
}

async fn wait_agent(vm: &FakeVm) -> Result<(), ChangeError> {
    let wait = Wait {
        conditions: vec![Condition::Agent],
        all: false,
        timeout: Some(Duration::from_secs(1)),
        from_now: false,
    };
    vm.handle.wait(wait).await.map(drop)
}

fn command(agent_timeout: Option<Duration>) -> Exec {
    let command = vec!["true".to_owned()];
    Exec { command, agent_timeout, ..Exec::default() }
}

pub(super) async fn exec(vm: &FakeVm, seconds: u64) -> Result<Executed, ChangeError> {
    vm.handle.exec(command(Some(Duration::from_secs(seconds)))).await
}

#[tokio::test(start_paused = true)]
async fn each_event_that_an_agent_does_not_outlive_is_told() {
    for (event, data, words) in [
        ("RESET", json!({ "guest": false, "reason": "host-qmp-system-reset" }), "since the VM was reset"),
        ("RESET", json!({ "guest": true, "reason": "guest-reset" }), "since the VM was reset"),
        ("VSERPORT_CHANGE", json!({ "id": "vmrun-agent", "open": false }), "has ended"),
        (
            "DEVICE_DELETED",
            json!({ "device": "vmrun-agent", "path": "/machine/peripheral/vmrun-agent" }),
            "was unplugged",
        ),
    ] {
        let vm = with_agent().await;
        happens(&vm, event, data).await;
        assert_eq!(wait_agent(&vm).await.unwrap_err().kind, ErrorKind::TimedOut, "{event}");
        let began = Instant::now();
        let error = exec(&vm, 2).await.unwrap_err();
        assert_eq!((error.kind, began.elapsed().as_secs()), (ErrorKind::NoGuestAgent, 2), "{event}");
        assert!(error.message.contains(words), "{event}: {}", error.message);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_that_has_only_been_asked_for_ends_it_already() {
    let vm = with_agent().await;
    vm.change(Change::Reset).await.unwrap();
    assert_eq!(wait_agent(&vm).await.unwrap_err().kind, ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn the_agent_of_a_guest_that_panicked_does_not_answer() {
    let vm = with_agent().await;
    happens(&vm, "GUEST_PANICKED", json!({ "action": "pause" })).await;
    assert_eq!(wait_agent(&vm).await.unwrap_err().kind, ErrorKind::GuestPanicked);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_never_heard_of_is_told_from_one_that_was() {
    let vm = FakeVm::start().await;
    let error = exec(&vm, 0).await.unwrap_err();
    assert!(error.message.contains("no guest agent has answered in this VM yet"), "{}", error.message);
    assert!(error.hint.unwrap().contains("install"));
}

#[tokio::test(start_paused = true)]
async fn a_command_waits_for_an_agent_that_is_about_to_come() {
    let mut vm = FakeVm::start().await;
    let handle = vm.handle.clone();
    let running = tokio::spawn(async move { handle.exec(command(None)).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    port(&vm, true);
    is_there(&mut vm).await;
    assert_eq!(asked(&mut vm).await["arguments"]["path"], "true");
    answers(&mut vm, json!({ "pid": 7 })).await;
    assert_eq!(asked(&mut vm).await["execute"], "guest-exec-status");
    answers(&mut vm, json!({ "exited": true, "exitcode": 0 })).await;
    assert_eq!(running.await.unwrap().unwrap().exit_code, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_agent_is_asked_again() {
    let mut vm = FakeVm::start().await;
    port(&vm, true);
    // longer than the first question waits
    tokio::time::sleep(Duration::from_secs(30)).await;
    let handle = vm.handle.clone();
    let running = tokio::spawn(async move { handle.exec(command(None)).await });
    loop {
        // all that was asked in vain is there still
        let sync = asked(&mut vm).await;
        if sync["execute"] != "guest-sync-delimited" {
            assert_eq!(sync["arguments"]["path"], "true");
            break;
        }
        vm.agent.write_all(&[0xff]).await.unwrap();
        answers(&mut vm, sync["arguments"]["id"].clone()).await;
    }
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_command_that_nobody_wants_any_more_while_it_starts_is_killed() {
    let mut vm = with_agent().await;
    let handle = vm.handle.clone();
    let first = tokio::spawn(async move { handle.exec(command(None)).await });
    assert_eq!(asked(&mut vm).await["arguments"]["path"], "true");
    // another waits for its turn, and is not begun at all
    let handle = vm.handle.clone();
    let second = tokio::spawn(async move { handle.exec(command(None)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.abort();
    second.abort();
    assert!(first.await.unwrap_err().is_cancelled() && second.await.unwrap_err().is_cancelled());
    answers(&mut vm, json!({ "pid": 4711 })).await;
    let kill = asked(&mut vm).await;
    assert_eq!(
        (&kill["arguments"]["path"], &kill["arguments"]["arg"][2]),
        (&json!("/bin/sh"), &json!("4711"))
    );
    answers(&mut vm, json!({ "pid": 4712 })).await;
    assert!(timeout(Duration::from_secs(60), asked(&mut vm)).await.is_err(), "nothing else is asked");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_nobody_wants_any_more_while_it_is_opened_is_closed() {
    let mut vm = with_agent().await;
    let handle = vm.handle.clone();
    let opening = tokio::spawn(async move { handle.download("/etc/passwd", None).await.map(drop) });
    assert_eq!(asked(&mut vm).await["execute"], "guest-exec");
    answers(&mut vm, json!({ "pid": 7 })).await;
    assert_eq!(asked(&mut vm).await["execute"], "guest-exec-status");
    answers(&mut vm, json!({ "exited": true, "exitcode": 0, "out-data": "NjQ0IDU=" })).await;
    assert_eq!(asked(&mut vm).await["execute"], "guest-file-open");
    opening.abort();
    assert!(opening.await.unwrap_err().is_cancelled());
    answers(&mut vm, json!(1000)).await;
    let close = asked(&mut vm).await;
    assert_eq!(
        (&close["execute"], &close["arguments"]["handle"]),
        (&json!("guest-file-close"), &json!(1000))
    );
}

/// The client leaves while the guest's shell makes the file that the copy is written to.
#[tokio::test(start_paused = true)]
async fn a_file_that_nobody_wants_any_more_while_it_is_made_is_removed() {
    let mut vm = with_agent().await;
    let handle = vm.handle.clone();
    let sending = tokio::spawn(async move { handle.upload("/srv/x", None, None).await.map(drop) });
    let prepare = asked(&mut vm).await;
    assert_eq!(prepare["arguments"]["arg"][3], "/srv/x", "{prepare}");
    let suffix = prepare["arguments"]["arg"][5].as_str().unwrap().to_owned();
    answers(&mut vm, json!({ "pid": 7 })).await;
    assert_eq!(asked(&mut vm).await["execute"], "guest-exec-status");
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled());
    // "P/srv/x"
    answers(&mut vm, json!({ "exited": true, "exitcode": 0, "out-data": "UC9zcnYveA==" })).await;
    let remove = asked(&mut vm).await;
    assert_eq!(remove["arguments"]["arg"][1], "rm -f -- \"$1\"", "{remove}");
    assert_eq!(remove["arguments"]["arg"][3], format!("/srv/x.{suffix}.part"));
}

/// The agent cannot open what its own shell has made.
#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_opened_is_removed() {
    let mut vm = with_agent().await;
    let handle = vm.handle.clone();
    let sending = tokio::spawn(async move { handle.upload("/srv/x", None, None).await.map(drop) });
    asked(&mut vm).await;
    answers(&mut vm, json!({ "pid": 7 })).await;
    asked(&mut vm).await;
    answers(&mut vm, json!({ "exited": true, "exitcode": 0, "out-data": "UC9zcnYveA==" })).await;
    assert_eq!(asked(&mut vm).await["execute"], "guest-file-open");
    let refusal = json!({ "error": { "class": "GenericError", "desc": "failed to open file" } });
    vm.agent.write_all(format!("{refusal}\n").as_bytes()).await.unwrap();
    assert!(sending.await.unwrap().is_err());
    let remove = asked(&mut vm).await;
    assert!(remove["arguments"]["arg"][3].as_str().unwrap().ends_with(".part"), "{remove}");
}
