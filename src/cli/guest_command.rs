//! Runs a command in a guest as if it ran here: its streams are ours, and so is its exit code.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::control::client::{Client, ClientError};
use crate::control::verbs::Wait;
use crate::host::files;
use crate::machine::{self, Happened, Input};
use crate::spec::Condition;
use crate::vm::{Exec, Executed};

use super::failure::Failure;
use super::output::{Stderr, Stdout, tell};

/// The guest has no such program; a shell's code.
pub(super) const NOT_FOUND: u8 = 127;
/// The program does not start; a shell's code.
pub(super) const NOT_STARTED: u8 = 126;
/// Added to the number of the signal that ended the command; a shell's code.
const SIGNALLED: i64 = 128;
/// How long a guest whose agent has ended may take to go down.
const LAST_STEPS: Duration = Duration::from_secs(5);
/// Sends a signal ($1) to the children of a process of the guest ($2): that is the command, below the shell that connects its streams.
const SIGNAL: &str = "for c in $(cat /proc/$2/task/*/children 2>/dev/null); do kill -\"$1\" $c; done";

/// What becomes of the output.
#[derive(Debug)]
pub(super) enum OutputTo<'a> {
    /// It is kept here, also when the command fails or its time is over.
    Collected(&'a mut Executed),
    /// It is printed. If its reader has gone, the command is ended, and ends as if by SIGPIPE, as it would here.
    Printed,
}

/// What the writer of a pipe gets if its reader has gone.
pub(super) const SIGPIPE: i64 = 13;

/// Runs a command; our standard input is its input if it takes one. `started` gets the id of its process in the guest, where that is
/// known, and returns whether the command is to go on.
pub(super) fn run(
    client: &mut Client,
    exec: Exec,
    mut to: OutputTo<'_>,
    started: impl FnOnce(Option<i64>) -> bool,
) -> Result<Executed, Failure> {
    let program = exec.command.first().cloned().unwrap_or_default();
    // the thread that reads it ends with this process, if it waits for input that does not come
    let input = exec.input.then(|| Input { source: Box::new(std::io::stdin()), broken: unreadable });
    let (mut out, mut err) = (Stdout::default(), Stderr::default());
    let mut started = Some(started);
    let each = |happened: Happened<'_>| {
        match happened {
            Happened::Started(pid) => {
                if !started.take().is_none_or(|started| started(pid)) {
                    return false;
                }
            }
            Happened::Wrote(stdout, stderr) => match &mut to {
                OutputTo::Collected(collected) => {
                    collected.stdout.extend(stdout);
                    collected.stderr.extend(stderr);
                }
                OutputTo::Printed => {
                    out.raw(stdout);
                    err.raw(stderr);
                }
            },
        }
        // the end of the call ends the command
        !(out.is_broken() || err.has_no_reader())
    };
    let ended = machine::exec_streamed(client, exec, input, each);
    // why nothing more was wanted; this process ends now, and its connection with it
    if !out.failed() && (out.is_broken() || err.has_no_reader()) {
        return Ok(Executed { signal: Some(SIGPIPE), ..Executed::default() });
    }
    out.finish()?;
    err.finish()?;
    let executed = match ended {
        Err(error) if started.is_none() && has_gone(client, &error) => return Err(went_down(&program)),
        ended => ended.map_err(|error| failed(error, &program))?,
    };
    if let OutputTo::Collected(collected) = to {
        let Executed { exit_code, signal, truncated, .. } = executed;
        (collected.exit_code, collected.signal, collected.truncated) = (exit_code, signal, truncated);
    }
    match executed.truncated {
        true => Err(cut(&executed)),
        false => Ok(executed),
    }
}

/// Whether the VM has ended meanwhile, or ends now: the agent goes first.
fn has_gone(client: &mut Client, error: &ClientError) -> bool {
    match error {
        ClientError::Gone => true,
        ClientError::Remote(error) if error.name() == "NoGuestAgent" => {
            let timeout_ms = Some(machine::milliseconds(LAST_STEPS));
            let conditions = vec![Condition::Exit.to_string()];
            client.call(Wait { conditions, all: None, timeout_ms, from_now: None }).is_ok()
        }
        ClientError::Remote(error) => error.name() == "NotRunning",
        _ => false,
    }
}

fn went_down(program: &str) -> Failure {
    let failure = Failure::not_running(format!("the guest went down while '{program}' ran"));
    failure.hint(Some("`vmrun ctl shutdown` waits for that, and says how it ended".to_owned()))
}

/// The failure that output is missing; with the exit code of the command, if that is one of failure.
fn cut(executed: &Executed) -> Failure {
    let failure = Failure::other("the guest agent has kept only the first 16 MiB of the output");
    let hint = "let the command write to a file, and fetch that with `copy-from`";
    Failure { exit_code: exit_code(executed).max(failure.exit_code), ..failure }.hint(Some(hint.to_owned()))
}

/// Whether there may be something to read on our standard input: it is open, and not `/dev/null`.
pub(super) fn has_stdin() -> bool {
    files::is_null(std::io::stdin().as_fd()).is_ok_and(|is_null| !is_null)
}

fn unreadable(error: std::io::Error) {
    tell(&format!("vmrun: standard input cannot be read: {error}"));
}

/// The command that sends a signal, by its name without `SIG`, to a command with this process in the guest.
pub(super) fn signal(name: &str, pid: i64) -> Exec {
    Exec::script(SIGNAL, &[name, &pid.to_string()])
}

/// The program's exit code for a command's end.
pub(super) fn exit_code(executed: &Executed) -> u8 {
    let signalled = |signal: i64| signal.checked_add(SIGNALLED).filter(|code| *code > SIGNALLED);
    // a guest that is not Linux may have other codes, and an agent may lie: never 0 for a failure
    let code = executed.signal.map_or(executed.exit_code, signalled);
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// The same for a command whose input must flow while it runs; `so`: what is not possible in a guest without that. `started` gets the
/// command's process, and returns whether it is to go on.
pub(super) fn run_live(
    client: &mut Client,
    exec: Exec,
    to: OutputTo<'_>,
    so: &str,
    started: impl FnOnce(i64) -> bool,
) -> Result<Executed, Failure> {
    let mut refused = false;
    // without ports the input would be collected until it ends
    let begun = |pid: Option<i64>| match pid {
        Some(pid) => started(pid),
        None => {
            refused = true;
            false
        }
    };
    let ended = run(client, exec, to, begun);
    if refused { Err(no_streams(so)) } else { ended }
}

/// The failure that a guest carries a command's input in one piece only, after its end.
fn no_streams(so: &str) -> Failure {
    let failure = Failure::refused(format!("this guest takes no input while a command runs: {so}"));
    let hint = "its /bin/sh must be able to open /dev/vport*, for which a Linux needs virtio_console; `vmrun console` is another way in";
    failure.hint(Some(hint.to_owned()))
}

/// Parses a variable for a command.
pub(super) fn variable(text: &str) -> Result<String, String> {
    match text.find('=') {
        Some(at) if at > 0 => Ok(text.to_owned()),
        _ => Err("not of the form NAME=VALUE".to_owned()),
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
    let failure = match code {
        // a line for a shell was taken for the name of a program
        Some(NOT_FOUND) if program.contains(char::is_whitespace) => {
            let line = shlex::try_quote(program).unwrap_or_default();
            failure.hint(Some(format!("it is run without a shell; with one: `sh -c {line}`")))
        }
        _ => failure,
    };
    Failure { exit_code: code.unwrap_or(failure.exit_code), ..failure }
}
