//! `exec`.

use std::io::Read;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::control::MAX_STDIN;
use crate::control::client::ClientError;
use crate::machine;
use crate::spec::duration;
use crate::vm::Executed;

use super::super::failure::Failure;
use super::super::output::{Lines, Stderr, Stdout, tell};
use super::agent_args::AgentArgs;
use super::verb::{Context, Verb};

/// The guest has no such program; a shell's code.
const NOT_FOUND: u8 = 127;
/// The program does not start; a shell's code.
const NOT_STARTED: u8 = 126;
/// Added to the number of the signal that ended the command; a shell's code.
const SIGNALLED: i64 = 128;

#[derive(Debug, Args)]
pub(super) struct Exec {
    /// Pass standard input to the command (at most 512 KiB)
    #[arg(long)]
    stdin: bool,
    /// Variable for the command, which then gets only these and a PATH; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<String>,
    /// Kill the command after this time
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse)]
    timeout: Option<Duration>,
    #[command(flatten)]
    agent: AgentArgs,
    /// Command and its arguments, run without a shell
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Verb for Exec {
    const ABOUT: &'static str =
        "Run a command in the guest, through its agent; exits with the command's own code";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = machine::exec_call(crate::vm::Exec {
            command: self.command,
            env: self.env,
            stdin: self.stdin.then(read_stdin).transpose()?,
            timeout: self.timeout,
            agent_timeout: Some(self.agent.agent_timeout),
        });
        let as_json = context.output.json;
        let program = call.command.first().cloned().unwrap_or_default();
        let mut output = machine::Output::default();
        let (mut out, mut err) = (Stdout::default(), Stderr::default());
        let each = |reply| {
            output.take(reply);
            if !as_json {
                let (stdout, stderr) = output.pieces();
                out.raw(&stdout);
                err.raw(&stderr);
            }
            // if the reader of our output has gone, the command continues and its exit code counts; any other write error ends the
            // command
            !out.failed()
        };
        context.client.stream(call, each).map_err(|error| failed(error, &program))?;
        out.finish()?;
        err.finish()?;
        // the stream also ends, without a reply, when the VM does
        let Some(got) = output.ended() else { return Err(ClientError::Gone.into()) };
        if got.truncated {
            tell(
                "vmrun: the guest agent has kept only the first 16 MiB of the output\nhint: let the command write to a file, and fetch that with `copy-from`",
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
            context.output.print(&facts, Lines::default)?;
        }
        Ok(code(&got))
    }
}

fn variable(text: &str) -> Result<String, String> {
    match text.find('=') {
        Some(at) if at > 0 => Ok(text.to_owned()),
        _ => Err("not of the form NAME=VALUE".to_owned()),
    }
}

fn code(got: &Executed) -> u8 {
    let signalled = |signal: i64| signal.checked_add(SIGNALLED).filter(|code| *code > SIGNALLED);
    // a guest that is not Linux may have other codes, and an agent may lie: never 0 for a failure
    let code = got.signal.map_or(got.exit_code, signalled);
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

fn failed(error: ClientError, program: &str) -> Failure {
    let code = match &error {
        // an error about the agent itself is no shell's code
        ClientError::Remote(error) if error.text("id") != Some(program) => None,
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
