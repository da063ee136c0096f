//! Descriptors that travel beside commands.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::qemu::Command;
use crate::qmp::fake::GREETING;
use crate::qmp::{Options, Session};

/// Plays QEMU: gives each command's name, and what can be read from the descriptor that came with it.
fn qemu(mut socket: StdStream) -> Vec<(String, Option<String>)> {
    writeln!(socket, "{GREETING}").unwrap();
    let mut seen = Vec::new();
    loop {
        let mut bytes = vec![0; 4096];
        let mut space = nix::cmsg_space!([i32; 4]);
        let (length, descriptors) = {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let message =
                recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()).unwrap();
            let descriptors = message.cmsgs().unwrap().flat_map(|beside| match beside {
                ControlMessageOwned::ScmRights(descriptors) => descriptors,
                _ => Vec::new(),
            });
            (message.bytes, descriptors.collect::<Vec<_>>())
        };
        if length == 0 {
            return seen;
        }
        assert!(descriptors.len() < 2, "QEMU takes one at a time");
        let mut text = descriptors.first().map(|descriptor| {
            let mut text = String::new();
            own(*descriptor).read_to_string(&mut text).unwrap();
            text
        });
        for line in bytes[..length].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let command: Value = serde_json::from_slice(line).unwrap();
            let name = command["execute"].as_str().unwrap();
            let text = if name == "getfd" { text.take() } else { None };
            seen.push((name.to_owned(), text));
            writeln!(socket, "{}", json!({ "return": {}, "id": command["id"] })).unwrap();
        }
    }
}

#[allow(unsafe_code)]
fn own(descriptor: i32) -> File {
    // SAFETY: just received, and nobody else's
    File::from(unsafe { OwnedFd::from_raw_fd(descriptor) })
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
