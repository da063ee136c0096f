//! Descriptors that travel beside commands.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;

use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::qemu::Command;
use crate::qmp::fake::{self, GREETING};
use crate::qmp::{Options, Session};

/// Plays QEMU: gives each command's name, and what can be read from the descriptor that came with it.
fn qemu(mut socket: StdStream) -> Vec<(String, Option<String>)> {
    writeln!(socket, "{GREETING}").unwrap();
    let mut seen = Vec::new();
    loop {
        let (bytes, mut descriptors) = fake::receive(&socket).unwrap();
        if bytes.is_empty() {
            return seen;
        }
        assert!(descriptors.len() < 2, "QEMU takes one at a time");
        let mut text = descriptors.first_mut().map(|descriptor| {
            let mut text = String::new();
            descriptor.read_to_string(&mut text).unwrap();
            text
        });
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let command: Value = serde_json::from_slice(line).unwrap();
            let name = command["execute"].as_str().unwrap();
            let text = if name == "getfd" { text.take() } else { None };
            seen.push((name.to_owned(), text));
            writeln!(socket, "{}", json!({ "return": {}, "id": command["id"] })).unwrap();
        }
    }
}

fn text(text: &str) -> OwnedFd {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(text.as_bytes()).unwrap();
    reader.into()
}

#[tokio::test]
async fn each_descriptor_goes_with_its_own_command() {
    let (ours, theirs) = StdStream::pair().unwrap();
    let played = tokio::task::spawn_blocking(move || qemu(theirs));
    ours.set_nonblocking(true).unwrap();
    let connected = Session::connect(UnixStream::from_std(ours).unwrap(), Options::default()).await.unwrap();
    let session = &connected.session;
    let stop = Command::new("stop", Value::Null);
    let queued = [
        session.submit(&stop),
        session.pass("a", text("first")),
        session.pass("b", text("second")),
        session.submit(&stop),
        session.submit(&stop),
    ];
    for answer in queued {
        answer.await.unwrap();
    }
    drop(connected);
    let seen = played.await.unwrap();
    let seen: Vec<_> = seen.iter().map(|(name, text)| (name.as_str(), text.as_deref())).collect();
    let (first, second) = (("getfd", Some("first")), ("getfd", Some("second")));
    let (negotiated, stop) = (("qmp_capabilities", None), ("stop", None));
    assert_eq!(seen, [negotiated, stop, first, second, stop, stop]);
}

#[tokio::test]
async fn a_descriptor_that_is_not_sent_is_closed() {
    let (ours, theirs) = StdStream::pair().unwrap();
    let played = tokio::task::spawn_blocking(move || qemu(theirs));
    ours.set_nonblocking(true).unwrap();
    let connected = Session::connect(UnixStream::from_std(ours).unwrap(), Options::default()).await.unwrap();
    connected.session.close();
    let (mut reader, writer) = std::io::pipe().unwrap();
    connected.session.pass("late", writer.into()).await.unwrap_err();
    let mut nothing = Vec::new();
    assert_eq!(reader.read_to_end(&mut nothing).unwrap(), 0);
    drop(connected);
    assert_eq!(played.await.unwrap().len(), 1);
}
