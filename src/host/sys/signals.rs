//! What signals do to this process.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::libc;
use nix::sys::signal::Signal;

/// Whether a signal is ignored, as `nohup` has its child ignore SIGHUP.
pub fn is_ignored(signal: Signal) -> bool {
    action_of(signal as libc::c_int) == Some(libc::SIG_IGN)
}

pub(super) fn action_of(signal: libc::c_int) -> Option<libc::sighandler_t> {
    // SAFETY: all-zero is a valid sigaction; with a null pointer for the new action this only writes the present one to it.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0).then_some(now.sa_sigaction)
    }
}

/// What the signals did that ask a process to end, before [`remember_end_actions`].
static END_ACTIONS: OnceLock<[(libc::c_int, libc::sighandler_t); 3]> = OnceLock::new();

/// To be called before handlers are installed for SIGHUP, SIGINT and SIGTERM.
pub fn remember_end_actions() {
    END_ACTIONS.get_or_init(|| {
        [libc::SIGHUP, libc::SIGINT, libc::SIGTERM]
            .map(|signal| (signal, action_of(signal).unwrap_or(libc::SIG_DFL)))
    });
}

/// Undoes the handlers of these signals, for a process that only waits for another one from now on. tokio keeps its handlers to the
/// end of a process.
pub fn restore_end_actions() {
    for (signal, action) in END_ACTIONS.get().into_iter().flatten() {
        // SAFETY: the action that the signal had before, which is no handler of ours.
        unsafe { libc::signal(*signal, *action) };
    }
}

/// Set while it is us who ignore SIGXFSZ.
pub(super) static FILE_SIZE_SIGNAL_TAKEN: AtomicBool = AtomicBool::new(false);

/// From now on a write beyond the limit of file sizes (`ulimit -f`) fails with `EFBIG` and does not end this process.
pub fn outlive_file_size_limit() {
    if action_of(libc::SIGXFSZ) == Some(libc::SIG_DFL) {
        FILE_SIZE_SIGNAL_TAKEN.store(true, Ordering::Relaxed);
        // SAFETY: no handler, so nothing of ours can run in a signal's context.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    }
}

/// How many SIGINTs the terminal's interrupt key has sent to this process since [`count_typed_interrupts`].
static TYPED_INTERRUPTS: AtomicU32 = AtomicU32::new(0);

/// Counts from now on the SIGINTs that came from a key, beside whatever else is done about the signal.
///
/// # Errors
/// The system has no room for a handler.
pub fn count_typed_interrupts() -> io::Result<()> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if REGISTERED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let count = |info: &libc::siginfo_t| {
        // the kernel's own: a key (tty drivers send with SI_KERNEL); `kill` has SI_USER
        if info.si_code == libc::SI_KERNEL {
            TYPED_INTERRUPTS.fetch_add(1, Ordering::Relaxed);
        }
    };
    // SAFETY: the action does nothing but add to an atomic, which is safe in a signal handler.
    unsafe { signal_hook_registry::register_sigaction(libc::SIGINT, count) }.map(drop)
}

/// See [`count_typed_interrupts`].
pub fn typed_interrupts() -> u32 {
    TYPED_INTERRUPTS.load(Ordering::Relaxed)
}
