//! `vmrun qemu`: starts a VM, in the foreground or in the background.

use tokio::runtime::{Builder, Runtime};

use crate::control::supervise::{Ready, Supervision, supervise};
use crate::host::descriptors;
use crate::qmp::Transcript;
use crate::spec::Request;
use crate::vm::{Launch, Outcome, dry_run, prepare};

use super::background::{Reporter, in_background};
use super::failure::Failure;
use super::logger;
use super::output::{Lines, Output, Stdout, stdout_is_terminal};
use super::qemu_args::{QemuArgs, RunArgs};

/// Runs the command; the exit code tells the VM's outcome.
pub(super) fn run(args: QemuArgs) -> Result<u8, Failure> {
    let verbosity = if args.run.quiet { -1 } else { i8::try_from(args.run.verbose).unwrap_or(2) };
    logger::install(verbosity, args.run.log_format);
    let (detached, is_dry_run) = (args.run.detached, args.run.dry_run);
    let transcript = transcript(&args.run)?;
    let escape = args.run.escape;
    let ready = args.run.wait.clone().map(|condition| Ready { condition, timeout: args.run.wait_timeout });
    let request = args.request()?;
    if is_dry_run {
        return print_shell(&dry_run(&request)?);
    }
    let supervision = Supervision {
        launch: Launch { detached, transcript, owns_process: true },
        console: (!detached).then_some(escape),
        stop_timeout: request.stop_timeout,
        ready,
    };
    // this process, or the one that is split off, is a supervisor from here on
    descriptors::raise_limit();
    match detached {
        false => foreground(&request, supervision),
        true => {
            let name = in_background(|reporter| supervisor(&request, supervision, reporter))?;
            Output { json: false }.print(&(), || name)
        }
    }
}

/// A command line for a shell: each byte of it counts, unless a person reads it.
fn print_shell(line: &[u8]) -> Result<u8, Failure> {
    if stdout_is_terminal() {
        return Output { json: false }.print(&(), || Lines::text(&String::from_utf8_lossy(line)));
    }
    let mut stdout = Stdout::default();
    stdout.raw(line);
    stdout.finish()
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
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn foreground(request: &Request, supervision: Supervision) -> Result<u8, Failure> {
    let prepared = prepare(request)?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(supervise(prepared, supervision, |up| {
        if let Err(error) = up.ready {
            log::warn!("{error}");
        }
    }))?;
    // a read of standard input that never ends must not hold us
    runtime.shutdown_background();
    Ok(told(&outcome))
}

/// Tells an outcome that is not the plain good one.
fn told(outcome: &Outcome) -> u8 {
    if outcome.exit_code != 0 {
        log::error!("{outcome}");
        if let Some(stderr) = &outcome.stderr {
            log::error!("QEMU's last words:\n  {}", stderr.trim_end().replace('\n', "\n  "));
        }
    }
    outcome.exit_code
}

/// The supervisor's whole life in the background.
fn supervisor(request: &Request, supervision: Supervision, reporter: &mut Reporter) -> Result<u8, Failure> {
    let prepared = prepare(request)?;
    let outcome = runtime()?.block_on(supervise(prepared, supervision, |up| match up.ready {
        Ok(()) => reporter.up(up.name.as_str()),
        Err(error) => reporter.up_but_failed(&Failure::from_change(error)),
    }))?;
    Ok(outcome.exit_code)
}
