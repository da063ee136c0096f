//! `vmrun qemu`: starts a VM, in the foreground or in the background.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};

use crate::control::supervise::{Supervision, supervise};
use crate::host::sys::{Fork, fork};
use crate::qmp::Transcript;
use crate::spec::Request;
use crate::vm::console::EscapeKey;
use crate::vm::{Launch, dry_run, prepare};

use super::failure::Failure;
use super::logger;
use super::qemu_args::{QemuArgs, RunArgs};

/// Runs the command; the exit code tells the VM's outcome.
pub(super) fn run(args: QemuArgs) -> Result<u8, Failure> {
    let verbosity = if args.run.quiet { -1 } else { i8::try_from(args.run.verbose).unwrap_or(2) };
    logger::install(verbosity, args.run.log_format);
    let (detached, is_dry_run) = (args.run.detached, args.run.dry_run);
    let transcript = transcript(&args.run)?;
    let request = args.request()?;
    if is_dry_run {
        let line = dry_run(&request)?;
        std::io::stdout().write_all(&line)?;
        return Ok(0);
    }
    if detached { background(&request, transcript) } else { foreground(&request, transcript) }
}

fn transcript(run: &RunArgs) -> Result<Option<Transcript>, Failure> {
    match &run.qmp_log {
        Some(path) => Transcript::file(path)
            .map(Some)
            .map_err(|error| Failure::other(format!("--qmp-log {}: {error}", path.display()))),
        None => Ok((run.verbose >= 2).then(Transcript::log)),
    }
}

/// One thread: QEMU's death signal follows the thread that started it.
fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn foreground(request: &Request, transcript: Option<Transcript>) -> Result<u8, Failure> {
    let prepared = prepare(request)?;
    let supervision = Supervision {
        launch: Launch { detached: false, transcript },
        console: Some(EscapeKey::default()),
        stop_timeout: request.stop_timeout,
    };
    let runtime = runtime()?;
    let outcome = runtime.block_on(supervise(prepared, supervision, |_| {}))?;
    // a read of standard input that never ends must not hold us
    runtime.shutdown_background();
    Ok(told(&outcome))
}

/// Tells an outcome that is not the plain good one.
fn told(outcome: &crate::vm::Outcome) -> u8 {
    if outcome.exit_code != 0 {
        log::error!("{outcome}");
        if let Some(stderr) = &outcome.stderr {
            log::error!("QEMU's last words:\n  {}", stderr.trim_end().replace('\n', "\n  "));
        }
    }
    outcome.exit_code
}

/// What the supervisor tells the process that started it.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Up { name: String },
    Failed { code: String, message: String, hint: Option<String>, exit_code: u8 },
}

/// Splits off a supervisor with a session of its own, and waits for its report.
fn background(request: &Request, transcript: Option<Transcript>) -> Result<u8, Failure> {
    let (mut reports, report) = std::io::pipe()?;
    match fork()? {
        Fork::Parent(_) => {
            drop(report);
            let mut text = String::new();
            reports.read_to_string(&mut text)?;
            match serde_json::from_str(&text) {
                Ok(Report::Up { name }) => {
                    writeln!(std::io::stdout(), "{name}")?;
                    Ok(0)
                }
                Ok(Report::Failed { code, message, hint, exit_code }) => {
                    Err(Failure { code, message, hint, exit_code })
                }
                Err(_) => Err(Failure::other("the supervisor ended before it could say why")),
            }
        }
        Fork::Child => {
            drop(reports);
            let code = supervisor(request, transcript, File::from(OwnedFd::from(report)));
            // not back into the caller's life: its buffers and guards are the parent's
            std::process::exit(code.into());
        }
    }
}

/// The supervisor's whole life. `report` goes to the caller, once: when the VM is up, or with the reason why not.
fn supervisor(request: &Request, transcript: Option<Transcript>, report: File) -> u8 {
    let mut report = Some(report);
    match supervised(request, transcript, &mut report) {
        Ok(code) => code,
        Err(Failure { code, message, hint, exit_code }) => {
            tell(report.take(), &Report::Failed { code, message, hint, exit_code });
            exit_code
        }
    }
}

fn supervised(
    request: &Request,
    transcript: Option<Transcript>,
    report: &mut Option<File>,
) -> Result<u8, Failure> {
    nix::unistd::setsid().map_err(std::io::Error::from)?;
    let prepared = prepare(request)?;
    let supervision = Supervision {
        launch: Launch { detached: true, transcript },
        console: None,
        stop_timeout: request.stop_timeout,
    };
    let outcome = runtime()?.block_on(supervise(prepared, supervision, |running| {
        if let Err(error) = leave_streams() {
            log::warn!("the caller's streams could not be let go: {error}");
        }
        tell(report.take(), &Report::Up { name: running.name().to_string() });
    }))?;
    Ok(outcome.exit_code)
}

/// Writes the report and closes it, which is what the caller waits for.
fn tell(report: Option<File>, what: &Report) {
    if let (Some(mut report), Ok(text)) = (report, serde_json::to_vec(what)) {
        // a caller that has gone does not want to know
        let _ = report.write_all(&text);
    }
}

/// Lets the caller's terminal, pipes and folder go.
fn leave_streams() -> std::io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(null.as_fd())?;
    nix::unistd::dup2_stdout(null.as_fd())?;
    nix::unistd::dup2_stderr(null.as_fd())?;
    std::env::set_current_dir("/")
}
