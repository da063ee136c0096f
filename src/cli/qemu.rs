//! `vmrun qemu`: starts a VM, in the foreground or in the background.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::Interest;
use tokio::runtime::{Builder, Runtime};

use crate::control::supervise::{Ready, Supervision, SyncClock, Up, supervise};
use crate::host::template_cache::InUse;
use crate::host::{descriptors, sys};
use crate::machine::{Warm, warm};
use crate::spec::{Request, VmName};
use crate::vm::{Handle, Launch, Outcome, ProcessRole, ShutdownOptions, Signals, dry_run, prepare};

use super::background::{Decision, Reporter, in_background};
use super::failure::Failure;
use super::limit::Limit;
use super::output::{Lines, Output, Stdout, stdout_is_terminal};
use super::qemu_args::QemuArgs;

/// Runs the command; the exit code is that of the VM's outcome.
pub(super) fn run(args: QemuArgs) -> Result<u8, Failure> {
    args.vm.own.install_logger();
    let (detached, is_dry_run) = (args.run.detached, args.run.dry_run);
    let keep = args.run.keep;
    let transcript = args.vm.own.transcript()?;
    let (escape, sync_clock) = (args.run.escape, !args.vm.own.no_time_sync);
    let ready = args.run.wait.clone().map(|condition| {
        // a service manager, who is told in the foreground, has a limit of its own
        let timeout = match (args.run.wait_timeout, detached) {
            (None, false) => None,
            (typed, _) => Limit::of(typed, std::slice::from_ref(&condition)),
        };
        Ready { condition, timeout, shown: detached }
    });
    let parent_process = args.run.die_with_parent.then(parent).transpose()?;
    let request = args.request()?;
    if is_dry_run {
        return print_shell(&dry_run(&request)?);
    }
    let Warm { request, in_use } = warmed(request, parent_process.as_ref())?;
    let launch = Launch { detached, transcript, process: ProcessRole::Owner };
    let supervision = Supervision {
        console: (!detached).then_some(escape),
        ready,
        parent: parent_process,
        sync_clock: sync_clock_of(&request).filter(|_| sync_clock),
        ..Supervision::new(launch, request.stop_timeout)
    };
    // from here on this process, or its fork, is a supervisor
    descriptors::raise_limit();
    match detached {
        false => foreground(&request, supervision, in_use),
        true => background(&request, supervision, keep, in_use),
    }
}

/// The process that started this one, to be watched.
fn parent() -> Result<OwnedFd, Failure> {
    sys::pidfd_open(nix::unistd::getppid()).map_err(|error| {
        Failure::other(format!(
            "--die-with-parent: the process that started vmrun cannot be watched: {error}"
        ))
    })
}

/// A command line for a shell: written unchanged, except to a terminal.
fn print_shell(line: &[u8]) -> Result<u8, Failure> {
    if stdout_is_terminal() {
        return Output { json: false }.print(&(), || Lines::text(&String::from_utf8_lossy(line)));
    }
    let mut stdout = Stdout::default();
    stdout.raw(line);
    stdout.finish()
}

/// Whether the guest goes on from where it once was, its clock, too.
pub(super) fn goes_on(request: &Request) -> bool {
    request.restore.is_some() || request.from.is_some()
}

/// Whether the guest's clock is set, and what is said of it.
pub(super) fn sync_clock_of(request: &Request) -> Option<SyncClock> {
    match (goes_on(request), request.from.is_some()) {
        (false, _) => None,
        (true, true) => Some(SyncClock::Quiet),
        (true, false) => Some(SyncClock::Told),
    }
}

/// With `--warm` the request for a fork of the template, which is found or made; a signal and the end of `parent` end that, and the VM
/// that is booted for it. Without it the request as it is.
pub(super) fn warmed(request: Request, parent: Option<&OwnedFd>) -> Result<Warm, Failure> {
    match request.warm {
        Some(_) => runtime()?.block_on(template(request, parent)),
        None => Ok(Warm { request, in_use: None }),
    }
}

async fn template(request: Request, parent: Option<&OwnedFd>) -> Result<Warm, Failure> {
    let mut signals = Signals::new()?;
    let parent = parent.map(OwnedFd::try_clone).transpose();
    let parent =
        parent.and_then(|parent| parent.map(|parent| sys::watch(parent, Interest::READABLE)).transpose());
    let parent = parent.map_err(|error| Failure::other(format!("--die-with-parent: {error}")))?;
    let orphaned = async {
        match &parent {
            Some(parent) => drop(parent.readable().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! { biased;
        () = orphaned => Err(Failure::other("the process that started vmrun ended before there was a template")),
        signal = signals.next() => {
            let failure = Failure::other(format!("{signal} came before there was a template"));
            Err(Failure { code: signal.to_string(), ..failure })
        }
        made = warm(request) => Ok(made?),
    }
}

/// One thread: QEMU's death signal follows the thread that started it.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn foreground(request: &Request, supervision: Supervision, in_use: Option<InUse>) -> Result<u8, Failure> {
    // logged before the console starts, which checks whether it has the terminal
    sys::outlive_terminal_stops();
    let prepared = prepare(request)?;
    drop(in_use);
    let runtime = runtime()?;
    let outcome = runtime.block_on(supervise(prepared, supervision, |up| {
        if let Err(error) = up.ready {
            log::warn!("{error}");
        }
    }))?;
    // a read of standard input that never ends must not block the exit
    runtime.shutdown_background();
    Ok(report(&outcome))
}

/// Logs an outcome other than success; returns its exit code.
fn report(outcome: &Outcome) -> u8 {
    if outcome.exit_code != 0 {
        log::error!("{outcome}");
        if let Some(stderr) = &outcome.stderr {
            log::error!("QEMU's stderr ended with:\n  {}", stderr.trim_end().replace('\n', "\n  "));
        }
    }
    outcome.exit_code
}

/// Starts a VM in the background; its name is printed as soon as it runs, so that a script can end it whatever `--wait` does.
fn background(
    request: &Request,
    supervision: Supervision,
    keep: bool,
    in_use: Option<InUse>,
) -> Result<u8, Failure> {
    let ending = if keep { Ending::Never } else { Ending::Asked };
    let job = |reporter: &mut Reporter| supervisor(request, supervision, ending, in_use, KEEP, reporter);
    let started = in_background(job, |name| {
        let printed = Output { json: false }.print(&(), || name.to_owned()).map(drop);
        printed.map_err(|failure| {
            let ended = if keep { "runs on (`--keep`)" } else { "is ended; `--keep` would have kept it" };
            failure.hint(Some(format!("VM '{name}' {ended}")))
        })
    })?;
    started.leave();
    Ok(0)
}

/// How a VM ends that its caller does not leave running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It runs on.
    Never,
    /// The guest is asked to shut down first.
    Asked,
    /// At once: nothing of it is kept.
    Forced,
}

/// What keeps a VM that does not become ready.
const KEEP: &str = "; `--keep` lets it run on";

/// Runs the supervisor in the background. `advice` follows the hint that the VM was ended since it did not become ready.
pub(super) fn supervisor(
    request: &Request,
    supervision: Supervision,
    ending: Ending,
    in_use: Option<InUse>,
    advice: &str,
    reporter: &mut Reporter,
) -> Result<u8, Failure> {
    let prepared = prepare(request)?;
    drop(in_use);
    let mut caller = reporter.caller()?;
    let timeout = request.stop_timeout;
    let begun = move |name: &VmName, vm: &Handle| {
        caller.running(name.as_str());
        let vm = vm.clone();
        tokio::spawn(async move {
            let decision = caller.decision().await;
            if let Decision::HasRun(exit_code) = decision {
                vm.command_ended(exit_code).await;
            }
            if decision != Decision::Leaves && ending != Ending::Never {
                end(vm, timeout, ending).await;
            }
        });
    };
    let supervision = Supervision { begun: Some(Box::new(begun)), ..supervision };
    let mut not_ready = None;
    let outcome = runtime()?.block_on(supervise(prepared, supervision, |Up { name, handle, ready }| {
        let Err(error) = ready else { return reporter.up(name.as_str()) };
        let failure = Failure::from_change(error);
        if ending == Ending::Never {
            let runs_on = format!("VM '{name}' runs on (`--keep`)");
            return reporter.up_but_failed(&failure.and_hint(runs_on));
        }
        not_ready = Some(failure.and_hint(format!("VM '{name}' was ended{advice}")));
        tokio::spawn(end(handle, timeout, ending));
    }))?;
    // reported when the VM has ended, so that nothing is left of it when the caller continues
    not_ready.map_or(Ok(outcome.exit_code), Err)
}

/// Ends a VM that its caller will not end.
async fn end(vm: Handle, timeout: Duration, ending: Ending) {
    let force = ending == Ending::Forced;
    // an error means that it has ended already
    let _ = vm.shutdown(ShutdownOptions { timeout, force, no_repeat: false }).await;
}
