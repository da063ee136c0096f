//! A QEMU that is a few maps behind a real monitor socket. It keeps QEMU's order (commands one after the other, events
//! before or after the reply as QEMU 7.2 sends them) and refuses what QEMU refuses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, watch};

use crate::qmp::fake::receive;

use super::fake_keeping::Keeping;

/// What the guest does when it is asked to release a PCI device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Guest {
    /// Releases it at once.
    #[default]
    Obeys,
    /// DEVICE_UNPLUG_GUEST_ERROR.
    Refuses,
    /// Nothing, until `FakeQemu::release`.
    Ignores,
}

/// What goes wrong with the next command of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// QEMU answers with this error.
    Refuse(&'static str),
    /// The human monitor prints this and does nothing.
    Say(&'static str),
    /// QEMU is gone before it has looked at the command.
    HangUp,
    /// QEMU has carried it out and is gone before it answers.
    HangUpAfter,
    /// QEMU stands still before it, as after SIGSTOP, until `FakeQemu::freeze(false)`.
    Stall,
    /// QEMU begins what was asked for, a job or a stream, and breaks off with these words.
    Break(&'static str),
    /// QEMU carries it out, but its answer is none.
    Spoil(Corruption),
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Corruption {
    /// Half of it comes, and then QEMU is gone.
    Half,
    /// What comes is no message.
    Garbage,
    /// What comes has more bytes than any message, and no end.
    Long,
    /// It comes byte by byte, one a second.
    Slow,
}

/// A plugged device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plugged {
    pub(super) driver: String,
    pub(super) bus: String,
    pub(super) drive: Option<String>,
    pub(super) netdev: Option<String>,
    pub(super) link_down: bool,
}

/// What QEMU holds.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// The guest's processors run.
    pub(super) running: bool,
    pub(super) nodes: BTreeMap<String, Option<String>>,
    /// How the nodes were added that were not there from the start.
    pub(super) images: BTreeMap<String, Value>,
    /// The files of the host that it has open, by their nodes.
    pub(super) open: BTreeMap<String, File>,
    /// What it opens instead of the given file.
    pub(super) swapped: Option<std::path::PathBuf>,
    pub(super) devices: BTreeMap<String, Plugged>,
    /// Network back-ends by id, with their type.
    pub(super) netdevs: BTreeMap<String, String>,
    /// Drives with limits, as `block_set_io_throttle` got them.
    pub(super) limits: BTreeMap<String, Value>,
    /// Host side (`tcp:127.0.0.1:80`) → back-end and guest port.
    pub(super) forwards: BTreeMap<String, (String, u16)>,
    pub(super) guest: Guest,
    pub(super) faults: VecDeque<(&'static str, Fault)>,
    /// What goes wrong after so many more commands, whatever it is.
    pub(super) later: Option<(usize, Fault)>,
    pub(super) seen: Vec<String>,
    /// Commands that were refused although no fault was planned.
    pub(super) refused: Vec<String>,
    pub(super) gone: bool,
    pub(super) corruption: Option<Corruption>,
    /// Descriptors that came beside commands.
    pub(super) came: VecDeque<File>,
    pub(super) kept: Keeping,
    pub(super) unplugging: BTreeSet<String>,
    /// The guest leaves what is plugged alone, as without hot-plug.
    pub(super) takes_nothing: bool,
    /// So many requests to unplug are refused, as while the power indicator of a slot blinks.
    pub(super) busy_slots: u32,
    pub(super) next_port: u16,
}

/// The handle of a test on its QEMU.
#[derive(Clone)]
pub(super) struct FakeQemu {
    model: Arc<Mutex<Model>>,
    /// What it writes besides its answers.
    says: mpsc::UnboundedSender<Vec<u8>>,
    frozen: Arc<watch::Sender<bool>>,
}

pub(super) type Answer = Result<Value, String>;

/// The commands, each with the descriptor that came with it.
struct Commands {
    read: OwnedReadHalf,
    buffer: Vec<u8>,
    came: VecDeque<File>,
}

impl Commands {
    /// The next one; none when the other side has closed. Cancellation-safe.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let socket: &UnixStream = self.read.as_ref();
            let (bytes, files) = socket.async_io(Interest::READABLE, || receive(socket)).await.ok()?;
            if bytes.is_empty() {
                return None;
            }
            self.buffer.extend(bytes);
            self.came.extend(files);
        }
    }
}

impl FakeQemu {
    /// Starts it; the other end of its monitor.
    pub(super) fn start() -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (says, said) = mpsc::unbounded_channel();
        let fake = Self {
            model: Arc::new(Mutex::new(Model { next_port: 40_000, running: true, ..Model::default() })),
            says,
            frozen: Arc::new(watch::Sender::new(false)),
        };
        tokio::spawn(fake.clone().serve(ours, said));
        (fake, theirs)
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    /// Plans a fault for the next command of this name.
    pub(super) fn fault(&self, command: &'static str, fault: Fault) {
        self.model().faults.push_back((command, fault));
    }

    /// As SIGSTOP and SIGCONT do: commands wait.
    pub(super) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    pub(super) fn is_frozen(&self) -> bool {
        *self.frozen.borrow()
    }

    /// An event out of the blue.
    pub(super) fn event(&self, name: &str, data: Value) {
        self.say(line(&event(name, data)));
    }

    /// Whatever you like.
    pub(super) fn say(&self, bytes: Vec<u8>) {
        let _ = self.says.send(bytes);
    }

    /// Its process ends, and the monitor with it.
    pub(super) fn hang_up(&self) {
        self.model().close_all();
        self.event("STOP", json!({}));
    }

    /// The guest releases what it was asked for.
    pub(super) fn release(&self, id: &str) {
        let mut events = Vec::new();
        self.model().delete(id, &mut events);
        events.iter().for_each(|event| self.say(line(event)));
    }

    /// The same, but the event of it is longer than any that is kept.
    pub(super) fn release_unheard(&self, id: &str) {
        let mut events = Vec::new();
        self.model().delete(id, &mut events);
        for mut event in events {
            event["data"]["padding"] = json!("x".repeat(100_000));
            self.say(line(&event));
        }
    }

    /// A stream that was held is written to its end.
    pub(super) fn end_stream(&self) {
        let mut events = Vec::new();
        self.model().end_stream(&mut events);
        events.iter().for_each(|event| self.say(line(event)));
    }

    /// The names of the commands it saw, those of the start left out.
    pub(super) fn seen(&self) -> Vec<String> {
        self.model().seen.clone()
    }

    async fn serve(self, stream: UnixStream, mut said: mpsc::UnboundedReceiver<Vec<u8>>) -> Option<()> {
        let (read, mut write) = stream.into_split();
        let mut commands = Commands { read, buffer: Vec::new(), came: VecDeque::new() };
        let mut frozen = self.frozen.subscribe();
        write.write_all(format!("{}\r\n", crate::qmp::fake::GREETING).as_bytes()).await.ok()?;
        loop {
            let bytes = tokio::select! { biased;
                Some(bytes) = said.recv() => bytes,
                command = commands.next() => {
                    let command = command?;
                    self.model().came.append(&mut commands.came);
                    if self.model().stalls() {
                        self.freeze(true);
                    }
                    frozen.wait_for(|frozen| !frozen).await.ok()?;
                    let messages = self.model().answer(&command);
                    messages.iter().flat_map(line).collect()
                }
            };
            let corruption = self.model().corruption.take();
            match corruption {
                Some(Corruption::Half) => write.write_all(&bytes[..bytes.len() / 2]).await.ok()?,
                Some(Corruption::Garbage) => write.write_all(b"\x00\xffno message\r\n").await.ok()?,
                Some(Corruption::Long) => write.write_all(&vec![b'x'; 17 << 20]).await.ok()?,
                Some(Corruption::Slow) => {
                    for byte in bytes {
                        write.write_all(&[byte]).await.ok()?;
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
                None => write.write_all(&bytes).await.ok()?,
            }
            let gone = self.model().gone;
            if gone {
                return None;
            }
        }
    }
}

fn line(message: &Value) -> Vec<u8> {
    format!("{message}\r\n").into_bytes()
}

pub(super) fn event(name: &str, data: Value) -> Value {
    json!({ "event": name, "data": data, "timestamp": { "seconds": 1, "microseconds": 0 } })
}
