//! Which answer goes to whom, and what happens when it does not come.

use std::time::Duration;

use serde_json::{Value, json};

use crate::qemu::Command;
use crate::qmp::pending_commands::PendingCommands;
use crate::qmp::session::Limits;
use crate::qmp::{CommandError, Options, fake};

fn command(name: &str) -> Command {
    Command::new(name, json!({}))
}

#[tokio::test]
async fn runs_commands_in_all_ways() {
    let (_fake, connected) = fake::session(
        r#"
        -> query-status
        <- return {"status": "running", "running": true, "from-the-future": 1}
        -> query-status
        <- return {"status": "dancing"}
        -> human-monitor-command
        <- return "text\r\n"
        -> device_del
        <- error DeviceNotFound Device 'x' not found
        -> system_reset
        <- return null
        -> odd
        <- error Unheard of
        "#,
    )
    .await;
    let session = connected.session;
    let status = session.execute(qapi::qmp::query_status {}).await.unwrap();
    assert!(status.running);
    let unknown = session.execute(qapi::qmp::query_status {}).await;
    assert!(matches!(unknown, Err(CommandError::Decode { command, .. }) if command == "query-status"));
    assert_eq!(session.hmp("info usernet").await.unwrap(), "text\r\n");
    let refused = session.run(&Command::new("device_del", json!({"id": "x"}))).await.unwrap_err();
    assert!(refused.is_class("DeviceNotFound"));
    assert_eq!(refused.to_string(), "QEMU refused device_del: Device 'x' not found");
    assert_eq!(session.run(&command("system_reset")).await, Ok(json!(null)));
    assert!(session.submit_raw("odd", Some(json!([1]))).await.unwrap_err().is_class("Unheard"));
}

#[tokio::test]
async fn answers_out_of_order_twice_and_without_a_waiter() {
    let (_fake, connected) = fake::session(
        r#"
        -> a #a
        -> b #b
        -> c #c
        <- 77 return {"to": "nobody"}
        <- "text" return {}
        <- raw {"return": {}}
        <- raw {"error": {"class": "GenericError", "desc": "no id"}}
        <- raw {"something": "else"}
        <- greeting
        <- #c return 3
        <- #c return 4
        <- #a error GenericError one
        <- #b return 2
        "#,
    )
    .await;
    let session = connected.session;
    let mut pending = session.submit_all(&[command("a"), command("b"), command("c")]);
    assert_eq!(session.outstanding(), 3);
    assert_eq!(pending.remove(2).await, Ok(json!(3)));
    assert!(pending.remove(0).await.unwrap_err().is_class("GenericError"));
    assert_eq!(pending.remove(0).await, Ok(json!(2)));
    assert_eq!(session.outstanding(), 0);
}

#[test]
fn an_answer_goes_to_the_command_with_its_id() {
    let commands = PendingCommands::new(Limits::default());
    let submit = |count: usize| -> (Vec<u64>, Vec<_>) {
        let replies = commands.submit::<()>(&vec![("query-status", None); count], None);
        let bytes = commands.take_outgoing().unwrap().bytes;
        let lines = serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>();
        (lines.map(|command| command.unwrap()["id"].as_u64().unwrap()).collect(), replies)
    };
    let (first, mut first_reply) = submit(1);
    let (ids, mut replies) = submit(3);
    assert_eq!(ids, [first[0] + 1, first[0] + 2, first[0] + 3]);
    // of the client before this one: no id, and one that was never sent
    commands.answer(None, Ok(json!("stray")));
    commands.answer(Some(first[0].wrapping_sub(1)), Ok(json!("stray")));
    for (id, reply) in ids.iter().zip(&mut replies).rev() {
        commands.answer(Some(*id), Ok(json!(id)));
        assert_eq!(reply.try_recv().unwrap(), Ok(json!(id)));
        // an answer that comes twice has no waiter any more
        commands.answer(Some(*id), Ok(json!("again")));
    }
    assert!(first_reply[0].try_recv().is_err());
    assert_eq!(commands.outstanding(), 1);
    commands.answer(Some(first[0]), Ok(json!("at last")));
    assert_eq!(first_reply[0].try_recv().unwrap(), Ok(json!("at last")));
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_has_no_waiter() {
    let (fake, connected) =
        fake::session("-> slow #slow\n..\n<- #slow return 1\n-> quick\n<- return 2").await;
    let session = connected.session;
    let after = Duration::from_secs(30);
    let late = session.run(&command("slow")).await;
    assert_eq!(late, Err(CommandError::Timeout { command: "slow".into(), after }));
    assert_eq!(session.outstanding(), 1);
    fake.go();
    assert_eq!(session.run(&command("quick")).await, Ok(json!(2)));
    assert_eq!(session.outstanding(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_its_own_counts_from_submission() {
    let (_fake, connected) = fake::session("-> slow\n..").await;
    let pending = connected.session.submit_raw("slow", None);
    let start = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(matches!(pending.within(Duration::from_secs(5)).await, Err(CommandError::Timeout { .. })));
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test]
async fn a_cancelled_caller_harms_nobody() {
    let (fake, connected) =
        fake::session("-> first #first\n..\n-> second\n<- #first return 1\n<- return 2").await;
    let session = connected.session;
    let first = session.clone();
    let task = tokio::spawn(async move { first.run(&command("first")).await });
    tokio::task::yield_now().await;
    task.abort();
    let _ = task.await;
    fake.go();
    assert_eq!(session.run(&command("second")).await, Ok(json!(2)));
}

#[tokio::test]
async fn a_thousand_commands_in_one_go() {
    let names: Vec<String> = (0..1000).map(|number| format!("c{number}")).collect();
    let asks: String = names.iter().map(|name| format!("-> {name} #{name}\n")).collect();
    let answers: String = names
        .iter()
        .enumerate()
        .rev()
        .map(|(number, name)| format!("<- #{name} return {number}\n"))
        .collect();
    let (_fake, connected) = fake::session(&(asks + &answers)).await;
    let commands: Vec<Command> = names.iter().map(|name| command(name)).collect();
    for (number, pending) in connected.session.submit_all(&commands).into_iter().enumerate() {
        assert_eq!(pending.await, Ok(json!(number)));
    }
}

#[tokio::test]
async fn two_tasks_share_a_session() {
    let stream = fake::responder(|name, arguments| (Vec::new(), Ok(json!([name, arguments["n"]]))));
    let connected = crate::qmp::Session::connect(stream, Options::default()).await.unwrap();
    let task = |name: &'static str| {
        let session = connected.session.clone();
        tokio::spawn(async move {
            for n in 0..200 {
                assert_eq!(session.run(&Command::new(name, json!({"n": n}))).await, Ok(json!([name, n])));
            }
        })
    };
    let (left, right) = (task("left"), task("right"));
    left.await.unwrap();
    right.await.unwrap();
}

#[tokio::test]
async fn a_long_answer_and_a_long_command() {
    let text = "x".repeat(10 << 20);
    let (_fake, connected) = fake::session(&format!("-> *\n<- return \"{text}\"\n-> *\n<- return 1")).await;
    assert_eq!(connected.session.hmp("info").await.unwrap().len(), 10 << 20);
    let long = Command::new("long", json!({"text": "x".repeat(2_000_000)}));
    assert_eq!(connected.session.run(&long).await, Ok(json!(1)));
}

#[tokio::test]
async fn what_does_not_fit_is_not_sent_at_all() {
    let limits = Limits { command: 100, waiters: 3, queued_bytes: 250, ..Limits::default() };
    let options = Options { limits, ..Options::default() };
    let (_fake, connected) = fake::session_with("-> a\n..", options).await;
    let session = connected.session;
    let long = Command::new("long", json!({"text": "x".repeat(100)}));
    for pending in session.submit_all(&[command("a"), long]) {
        assert_eq!(pending.await, Err(CommandError::TooLong { command: "long".into(), limit: 100 }));
    }
    assert_eq!(session.outstanding(), 0);
    let fits = session.submit_all(&[command("a"), command("b"), command("c")]);
    assert_eq!(session.run(&command("d")).await, Err(CommandError::Busy));
    drop(fits);
    assert_eq!(session.outstanding(), 3, "QEMU still owes the answers");
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_does_not_read_stops_at_the_bound() {
    let (_fake, connected) = fake::session("..").await;
    let big = Command::new("big", json!({"text": "x".repeat(1 << 20)}));
    let mut answers = Vec::new();
    for _ in 0..40 {
        answers.push(connected.session.submit(&big));
        tokio::task::yield_now().await;
    }
    let mut busy = 0;
    for answer in answers {
        match answer.await {
            Err(CommandError::Busy) => busy += 1,
            Err(CommandError::Timeout { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!((34..=37).contains(&busy), "{busy}");
}
