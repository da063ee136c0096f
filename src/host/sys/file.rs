//! Names, locks and permissions of files.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::libc;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// What this process's new files are not open for. `umask(2)` could only tell by setting another for a moment, which other threads
/// would notice; where `/proc` does not tell it (Linux before 4.7), the strictest of the usual ones.
pub fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok()).unwrap_or(0o077)
}

/// Gives a file that was opened with `O_TMPFILE` its first name.
///
/// # Errors
/// There is something of this name (`EEXIST`), or no `/proc`.
pub fn give_name(file: &File, path: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, AtFlags};

    let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(nix::unistd::linkat(AT_FDCWD, descriptor.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
}

/// Takes the exclusive lock (`flock`) on a file without waiting; `false` if someone else holds it.
///
/// It belongs to the open file, not the process: it lasts until the last copy of the descriptor is closed, so it survives a `fork`
/// whose parent ends (`nix`'s guard would unlock it in the parent).
///
/// # Errors
/// Other reasons than a held lock, e.g. a file system without locks.
pub fn try_lock(file: impl AsFd) -> io::Result<bool> {
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes the exclusive lock (`flock`) on a file, and waits for it.
///
/// # Errors
/// A file system without locks.
pub fn lock(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?)
}

/// Takes a shared lock (`flock`) on a file, and waits for it.
///
/// # Errors
/// A file system without locks.
pub fn wait_lock_shared(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockShared))?)
}

/// Takes a shared lock (`flock`) on a file without waiting. As with [`try_lock`], it belongs to the open file.
///
/// # Errors
/// Someone has the exclusive lock, or the file system has no locks.
pub fn lock_shared(file: impl AsFd) -> io::Result<()> {
    Ok(flock(&file, FlockOperation::NonBlockingLockShared)?)
}

/// Whether some process has locked a part of a file (`fcntl` locks, as QEMU puts on its images), for reading or writing.
///
/// # Errors
/// A file system without such locks.
#[cfg(target_os = "linux")]
pub fn is_range_locked(file: &File) -> io::Result<bool> {
    use nix::fcntl::{FcntlArg, fcntl};
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        // 0 = to the end of the file, however long
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // this asks only: it locks nothing
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}
