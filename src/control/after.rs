//! After a VM's end: what became of a VM that does not answer, and answers from its record in the place of its supervisor.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::host::dirs::{DirError, RunClient, RunId, StoreEnvironment};
use crate::spec::VmName;
use crate::vm::{RunRecord, RunState, Status};

use super::client::Client;
use super::error::WireError;
use super::find::{Standing, standing_of};
use super::methods::{self, Method};
use super::socket::MAX_MESSAGE;
use super::{INTERFACE, translate, wire};

/// How long after a VM's end whoever asks for it by its name is answered as if it had asked in time.
pub const RECENT: Duration = Duration::from_secs(60);
/// How often it is looked what became of a VM: its record is there before its run directory goes.
const LOOKS: usize = 3;
/// Console output in one reply.
const PIECE: usize = 16 << 10;

/// What became of a VM whose supervisor has hung up, or is not there.
#[derive(Debug)]
pub enum Fate {
    /// It has ended.
    Ended(Box<RunRecord>),
    /// It has a supervisor, perhaps another one.
    Supervised,
    /// Its supervisor has died and QEMU lives.
    Orphan,
    /// Nothing tells: it never ran, or its end could not be recorded.
    Unknown,
}

/// What became of a run of a VM; without a run, of the last VM of this name. What a dead VM left is cleaned up.
pub fn fate(root: &Path, name: &VmName, run: Option<&RunId>, environment: &StoreEnvironment) -> Fate {
    for _ in 0..LOOKS {
        let record = match run {
            Some(run) => RunRecord::of_run(environment, run),
            None => None,
        };
        if let Some(record) = record {
            return Fate::Ended(Box::new(record));
        }
        match RunClient::open(root, name) {
            Ok(directory) if run.is_none() || directory.run() == run => match standing_of(&directory) {
                Standing::Supervised => return Fate::Supervised,
                Standing::Orphan => return Fate::Orphan,
                Standing::Stale => crate::vm::clean(root, name),
            },
            Ok(_) | Err(DirError::Missing { .. }) if run.is_none() => {
                let last = RunRecord::of_name(environment, root, name);
                return last.map_or(Fate::Unknown, |record| Fate::Ended(Box::new(record)));
            }
            _ => {}
        }
    }
    Fate::Unknown
}

/// A client of a VM that has ended: its calls are answered from the record.
///
/// # Errors
/// No descriptors, or no threads.
pub fn client(record: RunRecord) -> std::io::Result<Client> {
    let (ours, theirs) = UnixStream::pair()?;
    std::thread::Builder::new().name("record".to_owned()).spawn(move || serve(theirs, &record))?;
    Client::of_record(ours)
}

#[derive(Deserialize)]
struct Call {
    method: String,
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(default)]
    more: bool,
    #[serde(default)]
    oneway: bool,
}

/// Answers until the client hangs up.
fn serve(stream: UnixStream, record: &RunRecord) {
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    loop {
        let mut frame = Vec::new();
        let limit = u64::try_from(MAX_MESSAGE).unwrap_or(u64::MAX);
        let read = (&mut reader).take(limit).read_until(0, &mut frame);
        if !matches!(read, Ok(count) if count > 0) || frame.pop() != Some(0) {
            return;
        }
        let Ok(call) = serde_json::from_slice::<Call>(&frame) else { return };
        let mut text = Vec::new();
        for reply in replies(record, &call) {
            text.extend(reply.to_string().into_bytes());
            text.push(0);
        }
        if !call.oneway && writer.write_all(&text).is_err() {
            return;
        }
    }
}

fn replies(record: &RunRecord, call: &Call) -> Vec<Value> {
    let method = call.method.strip_prefix(INTERFACE).and_then(|method| method.strip_prefix('.'));
    let streamed = match method {
        Some(methods::Events::NAME | methods::WatchStats::NAME) if call.more => Ok(Vec::new()),
        Some(methods::ReadConsole::NAME) if call.more => {
            let piece = |piece: &[u8]| json!({ "data": BASE64.encode(piece), "skipped": 0 });
            Ok(record.console().chunks(PIECE).map(piece).collect())
        }
        _ => Err(one(record, method.unwrap_or_default(), &call.parameters)),
    };
    match streamed {
        Ok(replies) => {
            let all = replies.into_iter().map(|reply| json!({ "parameters": reply, "continues": true }));
            all.chain([json!({ "parameters": {}, "continues": false })]).collect()
        }
        Err(Ok(reply)) => vec![json!({ "parameters": reply })],
        Err(Err(error)) => vec![json!(error)],
    }
}

/// The reply to a call that has one.
fn one(record: &RunRecord, method: &str, parameters: &Map<String, Value>) -> Result<Value, WireError> {
    let is_recent = u128::from(record.age_ms()) <= RECENT.as_millis();
    match method {
        methods::GetStatus::NAME => Ok(json!(wire::StatusReply { status: status(record) })),
        methods::Shutdown::NAME if is_recent => {
            Ok(json!(wire::OutcomeReply { outcome: record.outcome.clone() }))
        }
        methods::Wait::NAME if is_recent && is_enough(parameters) => {
            let details = json!({ "outcome": record.outcome });
            let came_true = vec![wire::CameTrue { condition: "exit".to_owned(), after_ms: 0, details }];
            Ok(json!(wire::WaitReply { came_true }))
        }
        _ => {
            let mut error = WireError::ended(&record.outcome);
            let ago = match is_recent {
                true => String::new(),
                false => {
                    let seconds = Duration::from_secs(record.age_ms() / 1000);
                    format!(" {} ago", humantime::format_duration(seconds))
                }
            };
            let message = format!("VM '{}' has ended{ago}: {}", record.name(), record.outcome);
            error.parameters.insert("message".to_owned(), message.into());
            Err(error)
        }
    }
}

/// Whether that the VM has ended is what is waited for.
fn is_enough(parameters: &Map<String, Value>) -> bool {
    let conditions = parameters.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let all = parameters.get("all").and_then(Value::as_bool).unwrap_or(false);
    if all { conditions.iter().all(|one| one == "exit") } else { conditions.iter().any(|one| one == "exit") }
}

/// What is still known of it. What it had has gone with it.
fn status(record: &RunRecord) -> wire::Status {
    let status = Status {
        spec: Arc::new(record.spec.clone()),
        facts: Arc::new(record.facts.clone()),
        run_state: RunState::Off,
        stopping: false,
        reason: None,
        started: Instant::now(),
        devices: Vec::new(),
        forwards: Vec::new(),
        slots: Vec::new(),
        slots_total: 0,
        slots_used: 0,
    };
    wire::Status {
        state: "ended".to_owned(),
        outcome: Some(record.outcome.clone()),
        ended_unix_ms: Some(record.ended_unix_ms),
        uptime_ms: record
            .ran_ms
            .unwrap_or_else(|| record.ended_unix_ms.saturating_sub(record.facts.started_unix_ms)),
        supervisor_pid: 0,
        ..translate::status(&status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_exit_that_is_enough_has_come_true() {
        let parameters = |value: Value| value.as_object().unwrap().clone();
        let enough = |value: Value| is_enough(&parameters(value));
        assert!(enough(json!({ "conditions": ["exit"] })));
        assert!(enough(json!({ "conditions": ["console=x", "exit"] })));
        assert!(!enough(json!({ "conditions": ["console=x", "exit"], "all": true })));
        assert!(!enough(json!({ "conditions": ["agent"] })));
    }
}
