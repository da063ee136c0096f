//! Passes the signals of this process on to the command in the guest.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use nix::libc;
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::control::client::Client;
use crate::host::sys;
use crate::machine;
use crate::vm::ONE_REQUEST;

use super::super::failure::Failure;
use super::super::guest_command;

/// What a command may want to hear of. Stops are not among them: they stop this process, and thereby the command's output.
const PASSED_ON: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];
/// Those that ask it to end: the second request ends this process, and the VM with it.
const ENDING: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// Where signals go.
#[derive(Debug, Default, Clone, Copy)]
enum Target {
    /// There is no command yet, or none any more that they can be sent to: they end this process, and the VM with it.
    #[default]
    Here,
    /// The process of the guest that runs the command.
    Guest(i64),
}

/// The command that gets the signals.
pub(super) struct Signals(Arc<Mutex<Target>>);

/// The signals that are not ignored, as `nohup` has its child ignore SIGHUP; to be called before any are caught.
pub(super) fn heeded() -> SigSet {
    PASSED_ON.into_iter().filter(|signal| !sys::is_ignored(*signal)).collect()
}

/// From now on these signals are caught; to be called before further threads are started.
pub(super) fn pass_on(
    caught: SigSet,
    connect: impl Fn() -> Result<Client, Failure> + Send + 'static,
) -> Result<Signals, Failure> {
    let target = Arc::new(Mutex::new(Target::default()));
    let system = |error| Failure::other(std::io::Error::from(error));
    caught.thread_block().map_err(system)?;
    let signals = SignalFd::with_flags(&caught, SfdFlags::SFD_CLOEXEC).map_err(system)?;
    let watched = Arc::clone(&target);
    thread::spawn(move || wait_for_signals(&signals, caught, connect, &watched));
    Ok(Signals(target))
}

impl Signals {
    /// The command runs.
    pub(super) fn go_to(&self, pid: Option<i64>) {
        self.set(pid.map_or(Target::Here, Target::Guest));
    }

    /// It has ended.
    pub(super) fn stop(&self) {
        self.set(Target::Here);
    }

    fn set(&self, target: Target) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }
}

/// Connects for each signal: a supervisor waits for its clients to hang up before it ends.
fn wait_for_signals(
    signals: &SignalFd,
    caught: SigSet,
    connect: impl Fn() -> Result<Client, Failure>,
    target: &Mutex<Target>,
) {
    let mut asked: Option<Instant> = None;
    while let Ok(Some(info)) = signals.read_signal() {
        let Ok(signal) = Signal::try_from(info.ssi_signo.cast_signed()) else { continue };
        let Target::Guest(pid) = *target.lock().unwrap_or_else(PoisonError::into_inner) else {
            return end_by(caught, signal);
        };
        if ENDING.contains(&signal) {
            // the terminal's driver sends with SI_KERNEL
            let typed = info.ssi_code == libc::SI_KERNEL;
            match asked {
                Some(asked) if !typed && asked.elapsed() < ONE_REQUEST => continue,
                Some(_) => return end_by(caught, signal),
                None => asked = Some(Instant::now()),
            }
        }
        let name = signal.as_str().trim_start_matches("SIG");
        let send = |mut client| {
            machine::exec_streamed(&mut client, guest_command::signal(name, pid), None, |_| true)
                .map_err(Failure::from)
        };
        let sent = connect().and_then(send);
        // one that ended the command may have ended the VM as well, before it was reported that it was sent
        let is_needed = matches!(*target.lock().unwrap_or_else(PoisonError::into_inner), Target::Guest(_));
        if let (Err(failure), true) = (sent, is_needed) {
            log::warn!("{signal} could not be sent to the command: {}", failure.message);
        }
    }
}

/// Ends this process by the signal, as if it had not been caught.
fn end_by(caught: SigSet, signal: Signal) {
    let _ = caught.thread_unblock();
    let _ = raise(signal);
}
