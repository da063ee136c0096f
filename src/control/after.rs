//! What became of a VM that does not answer, and replies from the record of a VM that has ended.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::host::dirs::{DirError, RunClient, RunId, StoreEnvironment};
use crate::spec::VmName;
use crate::vm::RunRecord;

use super::INTERFACE;
use super::client::Client;
use super::error::WireError;
use super::find::{Standing, standing_of};
use super::socket::MAX_MESSAGE;
use super::verbs::{self, EndedVm, Run};

/// How long after a VM's end a call by its name is answered as if it had come in time.
pub const RECENT: Duration = Duration::from_secs(60);
/// The interval at which the state of such a VM is checked: its record is written before its run directory is removed.
const LOOKS: usize = 3;

/// The state of a VM whose supervisor has hung up, or does not exist.
#[derive(Debug)]
pub enum Fate {
    /// It has ended; this is its record.
    Ended(Box<RunRecord>),
    /// It has a supervisor, perhaps a new one.
    Supervised,
    /// Its supervisor has died, and QEMU is running.
    Orphan,
    /// Unknown: it never ran, or its end could not be recorded.
    Unknown,
}

/// The state of a run of a VM; without a run, of the last VM of this name. Cleans up after a dead VM.
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
    let ended = EndedVm { record, is_recent: u128::from(record.age_ms()) <= RECENT.as_millis() };
    let method = call.method.strip_prefix(INTERFACE).and_then(|method| method.strip_prefix('.'));
    let entry = method.and_then(verbs::find);
    let is_stream = entry.is_some_and(|entry| matches!(entry.run, Run::Stream(..)));
    let parameters = Value::Object(call.parameters.clone());
    let replies = entry.and_then(|entry| (entry.after_the_end)(parameters, &ended));
    match replies {
        Some(replies) if is_stream && call.more => {
            let all = replies.into_iter().map(|reply| json!({ "parameters": reply, "continues": true }));
            all.chain([json!({ "parameters": {}, "continues": false })]).collect()
        }
        Some(replies) if !is_stream => {
            replies.into_iter().map(|reply| json!({ "parameters": reply })).collect()
        }
        _ => vec![json!(has_ended(&ended))],
    }
}

/// The error of all other calls.
fn has_ended(ended: &EndedVm<'_>) -> WireError {
    let record = ended.record;
    let mut error = WireError::ended(&record.outcome);
    let ago = match ended.is_recent {
        true => String::new(),
        false => {
            let seconds = Duration::from_secs(record.age_ms() / 1000);
            format!(" {} ago", humantime::format_duration(seconds))
        }
    };
    let message = format!("VM '{}' has ended{ago}: {}", record.name(), record.outcome);
    error.parameters.insert("message".to_owned(), message.into());
    error
}
