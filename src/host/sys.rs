//! System calls, and the crate's only module with `unsafe`. What `std`, `rustix` or `nix` offers as a safe function is called that way. What
//! stays cannot be: `fork` and what runs between `fork` and `exec`, dispositions of signals (a handler is code in a signal's context),
//! `close_range`, `io_uring_setup` and the `ioctl`s of KVM and tap, which no crate in use has as safe functions, descriptors that a
//! parent left open and nothing of ours owns, glibc's `mallinfo`, and tokio's registration, whose contract [`Watchable`] states.
#![allow(unsafe_code)]

mod become_other;
mod child;
mod device;
mod file;
mod io_uring;
mod process;
mod signals;
mod terminal;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use become_other::{Fork, become_program, fork, give_away, let_go_of_inherited, out_of_the_way};
pub use child::{limit, prepare_child};
pub use device::try_kvm;
#[cfg(target_os = "linux")]
pub use device::{attach_tap, tap_name};
#[cfg(target_os = "linux")]
pub use file::is_range_locked;
pub use file::{give_name, lock, lock_shared, try_lock, umask, wait_lock_shared};
pub use io_uring::try_io_uring;
pub use process::process_start_time;
#[cfg(target_os = "linux")]
pub use process::{pidfd_open, pidfd_send_signal};
pub use signals::{
    count_typed_interrupts, is_ignored, outlive_file_size_limit, remember_end_actions, restore_end_actions,
    typed_interrupts,
};
pub use terminal::{has_terminal, outlive_terminal_stops, restore_terminal_on_death, terminal_size};

/// Gives the system back what was freed, if it is worth it: glibc keeps it for the next allocation, and among what is in use
/// the pieces that are free add up over the days.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn give_back_memory() {
    /// What may lie about, in bytes: to ask for it again costs more than it is worth.
    const SPARE: libc::c_int = 1 << 20;
    // SAFETY: takes no memory of ours, it counts (mallinfo(3)).
    let free = unsafe { libc::mallinfo() }.fordblks;
    // the count is an int, and has gone round where it is negative
    if !(0..=SPARE).contains(&free) {
        // SAFETY: takes no memory of ours, and what is in use stays where it is (malloc_trim(3)).
        unsafe { libc::malloc_trim(0) };
    }
}

/// Other C libraries have nothing of the kind.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back_memory() {}

/// Descriptors that can be watched: they own what they name, for as long as they live.
pub trait Watchable: AsRawFd + 'static {}

impl Watchable for OwnedFd {}
impl Watchable for File {}

/// Registers a descriptor with the runtime, to be waited for.
///
/// # Errors
/// Of `epoll`: `PermissionDenied` for what is always ready, such as a regular file.
pub fn watch<F: Watchable>(fd: F, interest: Interest) -> io::Result<AsyncFd<F>> {
    // SAFETY: the implementors of `Watchable` keep their descriptor open and the same until they are dropped, which `AsyncFd` does
    // after it has unregistered them.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    Ok(watched?)
}

#[cfg(test)]
mod tests;
