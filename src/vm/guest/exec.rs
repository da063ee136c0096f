//! Commands inside the guest: `guest-exec` starts one, `guest-exec-status` polls it.
//!
//! The agent keeps the output, at most 16 MiB of each stream, and returns it at the end. This is for short commands of vmrun's own,
//! and for guests in which `streams` has no way.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use qapi::qga::{GuestExec, GuestExecCaptureOutput, guest_exec, guest_exec_status};
use tokio::time::Instant;

use crate::host::log_context;
use crate::qemu::refusals::Refusal;

use super::agent::Presence;
use super::files::{Part, Upload};
use super::stream_shell::SHELL;
use super::{AGENT_TIMEOUT, Looks};
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::handle::Handle;

/// Where programs are searched. A given environment replaces the agent's completely, including this.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Kills a process with its descendants: children of a shell would continue otherwise.
const KILL: &str =
    "end() { for c in $(cat /proc/$1/task/*/children 2>/dev/null); do end $c; done; kill -9 $1; }; end $0";

/// How long the agent may take to kill a command that has timed out.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of input that are passed with the command itself. Measured: the agent needs 0.1 s for 16 KiB, 1.2 s for 64 KiB,
/// 70 s for 512 KiB; as a file they arrive in a third of a second.
const DIRECT_STDIN: usize = 16 << 10;
/// Runs the remaining arguments with the file as standard input; removes the file first.
const WITH_STDIN: &str = "f=$1; shift; exec < \"$f\" && rm -f \"$f\" && exec \"$@\"";

/// A command for the guest.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    /// The program, searched in the agent's `PATH`, and its arguments.
    pub command: Vec<String>,
    /// `NAME=VALUE`. If there are any, the command gets only these and a `PATH`.
    pub env: Vec<String>,
    /// Its standard input.
    pub stdin: Option<Vec<u8>>,
    /// Further input comes piece by piece, by [`Handle::write_input`].
    pub input: bool,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// How long to wait for an agent that does not answer yet; default 10 s.
    pub agent_timeout: Option<Duration>,
}

impl Exec {
    /// A script for the guest's shell, and its arguments `$1`, `$2`, ...
    pub fn script(script: &str, arguments: &[&str]) -> Self {
        let words = [SHELL, "-c", script, "sh"];
        let command = words.iter().chain(arguments).map(|word| (*word).to_owned()).collect();
        Self { command, ..Self::default() }
    }
}

/// How a command in the guest ended. It prints its output as text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Executed {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// Its exit code, unless a signal ended it.
    pub exit_code: Option<i64>,
    /// The signal that ended it.
    pub signal: Option<i64>,
    /// The agent kept only the beginning of the output.
    pub truncated: bool,
}

impl Executed {
    /// It exited with code 0, and nothing of its output was cut.
    pub fn success(&self) -> bool {
        self.exit_code == Some(0) && !self.truncated
    }

    /// Its standard output as text; what is not UTF-8 is replaced by U+FFFD.
    pub fn stdout_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// Its standard error as text; what is not UTF-8 is replaced by U+FFFD.
    pub fn stderr_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }
}

impl fmt::Debug for Executed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executed")
            .field("stdout", &self.stdout_text())
            .field("stderr", &self.stderr_text())
            .field("exit_code", &self.exit_code)
            .field("signal", &self.signal)
            .field("truncated", &self.truncated)
            .finish()
    }
}

/// Its status, and what it has written, a line each.
impl fmt::Display for Executed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.exit_code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}")?,
            (None, Some(signal)) => write!(f, "ended by signal {signal}")?,
            (None, None) => f.write_str("not ended")?,
        }
        if self.truncated {
            f.write_str(" (the agent kept only the beginning of the output)")?;
        }
        for (name, text) in [("stdout", self.stdout_text()), ("stderr", self.stderr_text())] {
            if !text.is_empty() {
                write!(f, "\n{name}:\n{}", text.trim_end_matches('\n'))?;
            }
        }
        Ok(())
    }
}

impl Handle {
    /// Runs a command in the guest, whose output comes in one piece at the end. If this future is dropped, or on a timeout, the
    /// command is killed.
    ///
    /// # Errors
    /// `NoSuchThing`: the guest has no such program; `RefusedByGuest`: it cannot be started; `TimedOut`.
    pub(in crate::vm) async fn exec(&self, exec: Exec) -> Result<Executed, ChangeError> {
        self.in_guest(exec.agent_timeout.unwrap_or(AGENT_TIMEOUT), async {
            let limit = Limit::of(&exec);
            let (exec, stdin) = self.with_stdin(exec).await?;
            let mut process = self.start(exec, true).await?;
            // the script removes that before the command starts
            stdin.into_iter().for_each(Part::keep);
            let finished = self.finish(process.pid);
            limit.apply(&mut process, finished).await
        })
        .await
    }

    /// Writes a large standard input to a file, if the guest has a shell that can read it from there.
    async fn with_stdin(&self, exec: Exec) -> Result<(Exec, Option<Part>), ChangeError> {
        let Some(stdin) = exec.stdin.as_ref().filter(|stdin| stdin.len() > DIRECT_STDIN) else {
            return Ok((exec, None));
        };
        let path = format!("/tmp/vmrun-stdin-{:08x}", rand::random::<u32>());
        let mut upload = self.upload_of_a_command(&path).await?;
        upload.write(stdin).await?;
        let file = Part::of(self, path.clone());
        Box::pin(upload.finish(None, None)).await?;
        let mut command = Exec::script(WITH_STDIN, &[&path]).command;
        command.extend(exec.command);
        Ok((Exec { command, stdin: None, ..exec }, Some(file)))
    }

    /// Boxed: an upload runs commands of its own.
    fn upload_of_a_command<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Upload, ChangeError>> {
        Box::pin(self.upload(path, None, None))
    }

    /// Starts a command. `captured`: the agent keeps its output, which it need not where that flows through ports.
    pub(super) async fn start(&self, exec: Exec, captured: bool) -> Result<Process, ChangeError> {
        let Some((path, arguments)) = exec.command.split_first() else {
            return Err(ChangeError::invalid("command", "there is no command to run"));
        };
        let has_path = exec.env.iter().any(|variable| variable.starts_with("PATH="));
        let with_path = (!has_path).then(|| PATH.to_owned());
        let env = (!exec.env.is_empty()).then(|| exec.env.iter().cloned().chain(with_path).collect());
        let call = guest_exec {
            path: path.clone(),
            arg: Some(arguments.to_vec()),
            env,
            input_data: exec.stdin,
            capture_output: captured.then_some(GuestExecCaptureOutput::flag(true)),
        };
        let process = |vm, started: GuestExec| Process { vm, pid: started.pid, unwanted: true };
        self.make_in_guest(call, process).await.map_err(|error| not_started(error, path))
    }

    /// Waits for a command's end.
    pub(super) async fn finish(&self, pid: i64) -> Result<Executed, ChangeError> {
        let mut looks = Looks::new();
        loop {
            if let Some(executed) = self.exited(pid).await? {
                return Ok(executed);
            }
            looks.pause().await;
        }
    }

    /// How a command has ended, if it has; the agent tells that once.
    pub(super) async fn exited(&self, pid: i64) -> Result<Option<Executed>, ChangeError> {
        let status = self.call_agent(guest_exec_status { pid }).await?;
        Ok(status.exited.then(|| Executed {
            stdout: status.out_data.unwrap_or_default(),
            stderr: status.err_data.unwrap_or_default(),
            exit_code: status.exitcode,
            signal: status.signal,
            truncated: [status.out_truncated, status.err_truncated].contains(&Some(true)),
        }))
    }

    async fn kill(&self, pid: i64) -> Result<(), ChangeError> {
        let call = guest_exec {
            path: SHELL.to_owned(),
            arg: Some(vec!["-c".to_owned(), KILL.to_owned(), pid.to_string()]),
            env: None,
            input_data: None,
            capture_output: None,
        };
        self.call_agent(call).await.map(drop)
    }
}

/// A process in the guest; killed with its descendants when this is dropped.
pub(super) struct Process {
    pub(super) vm: Handle,
    pub(super) pid: i64,
    /// Its end is not known, and its client has gone: kill it.
    pub(super) unwanted: bool,
}

/// How long a command may run, from now on.
pub(super) struct Limit {
    program: String,
    started: Instant,
    timeout: Option<Duration>,
}

impl Limit {
    pub(super) fn of(exec: &Exec) -> Self {
        let program = exec.command.first().cloned().unwrap_or_default();
        Self { program, started: Instant::now(), timeout: exec.timeout }
    }

    /// Waits for a process, and kills it when its time is over.
    pub(super) async fn apply<T>(
        &self,
        process: &mut Process,
        finished: impl Future<Output = Result<T, ChangeError>>,
    ) -> Result<T, ChangeError> {
        let finished = match self.timeout {
            Some(timeout) => tokio::time::timeout_at(self.started + timeout, finished).await.ok(),
            None => Some(finished.await),
        };
        if let Some(result) = finished {
            process.unwanted = result.is_err();
            return result;
        }
        let end = match tokio::time::timeout(KILL_TIMEOUT, process.vm.kill(process.pid)).await {
            Ok(Ok(())) => {
                process.unwanted = false;
                "and was killed".to_owned()
            }
            Ok(Err(error)) => {
                process.unwanted = false;
                format!("and could not be killed: {error}")
            }
            // tried once more when `process` is dropped
            Err(_) => "and may still run: the guest agent does not answer".to_owned(),
        };
        let waited = crate::spec::duration::format(self.timeout.unwrap_or_default());
        let message = format!("'{}' did not end within {waited} {end}", self.program);
        Err(ChangeError::new(ErrorKind::TimedOut, message))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.unwanted && !matches!(self.vm.agent.presence(), Presence::Lost(_)) {
            let (vm, pid) = (self.vm.clone(), self.pid);
            log_context::spawn(async move {
                // in a fork that has just started it has not been heard yet
                if tokio::time::timeout(AGENT_TIMEOUT, vm.agent.answers()).await.is_err() {
                    return;
                }
                if let Err(error) = vm.kill(pid).await {
                    log::warn!("process {pid} of the guest could not be killed: {error}");
                }
            });
        }
    }
}

/// The agent gives the reason in glib's wording: `Failed to execute child process “x” (No such file or directory)`.
fn not_started(error: ChangeError, path: &str) -> ChangeError {
    // an error about the agent itself says nothing about the program
    if !matches!(&error.kind, ErrorKind::RefusedByGuest { id } if id == "guest-exec") {
        return error;
    }
    let id = path.to_owned();
    if Refusal::NoSuchFile.is_in(&error.message) {
        let message = format!("the guest has no command '{path}'");
        return ChangeError::new(ErrorKind::NoSuchThing { id }, message);
    }
    ChangeError::new(ErrorKind::RefusedByGuest { id }, error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_told_from_what_does_not_start() {
        let refused = |desc: &str| {
            let kind = ErrorKind::RefusedByGuest { id: "guest-exec".to_owned() };
            not_started(ChangeError::new(kind, desc), "x").kind
        };
        let id = "x".to_owned();
        assert_eq!(
            refused("Failed to execute child process “x” (No such file or directory)"),
            ErrorKind::NoSuchThing { id: id.clone() }
        );
        assert_eq!(
            refused("Failed to execute child process “x” (Permission denied)"),
            ErrorKind::RefusedByGuest { id }
        );
    }

    #[test]
    fn a_command_prints_as_text() {
        let done = Executed {
            stdout: "gr\u{fc}n\nrot\n".into(),
            stderr: b"no \xff\n".to_vec(),
            exit_code: Some(3),
            ..Executed::default()
        };
        assert_eq!(done.to_string(), "exit code 3\nstdout:\ngr\u{fc}n\nrot\nstderr:\nno \u{fffd}");
        let debug = format!("{done:?}");
        assert!(debug.contains("stdout: \"gr\u{fc}n\\nrot\\n\""), "{debug}");
        assert!(!done.success());
        let killed = Executed { signal: Some(9), truncated: true, ..Executed::default() };
        assert!(killed.to_string().starts_with("ended by signal 9 ("), "{killed}");
        let cut = Executed { exit_code: Some(0), truncated: true, ..Executed::default() };
        assert!(!cut.success() && Executed { truncated: false, ..cut }.success());
    }
}
