//! The methods that answer with many replies.

use std::collections::VecDeque;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use futures_util::stream;
use serde_json::{Value, json};

use crate::vm::console::{From, Reader};
use crate::vm::{ChangeError, Handle, Heard, Listener};

use super::dispatch::read;
use super::error::WireError;
use super::methods::{self, Method};
use super::service::Answer;
use super::{INTERFACE, guest, snapshots, stats, wire};

/// Starts one of the [streams](methods::is_stream): it is subscribed when this returns.
pub(super) fn start(method: &str, parameters: Value, more: bool, vm: &Handle) -> Answer {
    let stream = match method {
        methods::Events::NAME => events(parameters, vm),
        methods::Exec::NAME => guest::exec(parameters, vm),
        methods::ReadGuestFile::NAME => guest::read_file(parameters, vm),
        methods::Save::NAME => snapshots::save_vm(parameters, vm),
        methods::SaveSnapshot::NAME => snapshots::save(parameters, vm),
        methods::WatchStats::NAME => stats::watch(parameters, vm),
        methods::ReadConsole::NAME => console(parameters, vm),
        _ => Err(WireError::method_not_found(INTERFACE, method)),
    };
    match stream {
        // wrong parameters are told of first, as of any other method
        Ok(_) if !more => Answer::One(Err(WireError::expected_more())),
        Ok(stream) => stream,
        Err(error) => Answer::One(Err(error)),
    }
}

struct Events {
    listener: Listener,
    names: Option<Vec<String>>,
    vm: Handle,
    begun: bool,
}

fn events(parameters: Value, vm: &Handle) -> Result<Answer, WireError> {
    let wire::Events { names, since } = read(parameters)?;
    let since = since.map(|since| u64::try_from(since).unwrap_or(0));
    let state = Events { listener: vm.bus.listen(since), names, vm: vm.clone(), begun: false };
    Ok(Answer::Stream(Box::pin(stream::unfold(state, |mut state| async move {
        let reply = state.next().await?;
        Some((Ok(reply), state))
    }))))
}

impl Events {
    async fn next(&mut self) -> Option<Value> {
        if !std::mem::replace(&mut self.begun, true) {
            return Some(json!({}));
        }
        loop {
            let heard = tokio::select! { biased;
                heard = self.listener.next() => heard?,
                _ = self.vm.ended() => return None,
            };
            match heard {
                Heard::Lost(count) => return Some(json!({ "lost": count })),
                Heard::Record(record) => {
                    let wanted = self.names.as_ref().is_none_or(|names| names.contains(&record.name));
                    if wanted {
                        return Some(json!({ "event": {
                            "sequence": record.sequence,
                            "time_unix_ms": record.time_unix_ms,
                            "name": record.name,
                            "data": record.data,
                        }}));
                    }
                }
            }
        }
    }
}

fn console(parameters: Value, vm: &Handle) -> Result<Answer, WireError> {
    let wire::ReadConsole { from, follow } = read(parameters)?;
    let from = match from.as_deref() {
        Some("start") => From::Start,
        None | Some("recent") => From::Recent,
        Some("now") => From::Now,
        Some(_) => return Err(ChangeError::invalid("from", "from must be start, recent or now").into()),
    };
    vm.console.check()?;
    let reader = vm.console.hub.reader(from);
    if follow.unwrap_or(true) {
        return Ok(Answer::Stream(Box::pin(stream::unfold(reader, |mut reader: Reader| async move {
            let chunk = reader.next().await?;
            Some((Ok(piece(&chunk.bytes, chunk.skipped)), reader))
        }))));
    }
    let mut reader = reader;
    let mut there = VecDeque::new();
    while let Some(chunk) = reader.try_next() {
        there.push_back(Ok(piece(&chunk.bytes, chunk.skipped)));
    }
    Ok(Answer::Stream(Box::pin(stream::iter(there))))
}

fn piece(bytes: &[u8], skipped: u64) -> Value {
    json!({ "data": BASE64.encode(bytes), "skipped": skipped })
}
