//! The shared QMP socket: plain QMP for any number of clients at once, over the supervisor's one session.
//!
//! Each client gets a greeting, negotiates, has its own ids, gets its replies in order and all events of QEMU. A client that does
//! not read is disconnected; it delays no other.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::host::log_context;
use crate::qemu::Command;
use crate::qmp::CommandError;
use crate::vm::{BusEvent, Handle, Record, Subscriber};

use super::permits::{Permit, Permits, TooMany, Use};
use super::service::serve_each;
use super::socket::{MAX_MESSAGE, hung_up};

/// How long a client may not read before it is disconnected.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// Serves clients until the VM has ended.
pub(super) async fn serve(listener: UnixListener, vm: Handle, permits: Permits) {
    serve_each(listener, vm, permits, converse).await;
}

/// The input of a client.
pub(super) enum Input {
    Command(Value),
    Garbage(String),
}

/// Finds JSON values in a stream of bytes, however it is split.
struct Reader {
    socket: OwnedReadHalf,
    buffer: Vec<u8>,
    scan: Scan,
}

impl Reader {
    /// The next value; `None` at the end, or when the client exceeds a limit. Cancellation-safe.
    async fn next(&mut self) -> Option<Input> {
        loop {
            if let Some(input) = self.scan.next(&mut self.buffer) {
                return Some(input);
            }
            if self.buffer.len() > MAX_MESSAGE {
                return None;
            }
            if self.socket.read_buf(&mut self.buffer).await.ok()? == 0 {
                return self.scan.rest(&mut self.buffer);
            }
        }
    }
}

/// Searches for the end of a value and inspects each byte once: input in a million pieces is not parsed from its start for each of
/// them, which would delay other clients.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Bytes of the buffer that were inspected.
    seen: usize,
    /// There is something else than white space.
    begun: bool,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Invalid JSON: skipped up to the end of its line.
    spoilt: bool,
    /// The length of the buffer at the last parse without a result.
    tried: usize,
}

/// Where a value may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Bracket,
    Line,
}

impl Scan {
    /// The next complete command in the buffer.
    pub(super) fn next(&mut self, buffer: &mut Vec<u8>) -> Option<Input> {
        while let Some(end) = self.look(buffer) {
            if let Some(input) = parsed(buffer) {
                *self = Self::default();
                return Some(input);
            }
            self.in_vain(end, buffer);
        }
        None
    }

    /// The rest at the end of the stream, which has no newline.
    fn rest(&mut self, buffer: &mut Vec<u8>) -> Option<Input> {
        let text = std::mem::take(buffer);
        *self = Self::default();
        if text.iter().all(u8::is_ascii_whitespace) {
            return None;
        }
        Some(match serde_json::from_slice(&text) {
            Ok(value) => Input::Command(value),
            Err(error) => Input::Garbage(error.to_string()),
        })
    }

    fn in_vain(&mut self, end: End, buffer: &[u8]) {
        self.spoilt |= end == End::Bracket;
        self.tried = buffer.len();
    }

    /// The next position at which the input before it should be parsed.
    fn look(&mut self, buffer: &[u8]) -> Option<End> {
        while let Some(byte) = buffer.get(self.seen).copied() {
            self.seen += 1;
            if byte == b'\n' {
                // inside a value a newline can only reveal an error, so it is checked only now and then
                let now = self.spoilt || self.depth == 0 && !self.in_string || buffer.len() >= 2 * self.tried;
                if self.begun && now {
                    return Some(End::Line);
                }
            } else if !self.spoilt && self.closes(byte) {
                return Some(End::Bracket);
            }
        }
        None
    }

    /// Processes a byte; returns whether it closes the outermost bracket.
    fn closes(&mut self, byte: u8) -> bool {
        self.begun |= !byte.is_ascii_whitespace();
        if std::mem::take(&mut self.escaped) {
            return false;
        }
        match byte {
            b'\\' => self.escaped = self.in_string,
            b'"' => self.in_string = !self.in_string,
            _ if self.in_string => {}
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

/// The next complete command in the buffer.
fn parsed(buffer: &mut Vec<u8>) -> Option<Input> {
    let mut values = serde_json::Deserializer::from_slice(buffer).into_iter::<Value>();
    let (input, used) = match values.next()? {
        Ok(value) => (Input::Command(value), values.byte_offset()),
        Err(error) if error.is_eof() => return None,
        Err(error) => {
            // the text after that line may be valid again; the lines before it belong to the same error
            let wrong = wrong_byte(buffer, &error);
            let end = wrong + buffer[wrong..].iter().position(|byte| *byte == b'\n')?;
            (Input::Garbage(error.to_string()), end + 1)
        }
    };
    buffer.drain(..used);
    Some(input)
}

/// The position of the invalid byte.
fn wrong_byte(text: &[u8], error: &serde_json::Error) -> usize {
    let mut ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let line = match error.line().checked_sub(2) {
        Some(before) => ends.nth(before).unwrap_or(text.len()),
        None => 0,
    };
    // columns count from 1, and are 0 for a newline itself
    (line + error.column()).saturating_sub(1).min(text.len())
}

struct Client {
    vm: Handle,
    write: OwnedWriteHalf,
    negotiated: bool,
}

async fn converse(stream: UnixStream, vm: Handle, permit: Arc<Permit>) {
    let (socket, write) = stream.into_split();
    let mut reader = Reader { socket, buffer: Vec::new(), scan: Scan::default() };
    let mut client = Client { vm, write, negotiated: false };
    let Some(greeting) = client.greeting().await else { return };
    if client.send(&greeting).await.is_none() {
        return;
    }
    permit.idle();
    // QEMU sends no events before negotiation, and neither does vmrun
    let mut events: Option<Subscriber> = None;
    let mut requests = 0;
    loop {
        let step = tokio::select! { biased;
            event = next_event(&mut events) => client.pass_on(event).await,
            input = reader.next() => match input {
                Some(input) => {
                    requests += 1;
                    let answer = client.answer(input, &mut events, &permit);
                    let answer = log_context::scope(log_context::request(requests), answer).await;
                    permit.idle();
                    match answer {
                        Some(answer) => client.send(&answer).await,
                        None => None,
                    }
                }
                None => None,
            },
            _ = client.vm.ended() => {
                client.say_goodbye(&mut events).await;
                None
            }
        };
        if step.is_none() {
            return;
        }
    }
}

async fn next_event(events: &mut Option<Subscriber>) -> Option<BusEvent> {
    match events {
        Some(subscriber) => subscriber.next().await,
        None => std::future::pending().await,
    }
}

impl Client {
    async fn greeting(&self) -> Option<Value> {
        let status = self.vm.status().await.ok()?;
        let mut parts = status.facts.qemu_version.split('.').map(|part| part.parse::<u64>().unwrap_or(0));
        let mut part = || parts.next().unwrap_or(0);
        let version = json!({ "major": part(), "minor": part(), "micro": part() });
        let package = &status.facts.qemu_package;
        Some(json!({ "QMP": { "version": { "qemu": version, "package": package }, "capabilities": [] } }))
    }

    async fn send(&mut self, value: &Value) -> Option<()> {
        let mut line = serde_json::to_vec(value).ok()?;
        line.extend_from_slice(b"\r\n");
        match timeout(WRITE_DEADLINE, self.write.write_all(&line)).await {
            Ok(Ok(())) => Some(()),
            Ok(Err(_)) => None,
            Err(_) => {
                log::info!("a client of the shared QMP socket does not read, and is dropped");
                None
            }
        }
    }

    async fn pass_on(&mut self, received: Option<BusEvent>) -> Option<()> {
        match received? {
            // plain QMP has no vmrun events
            BusEvent::Record(record) if record.name.starts_with("VMRUN_") => Some(()),
            BusEvent::Record(record) => self.send(&event(&record)).await,
            BusEvent::Lost(count) => {
                log::info!("a client of the shared QMP socket was {count} events behind, and is dropped");
                None
            }
        }
    }

    /// Sends the last events, including SHUTDOWN.
    async fn say_goodbye(&mut self, events: &mut Option<Subscriber>) {
        while let Some(event) = events.as_mut().and_then(Subscriber::try_next) {
            if self.pass_on(Some(event)).await.is_none() {
                return;
            }
        }
    }

    /// `None`: the client has gone without its reply.
    async fn answer(
        &mut self,
        input: Input,
        events: &mut Option<Subscriber>,
        permit: &Permit,
    ) -> Option<Value> {
        let wrong = |why: &str| Some(refusal("GenericError", why, None));
        let mut fields = match input {
            Input::Command(Value::Object(fields)) => fields,
            Input::Command(_) => return wrong("QMP input must be a JSON object"),
            Input::Garbage(why) => return wrong(&format!("JSON parse error, {why}")),
        };
        let id = fields.remove("id");
        if let Err(TooMany { message, .. }) = permit.busy(Use::Change) {
            return Some(refusal("GenericError", &message, id));
        }
        let (vm, write) = (self.vm.clone(), &self.write);
        let done = carry_out(&vm, &mut self.negotiated, fields, events);
        let done = tokio::select! { biased;
            done = done => done,
            // what was sent to the owner continues
            () = hung_up(write.as_ref()) => return None,
        };
        Some(match done {
            Ok(value) => with_id(json!({ "return": value }), id),
            Err((class, desc)) => refusal(&class, &desc, id),
        })
    }
}

async fn carry_out(
    vm: &Handle,
    negotiated: &mut bool,
    fields: Map<String, Value>,
    events: &mut Option<Subscriber>,
) -> Result<Value, (String, String)> {
    let generic = |desc: &str| ("GenericError".to_owned(), desc.to_owned());
    let command = Command::from_members(fields).map_err(|error| generic(&error.to_string()))?;
    let not_found = |desc: &str| ("CommandNotFound".to_owned(), desc.to_owned());
    match (command.execute.as_str(), *negotiated) {
        ("qmp_capabilities", false) => {
            *negotiated = true;
            *events = Some(vm.bus.subscribe(None));
            return Ok(json!({}));
        }
        ("qmp_capabilities", true) => {
            return Err(not_found("Capabilities negotiation is already complete, command ignored"));
        }
        (_, false) => {
            return Err(not_found("Expecting capabilities negotiation with 'qmp_capabilities'"));
        }
        (_, true) => {}
    }
    log::debug!("request: {}", shortened(&command.execute));
    vm.client_qmp(command).await.map_err(|error| match error {
        CommandError::Refused { class, desc, .. } => (class, desc),
        other => generic(&other.to_string()),
    })
}

/// A client's own word is not longer than this in the log.
fn shortened(name: &str) -> String {
    name.chars().take(64).collect()
}

fn event(record: &Record) -> Value {
    let (seconds, microseconds) = (record.time_unix_us / 1_000_000, record.time_unix_us % 1_000_000);
    let mut event = json!({
        "timestamp": { "seconds": seconds, "microseconds": microseconds },
        "event": record.name,
    });
    if !record.data.is_empty() {
        event["data"] = Value::Object(record.data.clone());
    }
    event
}

fn refusal(class: &str, desc: &str, id: Option<Value>) -> Value {
    with_id(json!({ "error": { "class": class, "desc": desc } }), id)
}

/// The client's own id, of any type, is returned with the reply.
fn with_id(mut answer: Value, id: Option<Value>) -> Value {
    if let Some(id) = id {
        answer["id"] = id;
    }
    answer
}

#[cfg(test)]
mod tests;
