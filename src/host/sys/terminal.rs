//! The terminal on standard input: whose it is, how large, and how it is left.

use std::io;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::libc;

use super::signals::action_of;

/// The settings that standard input's terminal gets back should a signal end this process; null = there is nothing to do.
static TERMINAL_BEFORE: AtomicPtr<libc::termios> = AtomicPtr::new(std::ptr::null_mut());

/// From now on any signal that ends this process first gives the terminal on standard input these settings; `None` takes that back.
/// Signals that are ignored or handled stay so, but for those of faults, whose handlers (of Rust's runtime) only add a message.
pub fn restore_terminal_on_death(settings: Option<nix::sys::termios::Termios>) {
    let settings = settings.map_or(std::ptr::null_mut(), |settings| Box::into_raw(Box::new(settings.into())));
    // the one before is never freed, since a handler may be reading it: a console has few
    if !TERMINAL_BEFORE.swap(settings, Ordering::AcqRel).is_null() || settings.is_null() {
        return;
    }
    for signal in 1..=libc::SIGRTMAX() {
        let fault = matches!(signal, libc::SIGSEGV | libc::SIGBUS);
        let job_control = matches!(
            signal,
            libc::SIGCHLD
                | libc::SIGCONT
                | libc::SIGTSTP
                | libc::SIGTTIN
                | libc::SIGTTOU
                | libc::SIGURG
                | libc::SIGWINCH
        );
        if job_control || (action_of(signal) != Some(libc::SIG_DFL) && !fault) {
            continue;
        }
        // SAFETY: the handler makes async-signal-safe calls only (signal-safety(7)), and reads memory that is never freed. SIGKILL and
        // SIGSTOP are refused, as are signals of the C library's own.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = restore_and_die as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_ONSTACK;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

extern "C" fn restore_and_die(signal: libc::c_int) {
    let settings = TERMINAL_BEFORE.load(Ordering::Acquire);
    // SAFETY: see above. From a background group tcsetattr would stop us unless SIGTTOU is ignored. The signal is blocked while this
    // runs: raised here, it ends the process as soon as this returns.
    unsafe {
        let group = libc::tcgetpgrp(libc::STDIN_FILENO);
        // a terminal that another group has, such as a shell's, has that one's settings
        if !settings.is_null() && (group == -1 || group == libc::getpgrp()) {
            libc::signal(libc::SIGTTOU, libc::SIG_IGN);
            libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, settings);
        }
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// From now on neither a read from the terminal nor a change of its settings stops this process while another group has it: a read fails
/// with `EIO`. Changes would be made, so look first ([`has_terminal`]).
pub fn outlive_terminal_stops() {
    for signal in [libc::SIGTTIN, libc::SIGTTOU] {
        // SAFETY: no handler, so nothing of ours can run in a signal's context.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Whether the terminal on standard input is our process group's. One that is not this session's has no such thing, and what is no terminal
/// can always be read.
pub fn has_terminal() -> bool {
    nix::unistd::tcgetpgrp(io::stdin()).map_or(true, |group| group == nix::unistd::getpgrp())
}

/// Rows and columns of the terminal on standard input; none if it does not know them.
pub fn terminal_size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(io::stdin()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}
