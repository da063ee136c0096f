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
use crate::spec::VmSpec;

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
    corruption: Option<Corruption>,
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

impl Model {
    /// The card that QEMU was started with.
    pub(super) fn cold_card(&mut self, spec: &VmSpec) {
        let kind = if spec.networking.is_user() { "user" } else { "tap" };
        self.netdevs.insert("net0".to_owned(), kind.to_owned());
        let bus = "pcie.0".to_owned();
        let netdev = Some("net0".to_owned());
        let card = Plugged { driver: "virtio-net-pci".to_owned(), bus, netdev, ..Plugged::default() };
        self.devices.insert("nic0".to_owned(), card);
    }

    /// The drive that it was started with, and the medium in it.
    pub(super) fn cold_cd(&mut self, id: &str) {
        self.nodes.insert(format!("{id}.file"), None);
        self.nodes.insert(id.to_owned(), Some(format!("{id}.file")));
        let (driver, bus, drive) = ("ide-cd".to_owned(), "ide.0".to_owned(), Some(id.to_owned()));
        self.devices.insert(id.to_owned(), Plugged { driver, bus, drive, ..Plugged::default() });
    }

    /// Whether the next command is the one to stand still before.
    fn stalls(&mut self) -> bool {
        self.later.take_if(|later| *later == (0, Fault::Stall)).is_some()
    }

    fn planned(&mut self, name: &str) -> Option<Fault> {
        if let Some((left, _)) = &mut self.later {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => return self.later.take().map(|(_, fault)| fault),
            }
        }
        let position = self.faults.iter().position(|(planned, _)| *planned == name)?;
        self.faults.remove(position).map(|(_, fault)| fault)
    }

    /// What QEMU writes on a command.
    fn answer(&mut self, command: &Value) -> Vec<Value> {
        let name = command["execute"].as_str().unwrap().to_owned();
        let arguments = &command["arguments"];
        if name != "qmp_capabilities" {
            self.seen.push(name.clone());
        }
        let fault = self.planned(&name);
        let mut events = Vec::new();
        let mut late = Vec::new();
        let result = match &fault {
            Some(Fault::Refuse(why)) => {
                self.came.clear();
                Err((*why).to_owned())
            }
            Some(Fault::Say(text)) => Ok(json!(text)),
            Some(Fault::HangUp) => {
                self.close_all();
                return Vec::new();
            }
            Some(Fault::HangUpAfter) => {
                let _ = self.carry_out(&name, arguments, &mut events, &mut late);
                self.close_all();
                return Vec::new();
            }
            Some(Fault::Break(why)) => {
                self.kept.breaks = Some(*why);
                self.carry_out(&name, arguments, &mut events, &mut late)
            }
            Some(Fault::Spoil(corruption)) => {
                self.corruption = Some(*corruption);
                let result = self.carry_out(&name, arguments, &mut events, &mut late);
                self.gone |= *corruption == Corruption::Half;
                result
            }
            Some(Fault::Stall) | None => self.carry_out(&name, arguments, &mut events, &mut late),
        };
        if let (Err(why), None) = (&result, &fault) {
            self.refused.push(format!("{command}: {why}"));
        }
        let reply = match result {
            Ok(value) => json!({ "return": value, "id": command["id"] }),
            Err(why) => {
                let class = if why.ends_with("not found") { "DeviceNotFound" } else { "GenericError" };
                json!({ "error": { "class": class, "desc": why }, "id": command["id"] })
            }
        };
        events.push(reply);
        events.extend(late);
        events
    }

    fn carry_out(
        &mut self,
        name: &str,
        arguments: &Value,
        events: &mut Vec<Value>,
        late: &mut Vec<Value>,
    ) -> Answer {
        let text = |key: &str| arguments[key].as_str().unwrap_or_default().to_owned();
        match name {
            "blockdev-add" => self.add_image(arguments),
            "x-debug-query-block-graph" => Ok(self.graph()),
            "blockdev-del" => self.delete_node(&text("node-name")),
            "device_add" => {
                let drive = arguments["drive"].as_str().map(str::to_owned);
                let netdev = arguments["netdev"].as_str().map(str::to_owned);
                let plugged =
                    Plugged { driver: text("driver"), bus: text("bus"), drive, netdev, link_down: false };
                self.plug(&text("id"), plugged)
            }
            "blockdev-remove-medium" => self.set_medium(&text("id"), None),
            "blockdev-insert-medium" => self.set_medium(&text("id"), Some(text("node-name"))),
            "netdev_add" => self.add_netdev(&text("id"), &text("type")),
            "netdev_del" => self.delete_netdev(&text("id")),
            "set_link" => self.set_link(&text("name"), arguments["up"] == true),
            "query-block" => Ok(self.blocks()),
            "qom-get" if text("property") == "hotpluggable" => {
                let id = text("path").rsplit('/').next().unwrap_or_default().to_owned();
                // the machine's own bus takes nothing while it runs
                let device = self.devices.get(&id).ok_or_else(|| format!("Device '{id}' not found"))?;
                Ok(json!(device.bus != "pcie.0"))
            }
            "query-pci" => Ok(self.pci()),
            "block_set_io_throttle" => {
                self.limits.insert(text("id"), arguments.clone());
                Ok(json!({}))
            }
            "device_del" => self.unplug(&text("id"), late),
            "human-monitor-command" => Ok(json!(self.hmp(&text("command-line")))),
            "device-list-properties" => Ok(json!([{ "name": "serial", "type": "str" }])),
            "qom-list-types" if text("implements") == "pci-device" => {
                Ok(json!([{ "name": "edu" }, { "name": "virtio-rng-pci" }]))
            }
            "qom-list-types" => Ok(json!([])),
            "stop" => {
                self.running = false;
                events.push(event("STOP", json!({})));
                Ok(json!({}))
            }
            "cont" => {
                self.running = true;
                events.push(event("RESUME", json!({})));
                Ok(json!({}))
            }
            "system_reset" => {
                late.push(event("RESET", json!({ "guest": false, "reason": "host-qmp-system-reset" })));
                for id in std::mem::take(&mut self.unplugging) {
                    self.delete(&id, late);
                }
                Ok(json!({}))
            }
            "quit" => {
                self.close_all();
                late.push(event("SHUTDOWN", json!({ "guest": false, "reason": "host-qmp-quit" })));
                Ok(json!({}))
            }
            _ => self.keep(name, arguments, late).unwrap_or(Ok(json!({}))),
        }
    }
}
