//! How many descriptors this process may have.
//!
//! The usual soft limit of 1,024 is there for programs that use `select(2)`. A supervisor does not, and has a descriptor
//! for each of its clients; QEMU and the helpers may, and get the limit back that the user gave.

use std::io;
use std::process::Command;
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::sys;

/// As many as a supervisor has a use for: every client that is served at once, and its own.
const ENOUGH: u64 = 4096;

/// The soft limit before it was raised.
static BEFORE: OnceLock<u64> = OnceLock::new();

/// Raises the soft limit as far as that is of use. It belongs to the whole process: only a program that is nothing but a
/// supervisor calls this.
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = ENOUGH.min(hard);
        if soft >= wanted {
            return Ok(());
        }
        // first, so that no child can miss it
        let _ = BEFORE.set(soft);
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
    });
    if let Err(error) = raised {
        log::debug!("the limit of open files stays as it is: {error}");
    }
}

/// Lets a child have the limit that this process was started with.
pub fn give_limit_back(command: &mut Command) {
    if let Some(soft) = BEFORE.get() {
        sys::limit(command, Resource::RLIMIT_NOFILE, *soft);
    }
}

/// How many this process may have now, and how many it has.
///
/// # Errors
/// Of the system.
pub fn limit_and_use() -> io::Result<(usize, usize)> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let open = std::fs::read_dir("/proc/self/fd").or_else(|_| std::fs::read_dir("/dev/fd"))?.count();
    Ok((usize::try_from(soft).unwrap_or(usize::MAX), open))
}
