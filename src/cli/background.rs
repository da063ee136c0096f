//! Forks a supervisor into a session of its own, and waits for its reports.
//!
//! ```text
//! caller                      supervisor
//!   ◄────── Running ────────────┤      the VM runs: its name can be printed
//!   ◄────── Up or Failed ───────┤      it is ready, or will not be
//!   ├────── one byte ───────────►      the caller leaves the VM: it has printed everything
//! ```
//!
//! If the caller's end is closed without that byte, the supervisor ends the VM: the caller may not have printed its name, or it is the
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

    /// Waits until the caller has said that the VM is not its own any more (true), or has gone before that (false). In the second case
    /// the connection stays open until this process ends, which the caller may wait for.
    pub(super) async fn has_left_it(self) -> bool {
        let stream = self.0.map(|stream| stream.set_nonblocking(true).map(|()| stream));
        let Some(Ok(stream)) = stream else { return false };
        let Ok(mut stream) = tokio::net::UnixStream::from_std(stream) else { return false };
        let has_left_it = matches!(stream.read(&mut [0]).await, Ok(1));
        if !has_left_it {
            std::mem::forget(stream);
        }
        has_left_it
    }
}

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
        let _ = self.supervisor.write_all(b"\n");
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
                let _ = supervisor.write_all(b"\n");
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
