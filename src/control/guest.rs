//! The methods that reach into the guest.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use crate::vm::{
    ChangeError, Checked, Download, Exec, Executed, GuestClock, Handle, Reboot, Rebooted, ResizedBy, Upload,
};

use super::dispatch::{One, duration, nothing, read, reply};
use super::error::WireError;
use super::service::Answer;
use super::translate::{self, parse};
use super::wire;

/// Bytes of output in one reply: 32 KB of base64, which any client's buffer holds.
const PIECE: usize = 24_000;
/// The most that a command can get to read: the call has to fit into a message.
pub(crate) const MAX_STDIN: usize = 512 << 10;

/// How long a reboot may take unless the call says otherwise.
const REBOOT_TIMEOUT: Duration = Duration::from_secs(120);

/// The files that a connection is writing. What it leaves unfinished goes with it.
pub(super) type Uploads = HashMap<i64, Upload>;

/// `StartGuestFile`.
pub(super) async fn start_file(parameters: Value, vm: &Handle, uploads: &mut Uploads) -> One {
    let wire::StartGuestFile { path, name, agent_timeout_ms } = read(parameters)?;
    let agent_timeout = agent_timeout(agent_timeout_ms)?;
    checked_path(&path)?;
    if name.as_ref().is_some_and(|name| name.is_empty() || name.contains(['/', '\0'])) {
        return Err(ChangeError::invalid("name", "a name is not a path").into());
    }
    let upload = vm.upload(&path, name.as_deref(), agent_timeout).await?;
    let facts = wire::GuestFileReply { handle: upload.handle(), path: upload.path().to_owned() };
    uploads.insert(facts.handle, upload);
    reply(&facts)
}

/// `WriteGuestFile`. A file that could not be written is given up.
pub(super) async fn write_file(parameters: Value, uploads: &mut Uploads) -> One {
    let wire::WriteGuestFile { handle, data } = read(parameters)?;
    let bytes = BASE64.decode(data).map_err(|error| ChangeError::invalid("data", error))?;
    let upload = uploads.get_mut(&handle).ok_or_else(|| ChangeError::no_such("open file", handle))?;
    let written = upload.write(&bytes).await;
    if written.is_err() {
        uploads.remove(&handle);
    }
    written?;
    nothing()
}

/// `FinishGuestFile`.
pub(super) async fn finish_file(parameters: Value, uploads: &mut Uploads) -> One {
    let wire::FinishGuestFile { handle, mode, sha256 } = read(parameters)?;
    let mode = mode.map(u32::try_from).transpose().ok().filter(|mode| mode.is_none_or(|mode| mode <= 0o7777));
    let mode = mode.ok_or_else(|| ChangeError::invalid("mode", "permissions are 0 to 4095 (octal 7777)"))?;
    let upload = uploads.remove(&handle).ok_or_else(|| ChangeError::no_such("open file", handle))?;
    let checked = match upload.finish(mode, sha256.as_deref()).await? {
        Checked::Sha256 => "sha256",
        Checked::Size => "size",
    };
    reply(&wire::FinishedReply { checked: checked.to_owned() })
}

/// `ReadGuestFile`.
pub(super) fn read_file(parameters: Value, vm: &Handle) -> Result<Answer, WireError> {
    let wire::ReadGuestFile { path, agent_timeout_ms } = read(parameters)?;
    let agent_timeout = agent_timeout(agent_timeout_ms)?;
    checked_path(&path)?;
    let state = Reading::Start(vm.clone(), path, agent_timeout);
    Ok(Answer::Stream(Box::pin(stream::unfold(state, |state| async move {
        match state.step().await {
            Ok(None) => None,
            Ok(Some((reply, next))) => Some((Ok(json!(reply)), next)),
            Err(error) => Some((Err(error.into()), Reading::Ended)),
        }
    }))))
}

/// How far the reading of a file has got.
enum Reading {
    Start(Handle, String, Option<Duration>),
    Under(Download),
    Ended,
}

impl Reading {
    async fn step(self) -> Result<Option<(wire::ReadGuestFileReply, Self)>, ChangeError> {
        let reply = wire::ReadGuestFileReply { size_bytes: None, mode: None, data: None, sha256: None };
        Ok(match self {
            Self::Start(vm, path, agent_timeout) => {
                let download = vm.download(&path, agent_timeout).await?;
                let (size_bytes, mode) = (download.size, download.mode);
                Some((wire::ReadGuestFileReply { size_bytes, mode, ..reply }, Self::Under(download)))
            }
            Self::Under(mut download) => match download.next().await? {
                Some(bytes) => {
                    let data = Some(BASE64.encode(bytes));
                    Some((wire::ReadGuestFileReply { data, ..reply }, Self::Under(download)))
                }
                None => {
                    let sha256 = download.sum().await?;
                    Some((wire::ReadGuestFileReply { sha256, ..reply }, Self::Ended))
                }
            },
            Self::Ended => None,
        })
    }
}

fn checked_path(path: &str) -> Result<(), ChangeError> {
    match path.starts_with('/') && !path.contains('\0') {
        true => Ok(()),
        false => Err(ChangeError::invalid("path", format!("the guest's path '{path}' must be absolute"))),
    }
}

/// `ResizeConsole`.
pub(super) async fn resize_console(call: wire::ResizeConsole, vm: &Handle) -> One {
    let count = |name: &str, count: i64| match u16::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(ChangeError::invalid(name, "a console has 1 to 65535 of them")),
    };
    let by = vm.resize_console(count("rows", call.rows)?, count("columns", call.columns)?).await?;
    let by = match by {
        ResizedBy::Agent => "agent",
        ResizedBy::Typing => "typing",
    };
    reply(&wire::ResizeConsoleReply { by: by.to_owned() })
}

/// `SetTime`.
pub(super) async fn set_time(call: wire::SetTime, vm: &Handle) -> One {
    let GuestClock { behind_ms, set } = vm.set_time(agent_timeout(call.agent_timeout_ms)?).await?;
    reply(&wire::SetTimeReply { behind_ms, set })
}

/// `Reboot`.
pub(super) async fn reboot(call: wire::Reboot, vm: &Handle) -> One {
    let reboot = Reboot {
        force: call.force.unwrap_or(false),
        until: call.until.map(|until| parse("until", &until)).transpose()?,
        timeout: duration(call.timeout_ms, REBOOT_TIMEOUT)?,
        agent_timeout: agent_timeout(call.agent_timeout_ms)?,
    };
    let Rebooted { reset_after, up } = vm.reboot(reboot).await?;
    let (condition, up_after_ms) =
        up.map(|(condition, after)| (condition.to_string(), translate::milliseconds(after))).unzip();
    let reset_after_ms = translate::milliseconds(reset_after);
    reply(&wire::RebootReply { reset_after_ms, condition, up_after_ms })
}

/// `AgentCommand`.
pub(super) async fn agent_command(call: wire::AgentCommand, vm: &Handle) -> One {
    let timeout = agent_timeout(call.agent_timeout_ms)?;
    let value = vm.agent_command(&call.command, call.arguments.unwrap_or_default(), timeout).await?;
    reply(&wire::AgentCommandReply { value: (!value.is_null()).then_some(value) })
}

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
    let agent_timeout = agent_timeout(call.agent_timeout_ms)?;
    let timeout = call.timeout_ms.map(|timeout| duration(Some(timeout), Duration::ZERO)).transpose()?;
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        return Err(ChangeError::invalid("timeout_ms", "the time must be more than 0"));
    }
    Ok(Exec { command: call.command, env, stdin, timeout, agent_timeout })
}

/// How long an agent is waited for that does not answer yet; 0 is not at all.
fn agent_timeout(milliseconds: Option<i64>) -> Result<Option<Duration>, ChangeError> {
    milliseconds
        .map(|milliseconds| {
            let why = |_| ChangeError::invalid("agent_timeout_ms", "a time may not be negative");
            u64::try_from(milliseconds).map(Duration::from_millis).map_err(why)
        })
        .transpose()
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
