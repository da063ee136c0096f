//! `exec`: runs a command in the guest, and writes its input.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use futures_util::stream::{self, BoxStream, StreamExt};

use crate::control::error::WireError;
use crate::control::parameters::{agent_timeout, timeout};
use crate::control::permits::Use;
use crate::control::wire::{self, Nothing};
use crate::vm::{self, ChangeError, Executed, Handle, Piece};

use super::method::{CallMethod, Stream, StreamMethod, Uploads, method};
use super::one_reply::Beginning;

/// The most bytes of a command's input in one call: it must fit into a message.
const MAX_STDIN: usize = 512 << 10;

method! {
    /// Runs a command in the guest, through its agent.
    Exec {
        command: Vec<String>;
        env: Vec<String>, stdin: String, input: bool, timeout_ms: i64, agent_timeout_ms: i64,
    } -> ExecReply
}

method! {
    /// Writes the next piece of a command's input.
    WriteExecInput { input: i64; data: String, end: bool } -> Nothing
}

wire::replies! {
    /// Replies of `Exec`: its process, pieces of its output, and last its exit status.
    ExecReply {
        ;
        pid: i64, input: i64, stdout: String, stderr: String, exit_code: i64, signal: i64, truncated: bool,
        stdout_text: String, stderr_text: String
    }
}

impl Stream for Exec {}

impl StreamMethod for Exec {
    fn start(self, vm: &Handle) -> Result<BoxStream<'static, Result<ExecReply, WireError>>, WireError> {
        let pieces = vm.exec_in_pieces(self.checked()?);
        let replies = stream::unfold(pieces, |mut pieces| async move {
            let piece = pieces.recv().await?;
            Some((piece.map(reply).map_err(WireError::from), pieces))
        });
        Ok(replies.boxed())
    }

    /// Everything at the end, as far as it fits.
    async fn once(self, vm: &Handle) -> Result<ExecReply, WireError> {
        let exec = self.checked()?;
        if exec.input {
            // nobody could learn the handle
            return Err(WireError::expected_more());
        }
        let mut pieces = vm.exec_in_pieces(exec);
        let (mut stdout, mut stderr) = (Beginning::default(), Beginning::default());
        let mut process = None;
        while let Some(piece) = pieces.recv().await {
            match piece? {
                Piece::Started { pid, .. } => process = pid,
                Piece::Output(bytes) => stdout.take(&bytes),
                Piece::Error(bytes) => stderr.take(&bytes),
                ended @ Piece::Ended(_) => {
                    let reply = reply(ended);
                    let is_cut = stdout.is_cut || stderr.is_cut;
                    return Ok(ExecReply {
                        pid: process,
                        stdout: Some(stdout.base64()),
                        stderr: Some(stderr.base64()),
                        stdout_text: stdout.text(),
                        stderr_text: stderr.text(),
                        truncated: reply.truncated.or(is_cut.then_some(true)),
                        ..reply
                    });
                }
            }
        }
        Err(ChangeError::not_running().into())
    }
}

impl CallMethod for WriteExecInput {
    const NEEDS: Use = Use::Wait;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<Nothing, WireError> {
        if let Some(data) = self.data {
            let bytes = BASE64.decode(data).map_err(|error| ChangeError::invalid("data", error))?;
            vm.write_input(self.input, bytes).await?;
        }
        if self.end == Some(true) {
            vm.end_input(self.input)?;
        }
        Ok(Nothing {})
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
            return Err(ChangeError::invalid("stdin", "at most 512 KiB; `input` takes more"));
        }
        let agent_timeout = agent_timeout(self.agent_timeout_ms)?;
        let timeout = timeout(self.timeout_ms)?;
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(ChangeError::invalid("timeout_ms", "the time must be more than 0"));
        }
        let input = self.input.unwrap_or_default();
        Ok(vm::Exec { command: self.command, env, stdin, input, timeout, agent_timeout })
    }
}

fn reply(piece: Piece) -> ExecReply {
    let nothing = ExecReply {
        pid: None,
        input: None,
        stdout: None,
        stderr: None,
        exit_code: None,
        signal: None,
        truncated: None,
        stdout_text: None,
        stderr_text: None,
    };
    match piece {
        Piece::Started { pid, input } => ExecReply { pid, input, ..nothing },
        Piece::Output(bytes) => ExecReply { stdout: Some(BASE64.encode(bytes)), ..nothing },
        Piece::Error(bytes) => ExecReply { stderr: Some(BASE64.encode(bytes)), ..nothing },
        Piece::Ended(Executed { exit_code, signal, truncated, .. }) => {
            ExecReply { exit_code, signal, truncated: truncated.then_some(true), ..nothing }
        }
    }
}
