//! A process that splits, becomes another program, or goes on without its parent.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::child::keep_on_exec;
use super::signals::FILE_SIZE_SIGNAL_TAKEN;

/// Becomes another program: the same process, with the same parent, streams, descriptors, environment, folder and signal mask.
/// Returns only if that fails. What has no `FD_CLOEXEC` goes with it; see [`give_away`].
pub fn become_program(program: &Path, name: &OsStr, arguments: &[OsString]) -> io::Error {
    let text = |text: &OsStr| CString::new(text.as_bytes());
    let words = std::iter::once(name).chain(arguments.iter().map(OsString::as_os_str)).map(text).collect();
    let (Ok(program), Ok(words)) = (text(program.as_os_str()), words) else {
        return io::ErrorKind::InvalidInput.into();
    };
    let words: Vec<CString> = words;
    // Rust's start-up code ignores SIGPIPE, which would outlive the exec
    // SAFETY: the default action is no handler, so nothing of ours can run in a signal's context.
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGPIPE, nix::sys::signal::SigHandler::SigDfl) };
    if FILE_SIZE_SIGNAL_TAKEN.load(Ordering::Relaxed) {
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_DFL) };
    }
    match nix::unistd::execv(&program, &words) {
        Err(error) => error.into(),
    }
}

/// Where descriptors begin that are given to a program whose own may have any number: far above what anybody writes by hand.
const FIRST_GIVEN: RawFd = 200;

/// A copy of a descriptor under a number far above those that programs count from 3; not inherited by other programs until it is
/// [given away](give_away).
///
/// # Errors
/// The limit of open files is below that number, or reached.
pub fn out_of_the_way(fd: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, FIRST_GIVEN)?)
}

/// Lets a descriptor survive [`become_program`].
///
/// # Errors
/// Of `fcntl`.
pub fn give_away(fd: &OwnedFd) -> io::Result<()> {
    keep_on_exec(fd)
}

/// Closes what this process has got from its parent, except for the standard streams, which become `/dev/null`: a process that
/// lives on by itself must not hold its caller's pipes open. Our own descriptors are recognised by `FD_CLOEXEC`.
///
/// # Errors
/// `/dev/null` or `/proc` cannot be opened.
pub fn let_go_of_inherited() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    let numbers: Vec<RawFd> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in numbers {
        // SAFETY: asks for flags and touches no memory; the number may be closed by now (it was the listing's own).
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        if flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
            // SAFETY: everything that Rust or we have opened has FD_CLOEXEC, so no object of ours owns this one.
            unsafe { libc::close(fd) };
        }
    }
    Ok(())
}

/// In which of the two processes [`fork`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The old one, with the new one's pid.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Splits the process in two.
///
/// Only for a process with a single thread (checked on Linux): in the child of any other, every lock that another thread held would stay held.
/// Threads that have ended are waited for: the kernel lists one for a moment after it was joined, and tells nobody when it is gone.
///
/// # Errors
/// More than one thread (`Unsupported`), or the system's limits.
pub fn fork() -> io::Result<Fork> {
    /// How often, and how long each time: a thread that has been joined needs some microseconds of processor time.
    const LOOKS: u32 = 1000;
    const PAUSE: Duration = Duration::from_millis(1);
    let has_others = || fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1);
    let still_has_others = || {
        (0..LOOKS).all(|_| {
            let has_others = has_others();
            if has_others {
                std::thread::sleep(PAUSE);
            }
            has_others
        })
    };
    if cfg!(target_os = "linux") && still_has_others() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a process with several threads cannot be forked",
        ));
    }
    // SAFETY: a single thread, so no lock can be left held in the child.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Fork::Parent(child)),
        nix::unistd::ForkResult::Child => Ok(Fork::Child),
    }
}
