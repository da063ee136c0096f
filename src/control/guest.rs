//! The methods that reach into the guest.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use crate::vm::{ChangeError, Exec, Executed, Handle};

use super::dispatch::{duration, read};
use super::error::WireError;
use super::service::Answer;
use super::wire;

/// Bytes of output in one reply: 32 KB of base64, which any client's buffer holds.
const PIECE: usize = 24_000;
/// The most that a command can get to read: the call has to fit into a message.
pub(crate) const MAX_STDIN: usize = 512 << 10;

/// `Exec`.
pub(super) fn exec(parameters: Value, vm: &Handle) -> Result<Answer, WireError> {
    let exec = checked(read(parameters)?)?;
    let vm = vm.clone();
    let replies = stream::once(async move { vm.exec(exec).await }).flat_map(|result| match result {
        Ok(executed) => stream::iter(pieces(&executed)).boxed(),
        Err(error) => stream::iter([Err(error.into())]).boxed(),
    });
    Ok(Answer::Stream(Box::pin(replies)))
}

fn checked(call: wire::Exec) -> Result<Exec, ChangeError> {
    if call.command.first().is_none_or(String::is_empty) {
        return Err(ChangeError::invalid("command", "there is no command to run"));
    }
    let env = call.env.unwrap_or_default();
    if let Some(variable) = env.iter().find(|variable| variable.find('=').is_none_or(|at| at == 0)) {
        return Err(ChangeError::invalid("env", format!("'{variable}' is not NAME=VALUE")));
    }
    if call.command.iter().chain(&env).any(|text| text.contains('\0')) {
        return Err(ChangeError::invalid("command", "a NUL byte cannot be part of a command"));
    }
    let stdin = call.stdin.map(|data| BASE64.decode(data)).transpose();
    let stdin = stdin.map_err(|error| ChangeError::invalid("stdin", error))?;
    if stdin.as_ref().is_some_and(|stdin| stdin.len() > MAX_STDIN) {
        return Err(ChangeError::invalid("stdin", "a command's input may have at most 512 KiB"));
    }
    let timeout =
        call.timeout_ms.map(|timeout| duration(Some(timeout), std::time::Duration::ZERO)).transpose()?;
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        return Err(ChangeError::invalid("timeout_ms", "the time must be more than 0"));
    }
    Ok(Exec { command: call.command, env, stdin, timeout })
}

fn pieces(executed: &Executed) -> Vec<Result<Value, WireError>> {
    let of = |name: &'static str, bytes: &[u8]| -> Vec<Value> {
        bytes.chunks(PIECE).map(|piece| json!({ name: BASE64.encode(piece) })).collect()
    };
    let mut replies = of("stdout", &executed.stdout);
    replies.extend(of("stderr", &executed.stderr));
    let end = wire::ExecReply {
        stdout: None,
        stderr: None,
        exit_code: executed.exit_code,
        signal: executed.signal,
        truncated: executed.truncated.then_some(true),
    };
    replies.push(json!(end));
    replies.into_iter().map(Ok).collect()
}
