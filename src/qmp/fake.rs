//! A fake monitor for tests: plays a script that reads as a dialogue. No sleeps: each side waits for the other.
//!
//! ```text
//! <- greeting                    sends QEMU 7.2's greeting
//! -> query-status                expects this command; `-> *` any
//! -> device_add #a               the same, remembered as `a`
//! <- return {"running": true}    answers the last command
//! <- #a error DeviceNotFound no  answers the one remembered as `a`
//! <- event STOP {"x": 1}
//! <- 99 return {}                answers with an id of your choice
//! <- raw ANYTHING                one line as it is
//! <~ {"ret                       bytes without a line end; `\xNN` is a byte
//! ..                             waits for one `Fake::go`
//! eof                            closes
//! ```
//! At its end the script keeps the connection open and unread until the other side closes it. After a mismatch the
//! connection is closed and `Fake::finished` panics with the dialogue so far.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::lines::Lines;
use super::session::{Connected, Options, Session};

/// QEMU 7.2's greeting.
pub(crate) const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian 1:7.2"}, "capabilities": ["oob"]}}"#;

/// The other side of the dialogue.
pub(crate) struct Fake {
    go: Arc<Semaphore>,
    play: JoinHandle<Result<Vec<Value>, String>>,
}

impl Fake {
    /// Lets the script pass one `..`.
    pub(crate) fn go(&self) {
        self.go.add_permits(1);
    }

    /// Waits for the end of the script (the connection must be closed, or the script end with `eof`) and gives the
    /// commands it saw.
    pub(crate) async fn finished(self) -> Vec<Value> {
        match self.play.await.expect("the script was played") {
            Ok(commands) => commands,
            Err(why) => panic!("{why}"),
        }
    }
}

/// Starts a script; gives the other end of its connection.
pub(crate) fn start(script: &str) -> (Fake, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let go = Arc::new(Semaphore::new(0));
    let (read, write) = ours.into_split();
    let player = Player {
        lines: Lines::new(read, 64 << 20),
        write: Some(write),
        go: go.clone(),
        ids: HashMap::new(),
        commands: Vec::new(),
    };
    let script: Vec<String> =
        script.lines().map(|line| line.trim().to_owned()).filter(|l| !l.is_empty()).collect();
    (Fake { go, play: tokio::spawn(player.play(script)) }, theirs)
}

/// Starts a script behind a session that is already negotiated.
pub(crate) async fn session(script: &str) -> (Fake, Connected) {
    session_with(script, Options::default()).await
}

/// The same with options.
pub(crate) async fn session_with(script: &str, options: Options) -> (Fake, Connected) {
    let (fake, stream) = start(&format!("<- greeting\n-> qmp_capabilities\n<- return {{}}\n{script}"));
    let connected = Session::connect(stream, options).await.expect("the fake negotiates");
    (fake, connected)
}

/// A monitor that answers every command by a function, e.g. for a whole VM: `Ok` is what it returns, `Err` the
/// description of a `GenericError`; the events are sent before the answer. Ends after `quit`.
pub(crate) fn responder<F>(mut answer: F) -> UnixStream
where
    F: FnMut(&str, &Value) -> (Vec<Value>, Result<Value, String>) + Send + 'static,
{
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    tokio::spawn(async move {
        let (read, mut write) = ours.into_split();
        let mut lines = Lines::new(read, 64 << 20);
        write.write_all(format!("{GREETING}\r\n").as_bytes()).await.ok()?;
        loop {
            let line = lines.next().await.ok()??;
            let command: Value = serde_json::from_slice(line).ok()?;
            let name = command["execute"].as_str().unwrap_or_default();
            let (events, result) = match name {
                "qmp_capabilities" => (Vec::new(), Ok(json!({}))),
                name => answer(name, &command["arguments"]),
            };
            let reply = match result {
                Ok(value) => json!({"return": value, "id": command["id"]}),
                Err(desc) => json!({"error": {"class": "GenericError", "desc": desc}, "id": command["id"]}),
            };
            for message in events.into_iter().chain([reply]) {
                write.write_all(format!("{message}\r\n").as_bytes()).await.ok()?;
            }
            if name == "quit" {
                return Some(());
            }
        }
    });
    theirs
}

struct Player {
    lines: Lines<OwnedReadHalf>,
    write: Option<OwnedWriteHalf>,
    go: Arc<Semaphore>,
    /// By label; `""` is the last command's.
    ids: HashMap<String, Value>,
    commands: Vec<Value>,
}

impl Player {
    async fn play(mut self, script: Vec<String>) -> Result<Vec<Value>, String> {
        for (number, step) in script.iter().enumerate() {
            let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
            let done = match verb {
                "->" => self.expect(rest).await,
                "<-" => self.send(format!("{}\r\n", self.message(rest)).as_bytes()).await,
                "<~" => self.send(&unescape(rest)).await,
                ".." => {
                    self.go.acquire().await.map(|permit| permit.forget()).map_err(|error| error.to_string())
                }
                "eof" => return Ok(self.commands),
                other => Err(format!("{other:?} is no step")),
            };
            done.map_err(|why| format!("{}\n^^ {why}", script[..=number].join("\n")))?;
        }
        // Until the other side goes away; what it still says does not matter.
        while let Ok(Some(_)) = self.lines.next().await {}
        Ok(self.commands)
    }

    async fn expect(&mut self, wanted: &str) -> Result<(), String> {
        let (name, label) = wanted.split_once(" #").unwrap_or((wanted, ""));
        let line =
            self.lines.next().await.map_err(|error| format!("{error:?}"))?.ok_or("the other side closed")?;
        let line = line.strip_prefix(b"\xff").unwrap_or(line);
        let command: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if name != "*" && command["execute"] != name {
            return Err(format!("but came {command}"));
        }
        for label in ["", label] {
            self.ids.insert(label.to_owned(), command["id"].clone());
        }
        self.ids.insert("sync".to_owned(), command["arguments"]["id"].clone());
        self.commands.push(command);
        Ok(())
    }

    fn message(&self, text: &str) -> String {
        let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
        let labelled = |label: &str| self.ids.get(label).cloned().unwrap_or(Value::Null);
        let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON in the script");
        match first {
            "greeting" => GREETING.to_owned(),
            "raw" => rest.to_owned(),
            "event" => {
                let (name, data) = rest.split_once(' ').unwrap_or((rest, "{}"));
                let timestamp = json!({"seconds": 1_700_000_000, "microseconds": 5});
                json!({"event": name, "data": json(data), "timestamp": timestamp}).to_string()
            }
            "return" | "error" => answer(text, labelled("")),
            label if label.starts_with('#') => answer(rest, labelled(&label[1..])),
            number => answer(rest, json(number)),
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let write = self.write.as_mut().ok_or("closed")?;
        write.write_all(bytes).await.map_err(|error| error.to_string())
    }
}

fn answer(text: &str, id: Value) -> String {
    let (kind, rest) = text.split_once(' ').unwrap_or((text, "{}"));
    let mut message = match kind {
        "return" => json!({"return": serde_json::from_str::<Value>(rest).expect("JSON in the script")}),
        "error" => {
            let (class, desc) = rest.split_once(' ').unwrap_or((rest, ""));
            json!({"error": {"class": class, "desc": desc}})
        }
        other => panic!("{other:?} is no answer"),
    };
    if !id.is_null() {
        message["id"] = id;
    }
    message.to_string()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        bytes.push(u8::from_str_radix(&after[..2], 16).expect("two hex digits"));
        rest = &after[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Writes bytes one at a time, letting others run in between.
pub(crate) async fn trickle(stream: &mut UnixStream, bytes: &[u8]) {
    for byte in bytes {
        stream.write_all(&[*byte]).await.expect("the other side reads");
        tokio::task::yield_now().await;
    }
}

/// What comes over a socket, and the descriptors beside it, as QEMU takes them; no bytes at its end.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<(Vec<u8>, Vec<File>)> {
    let mut bytes = vec![0; 64 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let length = recvmsg(socket, &mut parts, &mut beside, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let descriptors = beside.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.map(File::from).collect(),
        _ => Vec::new(),
    });
    let files = descriptors.collect();
    bytes.truncate(length);
    Ok((bytes, files))
}

/// Reads one line without looking further.
pub(crate) async fn read_line(stream: &mut UnixStream) -> Value {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(stream.read_u8().await.expect("a line"));
    }
    serde_json::from_slice(&line).expect("JSON")
}
