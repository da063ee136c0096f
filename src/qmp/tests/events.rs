//! Events: known, unknown, too many.

use std::time::Duration;

use qapi::qmp::ShutdownCause;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::qmp::session::Limits;
use crate::qmp::{Delivery, Event, Options, Session, View, fake};

fn event(delivery: Option<Delivery>) -> Event {
    match delivery {
        Some(Delivery::Event(event)) => event,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn come_in_order_between_replies_and_in_pieces() {
    let (_fake, mut connected) = fake::session(
        r#"
        -> quit
        <- event FROM_THE_FUTURE {"x": [1, {"y": null}]}
        <~ {"event": "SHUT
        <- raw DOWN", "data": {"guest": false, "reason": "host-qmp-quit"}, "new": {}}
        <- return {}
        eof
        "#,
    )
    .await;
    connected.session.submit_raw("quit", None).await.unwrap();
    let first = event(connected.events.next().await);
    assert_eq!((first.name.as_str(), &first.view), ("FROM_THE_FUTURE", &View::Other));
    assert_eq!(first.data["x"][0], json!(1));
    assert_eq!(first.timestamp.seconds, 1_700_000_000);
    let second = event(connected.events.next().await);
    assert_eq!(second.view, View::Shutdown { guest: false, reason: Some(ShutdownCause::host_qmp_quit) });
    assert_eq!(connected.events.next().await, None);
    assert_eq!(connected.events.next().await, None);
}

/// 100,000 events at once, then a reply.
async fn flood(limits: Limits) -> (u64, u64) {
    const EVENTS: u64 = 100_000;
    let (mut theirs, ours) = tokio::net::UnixStream::pair().unwrap();
    let monitor = tokio::spawn(async move {
        theirs.write_all(format!("{}\r\n", fake::GREETING).as_bytes()).await.unwrap();
        for _ in 0..2 {
            let id = fake::read_line(&mut theirs).await["id"].clone();
            theirs.write_all(format!("{{\"return\": {{}}, \"id\": {id}}}\r\n").as_bytes()).await.unwrap();
            let lines: String = (0..EVENTS / 2)
                .map(|n| format!("{{\"event\": \"E\", \"data\": {{\"n\": {n}}}}}\r\n"))
                .collect();
            theirs.write_all(lines.as_bytes()).await.unwrap();
        }
    });
    let options = Options { limits, ..Options::default() };
    let mut connected = Session::connect(ours, options).await.unwrap();
    // Nobody takes events, and the answer comes all the same.
    connected.session.submit_raw("stop", None).within(Duration::from_secs(60)).await.unwrap();
    monitor.await.unwrap();
    connected.session.closed().await;
    let (mut seen, mut lost) = (0, 0);
    while let Some(delivery) = connected.events.next().await {
        match delivery {
            Delivery::Event(_) => seen += 1,
            Delivery::Lost(count) => lost += count,
        }
    }
    assert_eq!(seen + lost, EVENTS);
    (seen, lost)
}

#[tokio::test]
async fn a_flood_is_counted_to_the_last_event() {
    let (seen, _) = flood(Limits::default()).await;
    assert_eq!(seen, 64 << 10);
    let (seen, lost) = flood(Limits { events: 10, ..Limits::default() }).await;
    assert_eq!((seen, lost), (10, 99_990));
}

#[tokio::test]
async fn nobody_listens() {
    let (_fake, connected) = fake::session("<- event STOP\n<- event RESUME\n-> stop\n<- return {}").await;
    drop(connected.events);
    connected.session.submit_raw("stop", None).await.unwrap();
}
