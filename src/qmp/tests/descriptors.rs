//! Descriptors that go with a command, over a real socket.

use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdStream;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::qemu::Command;
use crate::qmp::fake::GREETING;
use crate::qmp::{Options, Session};

/// Reads as QEMU's monitor does, a byte at a time; each line with the descriptors that came with it.
fn lines(monitor: &StdStream, count: usize) -> Vec<(Value, Vec<RawFd>)> {
    let mut found = Vec::new();
    let (mut line, mut descriptors) = (Vec::new(), Vec::new());
    while found.len() < count {
        let mut byte = [0; 1];
        let mut data = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!([RawFd; 4]);
        let message =
            recvmsg::<()>(monitor.as_raw_fd(), &mut data, Some(&mut space), MsgFlags::empty()).unwrap();
        for part in message.cmsgs().unwrap() {
            let ControlMessageOwned::ScmRights(rights) = part else { panic!("{part:?}") };
            descriptors.extend(rights);
        }
        match byte {
            [b'\n'] => {
                let value = serde_json::from_slice(&line).unwrap();
                found.push((value, std::mem::take(&mut descriptors)));
                line.clear();
            }
            [byte] => line.push(byte),
        }
    }
    found
}

fn answer(mut monitor: &StdStream, id: &Value) {
    writeln!(monitor, "{}", json!({ "return": {}, "id": id })).unwrap();
}

#[tokio::test]
async fn a_descriptor_comes_with_its_own_command_only() {
    let (ours, monitor) = StdStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let play = tokio::task::spawn_blocking(move || {
        writeln!(&monitor, "{GREETING}").unwrap();
        answer(&monitor, &lines(&monitor, 1)[0].0["id"]);
        let all = lines(&monitor, 3);
        let names: Vec<_> =
            all.iter().map(|(line, rights)| (line["execute"].clone(), rights.len())).collect();
        assert_eq!(names, [(json!("before"), 0), (json!("getfd"), 1), (json!("after"), 0)]);
        // what came is the open file itself
        let mut text = String::new();
        let received = crate::host::sys::received(all[1].1[0]).unwrap();
        std::fs::File::from(received).read_to_string(&mut text).unwrap();
        assert_eq!(text, "the tap device");
        all.iter().for_each(|(line, _)| answer(&monitor, &line["id"]));
        // the next descriptor waits for the answer to the one before it
        let first = lines(&monitor, 1).remove(0).0;
        assert_eq!(first["arguments"]["fdname"], "one");
        answer(&monitor, &first["id"]);
        let second = lines(&monitor, 1).remove(0);
        assert_eq!((&second.0["arguments"]["fdname"], second.1.len()), (&json!("two"), 1));
        answer(&monitor, &second.0["id"]);
    });
    let connected = Session::connect(UnixStream::from_std(ours).unwrap(), Options::default()).await.unwrap();
    let session = connected.session;
    let file = || -> OwnedFd {
        let (read, mut write) = std::io::pipe().unwrap();
        write.write_all(b"the tap device").unwrap();
        read.into()
    };
    let get = |name: &str| Command::new("getfd", json!({ "fdname": name }));
    let plain = |name: &str| Command::new(name, Value::Null);
    let before = session.submit(&plain("before"));
    let with = async { session.run_with(&get("tap"), file()).await };
    let after = async { session.submit(&plain("after")).await };
    let (before, with, after) = tokio::join!(before, with, after);
    for answer in [before, with, after] {
        answer.unwrap();
    }
    let (one, two) = (get("one"), get("two"));
    let (one, two) = tokio::join!(session.run_with(&one, file()), session.run_with(&two, file()));
    for answer in [one, two] {
        answer.unwrap();
    }
    play.await.unwrap();
}
