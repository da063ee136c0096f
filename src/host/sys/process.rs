//! Other processes, which are never mistaken for one another.

use std::fs;
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::path::Path;

#[cfg(target_os = "linux")]
use nix::sys::signal::Signal;
use nix::unistd::Pid;
#[cfg(target_os = "linux")]
use rustix::process::PidfdFlags;

/// A descriptor for a process: readable when it has ended, and never mistaken for another of the same number.
///
/// # Errors
/// No such process (`ESRCH`), or a kernel before 5.3.
#[cfg(target_os = "linux")]
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal through a descriptor of [`pidfd_open`].
///
/// # Errors
/// The process has ended (`ESRCH`), or is not ours (`EPERM`).
#[cfg(target_os = "linux")]
pub fn pidfd_send_signal(process: &OwnedFd, signal: Signal) -> io::Result<()> {
    let signal = rustix::process::Signal::from_named_raw(signal as i32).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_send_signal(process, signal)?)
}

/// When a process started, in clock ticks since the machine did (field 22 of `<proc>/PID/stat`): with its pid this names it for good.
///
/// # Errors
/// No such process, or not Linux' format.
pub fn process_start_time(proc: &Path, pid: Pid) -> io::Result<u64> {
    let stat = fs::read(proc.join(pid.to_string()).join("stat"))?;
    start_time(&stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

pub(super) fn start_time(stat: &[u8]) -> Option<u64> {
    // the second field is the program's name in parentheses, and may hold anything, ") " too
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(&stat[end_of_name + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}
