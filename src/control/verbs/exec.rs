//! `exec`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use futures_util::stream::{self, BoxStream, StreamExt};

use crate::control::error::WireError;
use crate::control::parameters::{agent_timeout, timeout};
use crate::control::wire;
use crate::vm::{self, ChangeError, Executed, Handle};

use super::method::{Stream, StreamMethod, method};

/// Bytes of output in one reply: 32 KB of base64, which fits into any client's buffer.
const PIECE: usize = 24_000;
/// The most bytes of a command's standard input: the call must fit into a message.
pub(crate) const MAX_STDIN: usize = 512 << 10;

method! {
    /// Runs a command in the guest, through its agent.
    Exec {
        command: Vec<String>;
        env: Vec<String>, stdin: String, timeout_ms: i64, agent_timeout_ms: i64,
    } -> ExecReply
}

wire::replies! {
    /// Replies of `Exec`: pieces of its output, and last its exit status.
    ExecReply { ; stdout: String, stderr: String, exit_code: i64, signal: i64, truncated: bool }
}

impl Stream for Exec {}

impl StreamMethod for Exec {
    fn start(self, vm: &Handle) -> Result<BoxStream<'static, Result<ExecReply, WireError>>, WireError> {
        let exec = self.checked()?;
        let vm = vm.clone();
        let replies = stream::once(async move { vm.exec(exec).await }).flat_map(|result| match result {
            Ok(executed) => stream::iter(replies(&executed).into_iter().map(Ok)).boxed(),
            Err(error) => stream::iter([Err(error.into())]).boxed(),
        });
        Ok(replies.boxed())
    }
}

impl Exec {
    fn checked(self) -> Result<vm::Exec, ChangeError> {
        if self.command.first().is_none_or(String::is_empty) {
            return Err(ChangeError::invalid("command", "there is no command to run"));
        }
        let env = self.env.unwrap_or_default();
        if let Some(variable) = env.iter().find(|variable| variable.find('=').is_none_or(|at| at == 0)) {
            return Err(ChangeError::invalid("env", format!("'{variable}' is not NAME=VALUE")));
        }
        if self.command.iter().chain(&env).any(|text| text.contains('\0')) {
            return Err(ChangeError::invalid("command", "a NUL byte cannot be part of a command"));
        }
        let stdin = self.stdin.map(|data| BASE64.decode(data)).transpose();
        let stdin = stdin.map_err(|error| ChangeError::invalid("stdin", error))?;
        if stdin.as_ref().is_some_and(|stdin| stdin.len() > MAX_STDIN) {
            return Err(ChangeError::invalid("stdin", "a command's input may have at most 512 KiB"));
        }
        let agent_timeout = agent_timeout(self.agent_timeout_ms)?;
        let timeout = timeout(self.timeout_ms)?;
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(ChangeError::invalid("timeout_ms", "the time must be more than 0"));
        }
        Ok(vm::Exec { command: self.command, env, stdin, timeout, agent_timeout })
    }
}

fn replies(executed: &Executed) -> Vec<ExecReply> {
    const EMPTY: ExecReply =
        ExecReply { stdout: None, stderr: None, exit_code: None, signal: None, truncated: None };
    let encoded = |piece: &[u8]| Some(BASE64.encode(piece));
    let stdout = executed.stdout.chunks(PIECE).map(|piece| ExecReply { stdout: encoded(piece), ..EMPTY });
    let stderr = executed.stderr.chunks(PIECE).map(|piece| ExecReply { stderr: encoded(piece), ..EMPTY });
    let end = ExecReply {
        exit_code: executed.exit_code,
        signal: executed.signal,
        truncated: executed.truncated.then_some(true),
        ..EMPTY
    };
    stdout.chain(stderr).chain([end]).collect()
}
