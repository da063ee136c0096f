//! The fuzzer's entry to what is private here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;

use super::agent::Agent;
use super::lines::{LineError, Lines};
use super::message::Message;
use super::qtree::Tree;
use crate::qemu::Command;

/// Gives its bytes in pieces.
struct Pieces<'a> {
    bytes: &'a [u8],
    size: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (now, later) = this.bytes.split_at(this.size.min(this.bytes.len()).min(buffer.remaining()));
        buffer.put_slice(now);
        this.bytes = later;
        Poll::Ready(Ok(()))
    }
}

#[derive(Debug, PartialEq)]
enum Line {
    Whole(Vec<u8>),
    TooLong,
    CutOff,
}

/// However they come in, and whatever the limit: the same lines.
pub(crate) fn lines(bytes: &[u8]) {
    let [size, limit, bytes @ ..] = bytes else { return };
    let (size, limit) = (usize::from(*size).max(1), usize::from(*limit));
    let mut lines = Lines::new(Pieces { bytes, size }, limit);
    let mut found = Vec::new();
    loop {
        let next = lines.next().now_or_never().expect("the bytes are there");
        found.push(match next {
            Ok(Some(line)) => Line::Whole(line.to_owned()),
            Ok(None) => break,
            Err(LineError::TooLong) => Line::TooLong,
            Err(LineError::CutOff) => Line::CutOff,
            Err(LineError::Io(error)) => panic!("{error}"),
        });
    }
    let (whole, last) = match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => (bytes[..end].split(|byte| *byte == b'\n').collect(), &bytes[end + 1..]),
        None => (Vec::new(), bytes),
    };
    let mut expected: Vec<Line> = whole
        .into_iter()
        .map(
            |line| if line.len() > limit { Line::TooLong } else { Line::Whole(line.trim_ascii().to_owned()) },
        )
        .collect();
    if !last.is_empty() {
        expected.extend((last.len() > limit).then_some(Line::TooLong));
        expected.push(Line::CutOff);
    }
    assert_eq!(found, expected);
}

pub(crate) fn message(bytes: &[u8]) {
    if let Some(Message::Event(event)) = Message::parse(bytes.trim_ascii()) {
        let _ = (event.view, event.timestamp.time());
    }
}

pub(crate) fn hmp(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let networks = super::hmp::user_networks(&text);
    for line in super::hmp::usernet(&text) {
        assert!(line.netdev.is_empty() || networks.contains(&line.netdev.as_str()));
    }
    for line in super::hmp::network(&text) {
        line.option("ifname");
    }
    super::hmp::usb_ports(&text);
    for error in [super::hmp::hostfwd_added(&text).err(), super::hmp::hostfwd_removed(&text).err()] {
        drop(error.map(|error| error.to_string()));
    }
}

pub(crate) fn qtree(bytes: &[u8]) {
    let tree = Tree::parse(&String::from_utf8_lossy(bytes));
    for dev in 0..tree.devices.len() {
        assert!(tree.bus_of(dev).is_some());
        // up to the root: never in a circle
        let mut steps = 0;
        let mut at = Some(dev);
        while let Some(dev) = at {
            at = tree.parent(dev);
            steps += 1;
            assert!(steps <= tree.devices.len());
        }
    }
}

/// Once the agent is in step with us, it says what it wants, and leaves.
pub(crate) fn agent(bytes: &[u8]) {
    let [before, bytes @ ..] = bytes else { return };
    let (before, after) = bytes.split_at(usize::from(*before).min(bytes.len()));
    let (before, after) = (before.to_owned(), after.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let guest = tokio::spawn(pose(theirs, before, after));
        let mut agent = Agent::new(ours);
        let command = Command::new("guest-exec-status", json!({ "pid": 1 }));
        for _ in 0..3 {
            let answered = agent.run_within(&command, Duration::from_secs(5)).await;
            drop(answered.map_err(|error| error.to_string()));
        }
        drop(agent);
        guest.await.expect("the guest does not fail");
    });
}

/// Gives the number that is asked for back once, between the bytes.
async fn pose(stream: UnixStream, before: Vec<u8>, after: Vec<u8>) {
    let (read, mut write) = stream.into_split();
    let mut asked = Lines::new(read, 1 << 16);
    let number = match asked.next().await {
        Ok(Some(line)) => {
            let start = line.iter().position(|byte| *byte == b'{').unwrap_or_default();
            let asked: Value = serde_json::from_slice(&line[start..]).expect("vmrun writes JSON");
            asked["arguments"]["id"].clone()
        }
        _ => return,
    };
    let answer = format!("{}\n", json!({ "return": number }));
    // the other side may have given up
    let _ = write.write_all(&[&before[..], b"\xff", answer.as_bytes(), &after[..]].concat()).await;
}
