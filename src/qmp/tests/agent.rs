//! The guest agent, played by hand: a script cannot return the numbers of its `guest-sync-delimited`.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::qemu::Command;
use crate::qmp::{Agent, AgentError, fake};

fn pair() -> (Agent, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Agent::new(ours), theirs)
}

fn command(name: &str) -> Command {
    Command::new(name, json!({}))
}

/// Reads a command as qemu-ga would: 0xFF and what is before it do not count.
async fn read(stream: &mut UnixStream) -> Value {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        use tokio::io::AsyncReadExt;
        line.push(stream.read_u8().await.unwrap());
    }
    let start = line.iter().rposition(|&byte| byte == 0xff).map_or(0, |at| at + 1);
    serde_json::from_slice(&line[start..]).unwrap()
}

/// Answers every sync until another command comes.
async fn next_command(stream: &mut UnixStream) -> Value {
    loop {
        let command = read(stream).await;
        if command["execute"] != "guest-sync-delimited" {
            return command;
        }
        answer(stream, &command).await;
    }
}

async fn answer_sync(stream: &mut UnixStream) {
    let sync = read(stream).await;
    assert_eq!(sync["execute"], "guest-sync-delimited");
    answer(stream, &sync).await;
}

async fn answer(stream: &mut UnixStream, sync: &Value) {
    let reply = [b"\xff", format!("{{\"return\": {}}}\n", sync["arguments"]["id"]).as_bytes()].concat();
    stream.write_all(&reply).await.unwrap();
}

async fn say(stream: &mut UnixStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn syncs_once_and_runs() {
    let (mut agent, mut guest) = pair();
    let guest = tokio::spawn(async move {
        say(&mut guest, "half an old ans").await;
        answer_sync(&mut guest).await;
        assert_eq!(read(&mut guest).await["execute"], "guest-ping");
        say(&mut guest, "{\"return\": {}}\n").await;
        assert_eq!(read(&mut guest).await["execute"], "guest-nothing");
        say(&mut guest, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no\"}}\n").await;
        read(&mut guest).await;
        say(&mut guest, "rubbish\n").await;
        answer_sync(&mut guest).await;
        read(&mut guest).await;
    });
    agent.run(&Command::of(&qapi::qga::guest_ping {})).await.unwrap();
    let refused = agent.run(&command("guest-nothing")).await.unwrap_err();
    assert_eq!(refused.to_string(), "the guest agent refused guest-nothing: no");
    assert!(matches!(agent.run(&command("x")).await, Err(AgentError::Decode { .. })));
    assert!(matches!(agent.run(&command("y")).await, Err(AgentError::Disconnected)));
    guest.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_late_answers_all_that_it_was_asked() {
    let (mut agent, mut guest) = pair();
    assert!(matches!(agent.sync(Duration::from_secs(10)).await, Err(AgentError::Timeout { .. })));
    let guest = tokio::spawn(async move {
        // At 0, 1, 3 and 7 s, and once more for the second call.
        for _ in 0..5 {
            answer_sync(&mut guest).await;
        }
        assert_eq!(read(&mut guest).await["execute"], "guest-ping");
        say(&mut guest, "{\"return\": 5}\n").await;
    });
    assert_eq!(agent.run(&command("guest-ping")).await.unwrap(), json!(5));
    guest.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_is_not_taken_for_another() {
    let (mut agent, mut guest) = pair();
    let guest = tokio::spawn(async move {
        answer_sync(&mut guest).await;
        read(&mut guest).await;
        tokio::time::sleep(Duration::from_secs(31)).await;
        say(&mut guest, "{\"return\": \"late\"}\n\u{7f}{\n").await;
        next_command(&mut guest).await;
        say(&mut guest, "{\"return\": \"mine\"}\n").await;
    });
    assert!(matches!(agent.run(&command("slow")).await, Err(AgentError::Timeout { .. })));
    assert_eq!(agent.run(&command("quick")).await.unwrap(), json!("mine"));
    guest.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_command_cancelled_while_being_written_is_washed_away() {
    let (mut agent, mut guest) = pair();
    let reader = tokio::spawn(async move {
        answer_sync(&mut guest).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        answer_sync(&mut guest).await;
        read(&mut guest).await;
        say(&mut guest, "{\"return\": 2}\n").await;
    });
    let long = Command::new("guest-file-write", json!({"buf-b64": "x".repeat(4 << 20)}));
    let cancelled = tokio::time::timeout(Duration::from_secs(1), agent.run(&long)).await;
    assert!(cancelled.is_err());
    assert_eq!(agent.run_within(&command("b"), Duration::from_secs(90)).await.unwrap(), json!(2));
    reader.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_has_no_answer() {
    let (mut agent, mut guest) = pair();
    let guest = tokio::spawn(async move {
        answer_sync(&mut guest).await;
        read(&mut guest).await;
        say(&mut guest, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"busy\"}}\n").await;
        read(&mut guest).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        next_command(&mut guest).await;
    });
    let (shutdown, grace) = (command("guest-shutdown"), Duration::from_secs(2));
    assert!(matches!(agent.tell(&shutdown, grace).await, Err(AgentError::Refused { .. })));
    agent.tell(&shutdown, grace).await.unwrap();
    agent.tell(&shutdown, Duration::from_secs(60)).await.unwrap();
    guest.await.unwrap();
    assert!(matches!(agent.tell(&shutdown, grace).await, Err(AgentError::Disconnected)));
}

#[tokio::test]
async fn a_guest_that_floods_meets_the_bound_and_the_deadline() {
    let (mut agent, mut guest) = pair();
    let flood = tokio::spawn(async move {
        answer_sync(&mut guest).await;
        read(&mut guest).await;
        while guest.write_all(&[b'x'; 1 << 16]).await.is_ok() {}
    });
    let endless = agent.run(&command("guest-exec-status")).await;
    assert!(matches!(endless, Err(AgentError::TooLong { limit: super::super::agent::LONGEST_ANSWER })));
    let short = Duration::from_millis(10);
    assert!(matches!(agent.sync(short).await, Err(AgentError::Timeout { .. })));
    drop(agent);
    flood.await.unwrap();
}

#[tokio::test]
async fn the_fake_reads_a_sync_too() {
    let (fake, stream) = fake::start("-> guest-sync-delimited\neof");
    let mut agent = Agent::new(stream);
    assert!(matches!(agent.run(&command("guest-ping")).await, Err(AgentError::Disconnected)));
    assert!(fake.finished().await[0]["arguments"]["id"].is_u64());
}
