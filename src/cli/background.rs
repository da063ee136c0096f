//! Forks a supervisor into a session of its own, and waits for its reports.
//!
//! ```text
//! caller                      supervisor
//!   ◄────── Running ────────────┤      the VM runs: its name can be printed
//!   ◄────── Up or Failed ───────┤      it is ready, or will not be
//!   ├────── `\n` ───────────────►      the caller leaves the VM: it has printed everything
//!   ├────── `=` and a byte ─────►      what the VM was for has ended, with this exit code: the VM ends as planned
//! ```
//!
//! If the caller's end is closed without any of these, the supervisor ends the VM: the caller may not have printed its name, or it is the
//! caller's own.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::host::sys::{self, Fork, fork};

use super::failure::Failure;
use super::waiting;

/// What the supervisor reports to the process that started it, one line each.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Running { name: String },
    Up { name: String },
    Failed { code: String, message: String, hint: Option<String>, exit_code: u8 },
}

/// The connection to the caller.
pub(super) struct Reporter(Option<UnixStream>);

impl Reporter {
    /// The VM runs, and may not be ready yet.
    pub(super) fn running(&mut self, name: &str) {
        self.tell(&Report::Running { name: name.to_owned() });
    }

    /// The VM is up: closes the caller's terminal, pipes and folder.
    pub(super) fn up(&mut self, name: &str) {
        leave_streams();
        self.tell(&Report::Up { name: name.to_owned() });
        self.0 = None;
    }

    /// The start has failed.
    pub(super) fn failed(&mut self, failure: &Failure) {
        let Failure { code, message, hint, exit_code } = failure;
        self.tell(&Report::Failed {
            code: code.clone(),
            message: message.clone(),
            hint: hint.clone(),
            exit_code: *exit_code,
        });
        self.0 = None;
    }

    /// The VM is up, but not ready: reports it and closes the caller's streams.
    pub(super) fn up_but_failed(&mut self, failure: &Failure) {
        leave_streams();
        self.failed(failure);
    }

    /// The caller, to be awaited beside the reports.
    pub(super) fn caller(&self) -> Result<Caller, Failure> {
        let stream = self.0.as_ref().map(UnixStream::try_clone).transpose()?;
        Ok(Caller(stream))
    }

    fn tell(&mut self, what: &Report) {
        if let (Some(caller), Ok(mut line)) = (&mut self.0, serde_json::to_vec(what)) {
            line.push(b'\n');
            // `Caller` detects that it has gone
            let _ = caller.write_all(&line);
        }
    }
}

/// The process that started a VM in the background.
pub(super) struct Caller(Option<UnixStream>);

impl Caller {
    /// A second reporter, for use before the VM is ready.
    pub(super) fn running(&mut self, name: &str) {
        let mut reporter = Reporter(self.0.take());
        reporter.running(name);
        self.0 = reporter.0;
    }

    /// Waits until the caller says what becomes of the VM, or has gone. If the VM is to end, the connection stays open until this process
    /// ends, which the caller may wait for.
    pub(super) async fn decision(self) -> Decision {
        let stream = self.0.map(|stream| stream.set_nonblocking(true).map(|()| stream));
        let Some(Ok(stream)) = stream else { return Decision::Gone };
        let Ok(mut stream) = tokio::net::UnixStream::from_std(stream) else { return Decision::Gone };
        let decision = match stream.read_u8().await {
            Ok(LEAVES) => return Decision::Leaves,
            Ok(HAS_RUN) => stream.read_u8().await.map_or(Decision::Gone, Decision::HasRun),
            _ => Decision::Gone,
        };
        std::mem::forget(stream);
        decision
    }
}

/// What becomes of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It runs on.
    Leaves,
    /// It ends: its command has ended, with this exit code.
    HasRun(u8),
    /// It ends: its caller has gone.
    Gone,
}

/// The byte of [`Decision::Leaves`], and the one before the exit code of [`Decision::HasRun`].
const LEAVES: u8 = b'\n';
const HAS_RUN: u8 = b'=';

/// A VM that runs in the background, and ends when this process does, however that ends.
pub(super) struct Started {
    /// Its name.
    pub(super) name: String,
    supervisor: UnixStream,
}

impl Started {
    /// Leaves it running.
    pub(super) fn leave(mut self) {
        // an error means that it has ended
        let _ = self.supervisor.write_all(&[LEAVES]);
    }

    /// Ends it after its command has ended with this exit code.
    pub(super) fn end_after(mut self, exit_code: u8) {
        // an error means that it has ended
        let _ = self.supervisor.write_all(&[HAS_RUN, exit_code]);
        self.end();
    }

    /// Ends it; returns when its supervisor has ended, too.
    pub(super) fn end(mut self) {
        if self.supervisor.shutdown(Shutdown::Write).is_ok() {
            let _ = std::io::copy(&mut self.supervisor, &mut std::io::sink());
        }
    }
}

/// Runs `job` in a forked process; returns the VM that it reports, or its failure. `running` is called with the VM's name as soon as it
/// runs.
pub(super) fn in_background(
    job: impl FnOnce(&mut Reporter) -> Result<u8, Failure>,
    mut running: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<Started, Failure> {
    let (mut supervisor, caller) = UnixStream::pair()?;
    waiting::end();
    match fork()? {
        Fork::Parent(_) => {
            drop(caller);
            // a signal ends this process now, and the VM with it, as long as that is not left running
            sys::restore_end_actions();
            for line in BufReader::new(supervisor.try_clone()?).lines() {
                let failure = match serde_json::from_str(&line?) {
                    Ok(Report::Running { name }) => {
                        running(&name)?;
                        continue;
                    }
                    Ok(Report::Up { name }) => return Ok(Started { name, supervisor }),
                    Ok(Report::Failed { code, message, hint, exit_code }) => {
                        Failure { code, message, hint, exit_code }
                    }
                    Err(_) => break,
                };
                let _ = supervisor.write_all(&[LEAVES]);
                return Err(failure);
            }
            Err(Failure::other("the supervisor ended before it could say why"))
        }
        Fork::Child => {
            drop(supervisor);
            let mut reporter = Reporter(Some(caller));
            let result = nix::unistd::setsid().map_err(|error| Failure::other(std::io::Error::from(error)));
            let code = result.and_then(|_| job(&mut reporter)).unwrap_or_else(|failure| {
                reporter.failed(&failure);
                failure.exit_code
            });
            // no return into the caller's code: its buffers and guards belong to the parent
            std::process::exit(code.into());
        }
    }
}

fn leave_streams() {
    let leave = || {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        nix::unistd::dup2_stdin(null.as_fd())?;
        nix::unistd::dup2_stdout(null.as_fd())?;
        nix::unistd::dup2_stderr(null.as_fd())?;
        std::env::set_current_dir("/")
    };
    if let Err(error) = leave() {
        log::warn!("the caller's streams could not be closed: {error}");
    }
}
