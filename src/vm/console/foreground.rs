//! Our terminal under a shell with job control: in raw mode while our process group has it, untouched while another group has it.
//!
//! In the background (`vmrun qemu guest &`) a read would stop this process (SIGTTIN), and so would a change of the settings
//! (SIGTTOU). A shell that moves a job to the foreground sends SIGCONT to a stopped one and nothing to a running one, so that is
//! polled.

use std::future::pending;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::Signal as Number;
use nix::sys::termios::{LocalFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::host::sys;

use super::ANSWER;

/// How often a background process checks whether it has the terminal: a shell that moves a running job to the foreground only
/// changes the terminal's process group and sends no signal.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// DECAWM set, and SGR reset (ECMA-48, DEC STD 070).
const WRAPPED_AND_PLAIN: &[u8] = b"\x1b[?7h\x1b[m";

/// The terminal's settings before; a static, for the panic hook.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether all our standard streams are a terminal: a person types and sees what is shown.
pub fn is_watched() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal()
}

/// What SIGTSTP (`Ctrl-Z` where the terminal is not raw) does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSuspend {
    /// The process stops, like any other.
    Stop,
    /// The console pauses. The process keeps running, since it supervises a VM.
    Pause,
}

/// What the console may do with the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    foreground: bool,
    paused: bool,
}

impl Use {
    pub(super) fn may_read(self) -> bool {
        self.foreground && !self.paused
    }

    /// Write even from the background, unless the terminal stops background writers (`stty tostop`).
    pub(super) fn may_write(self) -> bool {
        let stops = || {
            tcgetattr(io::stdout()).is_ok_and(|settings| settings.local_flags.contains(LocalFlags::TOSTOP))
        };
        !self.paused && (self.foreground || !stops())
    }
}

/// The terminal on our standard streams, if they are one.
pub(super) struct Terminal {
    /// Input and output are both a terminal: interactive.
    interactive: bool,
    raw: Option<Raw>,
    /// The settings before, and the raw ones.
    known: Option<(Termios, Termios)>,
    on_suspend: OnSuspend,
    usage: watch::Sender<Use>,
    /// `None` where the signal is ignored, or no handler can be installed.
    continued: Option<Signal>,
    suspended: Option<Signal>,
}

impl Terminal {
    /// Sets raw mode, if our group has the terminal.
    pub(super) fn new(on_suspend: OnSuspend) -> Self {
        sys::outlive_terminal_stops();
        let handled = |number: Number| {
            let kind = SignalKind::from_raw(number as libc::c_int);
            (!sys::is_ignored(number)).then(|| signal(kind).ok()).flatten()
        };
        let mut terminal = Self {
            interactive: io::stdin().is_terminal() && io::stdout().is_terminal(),
            raw: None,
            known: None,
            on_suspend,
            usage: watch::Sender::new(Use { foreground: false, paused: false }),
            continued: handled(Number::SIGCONT),
            suspended: handled(Number::SIGTSTP),
        };
        terminal.look();
        terminal
    }

    pub(super) fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// What the console may do with it; updated on each change.
    pub(super) fn usage(&self) -> watch::Receiver<Use> {
        self.usage.subscribe()
    }

    /// Takes and releases the terminal as the shell's job control demands. Does not end.
    pub(super) async fn hold(mut self) {
        loop {
            let in_background = !self.usage.borrow().foreground;
            tokio::select! {
                () = received(&mut self.continued) => self.pause(false),
                () = received(&mut self.suspended) => self.suspend(),
                () = sleep(LOOK_AGAIN), if in_background => {}
            }
            self.look();
        }
    }

    fn look(&mut self) {
        let foreground = sys::has_terminal();
        let paused = self.usage.borrow().paused;
        if !foreground {
            // another group has it, with its own settings
            self.raw.take().into_iter().for_each(Raw::abandon);
        } else if paused {
            self.raw = None;
        } else if self.interactive {
            // a shell took it back while we were stopped
            self.raw.take_if(|raw| !raw.is_set()).into_iter().for_each(Raw::abandon);
            if self.raw.is_none() {
                self.raw = Raw::enter(&mut self.known);
            }
        }
        self.usage
            .send_if_modified(|usage| std::mem::replace(&mut usage.foreground, foreground) != foreground);
    }

    fn pause(&mut self, paused: bool) {
        self.usage.send_if_modified(|usage| std::mem::replace(&mut usage.paused, paused) != paused);
    }

    fn suspend(&mut self) {
        match self.on_suspend {
            OnSuspend::Stop => {
                self.raw = None;
                // continues with SIGCONT
                if let Err(error) = nix::sys::signal::raise(Number::SIGSTOP) {
                    log::warn!("cannot stop: {error}");
                }
            }
            OnSuspend::Pause => {
                let paused = !self.usage.borrow().paused;
                self.pause(paused);
                let message = if paused {
                    "the console is paused, and the VM keeps running; Ctrl-Z or SIGCONT continues the console"
                } else {
                    "the console goes on"
                };
                log::warn!(target: ANSWER, "{message}");
            }
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => pending().await,
    }
}

/// Raw mode for its lifetime.
#[derive(Debug)]
struct Raw;

impl Raw {
    fn enter(known: &mut Option<(Termios, Termios)>) -> Option<Self> {
        static HOOK: Once = Once::new();
        let now = tcgetattr(io::stdin()).ok()?;
        // a shell may restore our own settings
        let before = match known {
            Some((before, raw)) if *raw == now => before.clone(),
            _ => now,
        };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        *known = Some((before.clone(), raw.clone()));
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before.clone());
        HOOK.call_once(|| {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                hook(info);
            }));
        });
        sys::restore_terminal_on_death(Some(before));
        if tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw).is_err() {
            restore();
            return None;
        }
        Some(Self)
    }

    fn is_set(&self) -> bool {
        tcgetattr(io::stdin()).is_ok_and(|settings| !settings.local_flags.contains(LocalFlags::ICANON))
    }

    /// Another group has the terminal: keeps its settings.
    fn abandon(self) {
        BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
        sys::restore_terminal_on_death(None);
        std::mem::forget(self);
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if !sys::has_terminal() {
            BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
            sys::restore_terminal_on_death(None);
            return;
        }
        restore();
        // SeaBIOS turns line wrapping off, and a guest may leave its colours
        let _ = io::stdout().write_all(WRAPPED_AND_PLAIN);
    }
}

fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // TCSAFLUSH would discard what was typed ahead for the shell; TCSADRAIN could wait forever on a stopped terminal
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &before);
        sys::restore_terminal_on_death(None);
    }
}
