//! Splits off a supervisor with a session of its own, and waits for its report.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::host::sys::{Fork, fork};

use super::failure::Failure;

/// What the supervisor tells the process that started it.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Up { name: String },
    Failed { code: String, message: String, hint: Option<String>, exit_code: u8 },
}

/// The way back to the caller: used once.
pub(super) struct Reporter(Option<File>);

impl Reporter {
    /// The VM is up: the caller's terminal, pipes and folder are let go.
    pub(super) fn up(&mut self, name: &str) {
        leave_streams();
        self.tell(&Report::Up { name: name.to_owned() });
    }

    /// It is not.
    pub(super) fn failed(&mut self, failure: &Failure) {
        let Failure { code, message, hint, exit_code } = failure;
        self.tell(&Report::Failed {
            code: code.clone(),
            message: message.clone(),
            hint: hint.clone(),
            exit_code: *exit_code,
        });
    }

    /// It is up, but not as it was meant to be: the caller is told, and let go.
    pub(super) fn up_but_failed(&mut self, failure: &Failure) {
        leave_streams();
        self.failed(failure);
    }

    /// Writes the report and closes it, which is what the caller waits for.
    fn tell(&mut self, what: &Report) {
        if let (Some(mut report), Ok(text)) = (self.0.take(), serde_json::to_vec(what)) {
            // a caller that has gone does not want to know
            let _ = report.write_all(&text);
        }
    }
}

/// Runs `job` in a process of its own; returns the name that it reports, or its failure.
pub(super) fn in_background(
    job: impl FnOnce(&mut Reporter) -> Result<u8, Failure>,
) -> Result<String, Failure> {
    let (mut reports, report) = std::io::pipe()?;
    match fork()? {
        Fork::Parent(_) => {
            drop(report);
            let mut text = String::new();
            reports.read_to_string(&mut text)?;
            match serde_json::from_str(&text) {
                Ok(Report::Up { name }) => Ok(name),
                Ok(Report::Failed { code, message, hint, exit_code }) => {
                    Err(Failure { code, message, hint, exit_code })
                }
                Err(_) => Err(Failure::other("the supervisor ended before it could say why")),
            }
        }
        Fork::Child => {
            drop(reports);
            let mut reporter = Reporter(Some(File::from(OwnedFd::from(report))));
            let result = nix::unistd::setsid().map_err(|error| Failure::other(std::io::Error::from(error)));
            let code = result.and_then(|_| job(&mut reporter)).unwrap_or_else(|failure| {
                reporter.failed(&failure);
                failure.exit_code
            });
            // not back into the caller's life: its buffers and guards are the parent's
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
        log::warn!("the caller's streams could not be let go: {error}");
    }
}
