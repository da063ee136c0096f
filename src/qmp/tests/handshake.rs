//! From connect to the first command, and every way a session ends.

use std::time::Duration;

use crate::qmp::fake::{self, GREETING};
use crate::qmp::session::Limits;
use crate::qmp::{CommandError, Delivery, Options, Session, SessionError, Transcript};

async fn refused(script: &str) -> SessionError {
    let (_fake, stream) = fake::start(script);
    Session::connect(stream, Options::default()).await.expect_err("no session")
}

#[tokio::test]
async fn negotiates_without_out_of_band() {
    let (fake, connected) = fake::session("").await;
    assert_eq!(connected.greeting.version, (7, 2, 22));
    drop((connected.session, connected.events));
    let commands = fake.finished().await;
    assert_eq!(commands.len(), 1);
    assert!(commands[0].get("arguments").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_greeting_that_never_comes() {
    assert!(matches!(refused("..").await, SessionError::NoGreeting { after } if after.as_secs() == 10));
    let halfway = refused("<- event STOP {}\n<~ {\"QMP\": \n..").await;
    assert!(matches!(halfway, SessionError::NoGreeting { .. }));
}

#[tokio::test(start_paused = true)]
async fn negotiation_that_fails() {
    let why = refused("<- greeting\n-> qmp_capabilities\n<- error CommandNotFound not now").await;
    assert!(matches!(why, SessionError::Negotiation { why } if why == "not now"));
    let why = refused("<- greeting\n-> qmp_capabilities\n..").await;
    assert!(matches!(why, SessionError::Negotiation { .. }));
}

#[tokio::test]
async fn ends_before_there_is_a_session() {
    assert!(matches!(refused("eof").await, SessionError::Ended));
    assert!(matches!(refused("<~ {\"QMP\neof").await, SessionError::CutOff));
    assert!(matches!(refused("<- greeting\neof").await, SessionError::Ended));
    assert!(matches!(refused("<- greeting\n-> qmp_capabilities\neof").await, SessionError::Ended));
    assert!(
        matches!(refused("<- raw SSH-2.0-OpenSSH").await, SessionError::Garbage { excerpt } if excerpt == "SSH-2.0-OpenSSH")
    );
}

#[tokio::test]
async fn the_greeting_may_come_byte_by_byte_after_events() {
    let (mut theirs, ours) = tokio::net::UnixStream::pair().unwrap();
    let connecting = tokio::spawn(Session::connect(ours, Options::default()));
    fake::trickle(&mut theirs, b"\r\n{\"event\": \"RESUME\"}\r\n").await;
    fake::trickle(&mut theirs, format!("{GREETING}\r\n").as_bytes()).await;
    let negotiation = fake::read_line(&mut theirs).await;
    let reply = format!("{{\"return\": {{}}, \"id\": {}}}\n", negotiation["id"]);
    fake::trickle(&mut theirs, reply.as_bytes()).await;
    let mut connected = connecting.await.unwrap().unwrap();
    let Some(Delivery::Event(event)) = connected.events.next().await else { panic!("an event") };
    assert_eq!(event.name, "RESUME");
    assert_eq!(event.timestamp.time(), None);
}

/// Every waiter hears of the end, the event receiver knows why, and later commands fail at once.
async fn end_of(script: &str, limits: Limits) -> SessionError {
    let options = Options { limits, ..Options::default() };
    let (_fake, mut connected) = fake::session_with(&format!("-> stop\n-> cont\n{script}"), options).await;
    let session = connected.session;
    let (stop, cont) = (session.submit_raw("stop", None), session.submit_raw("cont", None));
    assert_eq!(stop.await, Err(CommandError::Disconnected));
    assert_eq!(cont.await, Err(CommandError::Disconnected));
    session.closed().await;
    while connected.events.next().await.is_some() {}
    assert_eq!(session.submit_raw("stop", None).await, Err(CommandError::Disconnected));
    assert_eq!(session.outstanding(), 0);
    assert_eq!(connected.events.end().unwrap().to_string(), session.end().unwrap().to_string());
    session.end().unwrap()
}

#[tokio::test]
async fn ends_of_a_session() {
    let usual = Limits::default;
    assert!(matches!(end_of("eof", usual()).await, SessionError::Ended));
    assert!(matches!(end_of("<~ {\"return\neof", usual()).await, SessionError::CutOff));
    assert!(matches!(end_of("<- event STOP\neof", usual()).await, SessionError::Ended));
    for garbage in ["\\xff\\xfe", "[{\"return\": 1}]", "{\"return\": ", "{} {}", "null"] {
        let why = end_of(&format!("<~ {garbage}\n<- raw"), usual()).await;
        assert!(matches!(why, SessionError::Garbage { .. }), "{garbage}: {why}");
    }
    let long = "x".repeat(5000);
    let why = end_of(&format!("<- event {long}"), Limits { line: 4096, ..usual() }).await;
    assert!(matches!(why, SessionError::TooLong { limit: 4096 }));
    let why = end_of(&format!("<~ {long}"), Limits { line: 4096, ..usual() }).await;
    assert!(matches!(why, SessionError::TooLong { limit: 4096 }));
}

#[tokio::test]
async fn closes_when_the_last_handle_goes_and_when_asked() {
    let (fake, connected) = fake::session("-> stop\n<- return {}").await;
    let pending = connected.session.submit_raw("stop", None);
    drop(connected.session);
    assert!(pending.await.is_ok(), "who waits keeps the session");
    fake.finished().await;

    let (fake, mut connected) = fake::session("").await;
    connected.session.close();
    connected.session.closed().await;
    assert!(matches!(connected.session.end(), Some(SessionError::HungUp)));
    assert_eq!(connected.events.next().await, None);
    fake.finished().await;
}

#[tokio::test]
async fn a_transcript_has_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("transcript");
    let options = Options { transcript: Some(Transcript::file(&path).unwrap()), ..Options::default() };
    let (_fake, connected) = fake::session_with("-> stop\n<- event STOP\n<- return {}", options).await;
    connected.session.submit_raw("stop", None).within(Duration::MAX).await.unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let directions: Vec<bool> = text.lines().map(|line| line.contains("\"dir\":\"out\"")).collect();
    assert_eq!(directions, [false, true, false, true, false, false], "{text}");
}
