//! Frozen file systems are thawed, whatever happens. The agent is played by hand.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::vm::{ChangeError, ErrorKind};

use super::agent::{answers, asked, exec, happens, with_agent};
use super::fake_vm::FakeVm;

const FREEZE: &str = "guest-fsfreeze-freeze";
const THAW: &str = "guest-fsfreeze-thaw";
const TIME: Duration = Duration::from_secs(10);

async fn is_asked(vm: &mut FakeVm, command: &str) {
    assert_eq!(asked(vm).await["execute"], command);
}

async fn is_asked_nothing(vm: &mut FakeVm) {
    assert!(timeout(Duration::from_secs(600), asked(vm)).await.is_err(), "nothing is asked");
}

fn freezing(vm: &FakeVm) -> JoinHandle<Result<u64, ChangeError>> {
    let handle = vm.handle.clone();
    tokio::spawn(async move { handle.freeze_filesystems(TIME, None).await })
}

fn thawing(vm: &FakeVm) -> JoinHandle<Result<u64, ChangeError>> {
    let handle = vm.handle.clone();
    tokio::spawn(async move { handle.thaw_filesystems(None).await })
}

/// A VM with two frozen file systems.
async fn frozen() -> FakeVm {
    let mut vm = with_agent().await;
    let freezing = freezing(&vm);
    is_asked(&mut vm, FREEZE).await;
    answers(&mut vm, json!(2)).await;
    assert_eq!(freezing.await.unwrap(), Ok(2));
    vm
}

fn state(error: ChangeError) -> String {
    match error.kind {
        ErrorKind::NotNow { state } => state,
        other => panic!("{other:?}: {}", error.message),
    }
}

#[tokio::test(start_paused = true)]
async fn they_are_thawed_by_themselves_and_that_is_said_once() {
    let mut vm = frozen().await;
    assert_eq!(state(exec(&vm, 10).await.unwrap_err()), "frozen");
    let began = tokio::time::Instant::now();
    is_asked(&mut vm, THAW).await;
    assert_eq!(began.elapsed().as_secs(), TIME.as_secs());
    // one that the agent refuses is tried again
    let refusal = json!({ "error": { "class": "GenericError", "desc": "a hook failed" } });
    tokio::io::AsyncWriteExt::write_all(&mut vm.agent, format!("{refusal}\n").as_bytes()).await.unwrap();
    is_asked(&mut vm, THAW).await;
    answers(&mut vm, json!(2)).await;
    // the clock goes on when every task waits, so the answer has arrived
    tokio::time::sleep(Duration::from_millis(1)).await;
    let late = thawing(&vm);
    assert_eq!(state(late.await.unwrap().unwrap_err()), "thawed");
    let again = thawing(&vm);
    is_asked(&mut vm, THAW).await;
    answers(&mut vm, json!(0)).await;
    assert_eq!(again.await.unwrap(), Ok(0));
    is_asked_nothing(&mut vm).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_thawed_in_time_is_not_thawed_again() {
    let mut vm = frozen().await;
    let thawing = thawing(&vm);
    is_asked(&mut vm, THAW).await;
    answers(&mut vm, json!(2)).await;
    assert_eq!(thawing.await.unwrap(), Ok(2));
    is_asked_nothing(&mut vm).await;
}

#[tokio::test(start_paused = true)]
async fn those_of_a_client_that_has_left_are_thawed_at_once() {
    let mut vm = with_agent().await;
    let freezing = freezing(&vm);
    is_asked(&mut vm, FREEZE).await;
    freezing.abort();
    assert!(freezing.await.unwrap_err().is_cancelled());
    answers(&mut vm, json!(2)).await;
    let soon = timeout(Duration::from_secs(1), asked(&mut vm)).await.unwrap();
    assert_eq!(soon["execute"], THAW);
}

/// The agent may do it after its answer is not waited for any more.
#[tokio::test(start_paused = true)]
async fn those_that_may_have_been_frozen_are_thawed() {
    let mut vm = with_agent().await;
    let freezing = freezing(&vm);
    is_asked(&mut vm, FREEZE).await;
    assert_eq!(freezing.await.unwrap().unwrap_err().kind, ErrorKind::TimedOut);
    let sync = asked(&mut vm).await;
    tokio::io::AsyncWriteExt::write_all(&mut vm.agent, &[0xff]).await.unwrap();
    answers(&mut vm, sync["arguments"]["id"].clone()).await;
    is_asked(&mut vm, THAW).await;
}

#[tokio::test(start_paused = true)]
async fn those_of_a_guest_that_was_reset_are_another_guests() {
    let mut vm = frozen().await;
    happens(&vm, "RESET", json!({ "guest": false, "reason": "host-qmp-system-reset" })).await;
    is_asked_nothing(&mut vm).await;
}

#[tokio::test(start_paused = true)]
async fn none_is_frozen_where_there_is_none() {
    let mut vm = with_agent().await;
    let freezing = freezing(&vm);
    is_asked(&mut vm, FREEZE).await;
    answers(&mut vm, json!(0)).await;
    assert_eq!(freezing.await.unwrap(), Ok(0));
    is_asked_nothing(&mut vm).await;
}
