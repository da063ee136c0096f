//! Forks a supervisor into a session of its own, and waits for its reports.
//!
//! ```text
//! caller                      supervisor
//!   ◄────── Running ────────────┤      the VM runs: its name can be printed
//!   ◄────── Up or Failed ───────┤      it is ready, or will not be
//!   ├────── one byte ───────────►      the caller has printed everything
//! ```
//!
//! If the caller's end is closed without that byte, the supervisor knows that the caller may not have printed the VM's name.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::host::sys::{Fork, fork};

use super::failure::Failure;

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

    /// Waits until the caller has printed everything (true), or has gone before that (false).
    pub(super) async fn has_reported(self) -> bool {
        let stream = self.0.map(|stream| stream.set_nonblocking(true).map(|()| stream));
        let Some(Ok(stream)) = stream else { return false };
        match tokio::net::UnixStream::from_std(stream) {
            Ok(mut stream) => matches!(stream.read(&mut [0]).await, Ok(1)),
            Err(_) => false,
        }
    }
}

/// Runs `job` in a forked process; returns the name that it reports, or its failure. `running` is called with the VM's name as soon
/// as it runs.
pub(super) fn in_background(
    job: impl FnOnce(&mut Reporter) -> Result<u8, Failure>,
    mut running: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<String, Failure> {
    let (mut supervisor, caller) = UnixStream::pair()?;
    match fork()? {
        Fork::Parent(_) => {
            drop(caller);
            for line in BufReader::new(supervisor.try_clone()?).lines() {
                let report = match serde_json::from_str(&line?) {
                    Ok(Report::Running { name }) => {
                        running(&name)?;
                        continue;
                    }
                    Ok(Report::Up { name }) => Ok(name),
                    Ok(Report::Failed { code, message, hint, exit_code }) => {
                        Err(Failure { code, message, hint, exit_code })
                    }
                    Err(_) => break,
                };
                let _ = supervisor.write_all(b"\n");
                return report;
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
