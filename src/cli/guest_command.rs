//! Runs a command in a guest as if it ran here: its streams are ours, and so is its exit code.

use std::io::Read;
use std::thread;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;

use crate::control::client::{Client, ClientError};
use crate::control::verbs::{ExecReply, WriteExecInput};
use crate::machine;
use crate::vm::{Exec, Executed};

use super::failure::Failure;
use super::output::{Stderr, Stdout, tell};

/// The guest has no such program; a shell's code.
const NOT_FOUND: u8 = 127;
/// The program does not start; a shell's code.
const NOT_STARTED: u8 = 126;
/// Added to the number of the signal that ended the command; a shell's code.
const SIGNALLED: i64 = 128;
/// Bytes of input in one call.
const INPUT_PIECE: usize = 48 << 10;

/// Runs a command; our standard input is its input if it takes one. With `collect` the output is in the result, and is not printed.
pub(super) fn run(client: &mut Client, exec: Exec, collect: bool) -> Result<Executed, Failure> {
    let call = machine::exec_call(exec);
    let program = call.command.first().cloned().unwrap_or_default();
    let mut second = if call.input == Some(true) { client.another().transpose()? } else { None };
    let mut output = machine::Output::default();
    let (mut out, mut err) = (Stdout::default(), Stderr::default());
    let each = |reply: ExecReply| {
        if let (Some(input), Some(client)) = (reply.input, second.take()) {
            // ends with this process, if it waits for input that does not come
            thread::spawn(move || feed(client, input));
        }
        output.take(reply);
        if !collect {
            let (stdout, stderr) = output.pieces();
            out.raw(&stdout);
            err.raw(&stderr);
        }
        // if the reader of our output has gone, the command continues and its exit code counts; any other write error ends the
        // command
        !out.failed()
    };
    client.stream(call, each).map_err(|error| failed(error, &program))?;
    out.finish()?;
    err.finish()?;
    // the stream also ends, without a reply, when the VM does
    let executed = output.ended().ok_or(ClientError::Gone)?;
    if executed.truncated {
        tell(
            "vmrun: the guest agent has kept only the first 16 MiB of the output\nhint: let the command write to a file, and fetch that with `copy-from`",
        );
    }
    Ok(executed)
}

/// The program's exit code for a command's end.
pub(super) fn exit_code(executed: &Executed) -> u8 {
    let signalled = |signal: i64| signal.checked_add(SIGNALLED).filter(|code| *code > SIGNALLED);
    // a guest that is not Linux may have other codes, and an agent may lie: never 0 for a failure
    let code = executed.signal.map_or(executed.exit_code, signalled);
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Parses a variable for a command.
pub(super) fn variable(text: &str) -> Result<String, String> {
    match text.find('=') {
        Some(at) if at > 0 => Ok(text.to_owned()),
        _ => Err("not of the form NAME=VALUE".to_owned()),
    }
}

/// Passes our standard input on, until it or the command ends.
fn feed(mut client: Client, input: i64) {
    let mut piece = vec![0; INPUT_PIECE];
    let mut stdin = std::io::stdin().lock();
    loop {
        let read = match stdin.read(&mut piece) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Ok(read) => read,
            Err(error) => {
                tell(&format!("vmrun: standard input cannot be read: {error}"));
                0
            }
        };
        let end = (read == 0).then_some(true);
        let data = (read > 0).then(|| BASE64.encode(&piece[..read]));
        // an error: the command has ended
        if client.call(WriteExecInput { input, data, end }).is_err() || end.is_some() {
            return;
        }
    }
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
