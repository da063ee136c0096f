//! Programs that this process starts: what they inherit, and what ends them.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

/// The signals that a service manager sends to the whole group: they are for the supervisor, which runs the shutdown ladder; QEMU has them blocked.
/// And those of a terminal, which go to the whole group, too: the key that suspends pauses a console, and no VM.
const SUPERVISORS_SIGNALS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGTSTP];

/// Prepares a child process:
///
/// - it inherits exactly its standard streams and `keep`, under the numbers they have here; our copies are closed when `command` is dropped;
/// - `block_signals`: SIGTERM, SIGINT, SIGHUP and SIGTSTP are blocked in it (`Command` itself resets the mask);
/// - `death_signal`: it is killed when the thread that spawned it ends (Linux), so spawn from a thread that lives as long as it should;
/// - what it creates is for its owner only (umask 077);
/// - a write beyond the limit of file sizes fails in it, and does not end it (SIGXFSZ is ignored).
///
/// Call it in the process that will spawn: after a `fork`, not before.
pub fn prepare_child(command: &mut Command, keep: Vec<OwnedFd>, block_signals: bool, death_signal: bool) {
    let parent = Pid::this();
    let mut blocked = SigSet::empty();
    if block_signals {
        SUPERVISORS_SIGNALS.into_iter().for_each(|signal| blocked.add(signal));
    }
    let hook = move || {
        blocked.thread_set_mask()?;
        // a file that must not grow is the guest's disk error, and no reason to end
        // SAFETY: no handler, so nothing of ours can run in a signal's context.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        if death_signal {
            die_with(parent)?;
        }
        close_all_on_exec();
        keep.iter().try_for_each(keep_on_exec)
    };
    // SAFETY: between fork and exec the closure makes system calls only: no allocation, no locks; errors are plain numbers.
    unsafe { command.pre_exec(hook) };
}

/// Gives a child a soft limit of its own: of open files, of the size of a file that it writes.
pub fn limit(command: &mut Command, resource: Resource, soft: u64) {
    let hook = move || {
        let (_, hard) = getrlimit(resource)?;
        Ok(setrlimit(resource, soft.min(hard), hard)?)
    };
    // SAFETY: between fork and exec the closure makes two system calls: no allocation, no locks; errors are plain numbers.
    unsafe { command.pre_exec(hook) };
}

#[cfg(target_os = "linux")]
fn die_with(parent: Pid) -> io::Result<()> {
    // SIGKILL, since QEMU blocks the others
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // the parent may have ended before the line above
    if Pid::parent() == parent { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
}

#[cfg(not(target_os = "linux"))]
fn die_with(_parent: Pid) -> io::Result<()> {
    Ok(())
}

/// A second line of defence: Rust opens everything with CLOEXEC, but a library or our own parent may not have.
fn close_all_on_exec() {
    #[cfg(target_os = "linux")]
    // SAFETY: a plain system call on our own descriptor table. Kernels before 5.11 refuse it, which loses nothing of ours.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

pub(super) fn keep_on_exec(fd: &OwnedFd) -> io::Result<()> {
    // FD_CLOEXEC is the only flag
    Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?)
}
