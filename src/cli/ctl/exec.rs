//! `exec`.

use std::io::{Read, Write};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use clap::Args;
use serde_json::json;

use crate::control::client::ClientError;
use crate::control::{MAX_STDIN, methods, wire};
use crate::spec::duration;

use super::super::failure::Failure;
use super::Context;

/// The guest has no such program; as shells say it.
const NOT_FOUND: u8 = 127;
/// It has one that does not start; as shells say it.
const NOT_STARTED: u8 = 126;
/// Added to the number of the signal that ended the command; as shells say it.
const SIGNALLED: i64 = 128;

/// `exec`.
#[derive(Debug, Args)]
pub(super) struct Exec {
    /// Hand this program's standard input to the command (at most 512 KiB)
    #[arg(long)]
    stdin: bool,
    /// A variable for the command, which then gets only these and a PATH; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<String>,
    /// Kill the command after this time
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// The command and its arguments; no shell looks at them
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn variable(text: &str) -> Result<String, String> {
    match text.find('=') {
        Some(at) if at > 0 => Ok(text.to_owned()),
        _ => Err("not of the form NAME=VALUE".to_owned()),
    }
}

/// What has come so far.
#[derive(Default)]
struct Got {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exit_code: Option<i64>,
    signal: Option<i64>,
    truncated: bool,
}

impl Exec {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let stdin = if self.stdin { Some(BASE64.encode(read_stdin()?)) } else { None };
        let call = wire::Exec {
            command: self.command,
            env: (!self.env.is_empty()).then_some(self.env),
            stdin,
            timeout_ms: self.timeout.map(|timeout| i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX)),
        };
        let as_json = context.output.json;
        let mut got = Got::default();
        context
            .client
            .stream(methods::Exec, call, |reply: wire::ExecReply| got.take(reply, as_json))
            .map_err(failed)?;
        // the stream also ends, without a word, when the VM does
        let Some(code) = got.code() else { return Err(ClientError::Gone.into()) };
        if got.truncated {
            let _ = writeln!(
                std::io::stderr(),
                "vmrun: the guest agent has kept only the first 16 MiB of the output\nhint: let the command write to a file, and fetch that with `copy-from`"
            );
        }
        if as_json {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let facts = json!({
                "exit_code": got.exit_code,
                "signal": got.signal,
                "stdout": text(&got.stdout),
                "stderr": text(&got.stderr),
                "truncated": got.truncated,
            });
            context.output.print(&facts, String::new)?;
        }
        Ok(code)
    }
}

impl Got {
    /// Passes a piece on, or keeps it for the JSON; wants more.
    fn take(&mut self, reply: wire::ExecReply, keep: bool) -> bool {
        let bytes = |data: Option<String>| BASE64.decode(data.unwrap_or_default()).unwrap_or_default();
        let (stdout, stderr) = (bytes(reply.stdout), bytes(reply.stderr));
        if keep {
            self.stdout.extend(stdout);
            self.stderr.extend(stderr);
        } else {
            // whoever closed our output does not want it; the exit code still counts
            let _ = std::io::stdout().write_all(&stdout).and_then(|()| std::io::stdout().flush());
            let _ = std::io::stderr().write_all(&stderr);
        }
        self.exit_code = self.exit_code.or(reply.exit_code);
        self.signal = self.signal.or(reply.signal);
        self.truncated |= reply.truncated.unwrap_or(false);
        true
    }

    fn code(&self) -> Option<u8> {
        let code = self.signal.map(|signal| SIGNALLED + signal).or(self.exit_code)?;
        // a guest that is not Linux may have others: never 0 for what was not 0
        Some(u8::try_from(code).unwrap_or(u8::MAX))
    }
}

fn failed(error: ClientError) -> Failure {
    let code = match &error {
        ClientError::Remote(error) if error.name() == "NoSuchThing" => Some(NOT_FOUND),
        ClientError::Remote(error) if error.name() == "RefusedByGuest" => Some(NOT_STARTED),
        _ => None,
    };
    let failure = Failure::from(error);
    Failure { exit_code: code.unwrap_or(failure.exit_code), ..failure }
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_STDIN).unwrap_or(u64::MAX) + 1;
    std::io::stdin().lock().take(most).read_to_end(&mut bytes)?;
    match bytes.len() > MAX_STDIN {
        true => Err(Failure::usage("the standard input has more than 512 KiB").hint(Some(
            "copy it into the guest with `copy-to`, and let the command read the file".to_owned(),
        ))),
        false => Ok(bytes),
    }
}
