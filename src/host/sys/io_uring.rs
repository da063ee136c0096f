//! Whether the kernel lets this process use io_uring.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::libc;

/// Makes a ring and closes it again.
///
/// # Errors
/// The kernel has none (`ENOSYS`), or it is forbidden (`EPERM`: `kernel.io_uring_disabled`, or a container's filter).
pub fn try_io_uring() -> io::Result<()> {
    /// `struct io_uring_params` of linux/io_uring.h has 120 bytes.
    const PARAMETERS: usize = 120 / size_of::<u64>();
    let mut parameters = [0_u64; PARAMETERS];
    let entries: libc::c_uint = 1;
    // SAFETY: the kernel reads and writes as many bytes as there are, and keeps no pointer to them.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, parameters.as_mut_ptr()) };
    if ring < 0 {
        return Err(io::Error::last_os_error());
    }
    let ring = i32::try_from(ring).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made the descriptor, and it has no other owner.
    drop(unsafe { OwnedFd::from_raw_fd(ring) });
    Ok(())
}
