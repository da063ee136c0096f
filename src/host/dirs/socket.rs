//! Sockets with a path: whether a process listens on one, without disturbing it, and their removal.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::fstatat;

use super::own;
use crate::host::made::folder_of;

/// How long a socket may seem to be listened on although its process has ended. A display's socket was left behind once with QEMU 11;
/// its main loop polls by io_uring, and the kernel may close what that holds after the process is gone (not reproduced).
const KERNEL_CLOSES: Duration = Duration::from_secs(1);
/// Between two looks at such a socket; the kernel has no event for it.
const LOOK: Duration = Duration::from_millis(5);

/// Whether a process has the stream socket at this path (at most 107 bytes), in whatever namespace it is; so in doubt.
///
/// A connection of another kind is refused by the kernel before the listener hears of it: with `EPROTOTYPE` where there is one, with
/// `ECONNREFUSED` where the process that had it is gone (`unix_find_bsd` in Linux' `net/unix/af_unix.c` goes by the inode).
pub(super) fn is_listened_on(path: &Path) -> bool {
    let probe = || {
        let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
    };
    !matches!(probe(), Err(Errno::ECONNREFUSED | Errno::ENOENT | Errno::ENOTDIR))
}

/// Whether the listening socket at this path is closed, which it may be a moment after the end of its process.
pub(super) fn is_closed(path: &Path) -> bool {
    let until = Instant::now() + KERNEL_CLOSES;
    while is_listened_on(path) {
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}

/// A path for a file in an open folder that is short enough for a socket (107 bytes) however long the real one is. Good in this process,
/// while the folder is open.
pub fn short_path(folder: &impl AsRawFd, path: &Path, name: &OsStr) -> PathBuf {
    match cfg!(target_os = "linux") {
        true => Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name),
        false => path.join(name),
    }
}

/// Removes a socket that was bound at a path of the user's by a process that has ended, if it is still a socket without a listener.
pub fn remove_socket(path: &Path) {
    if let Err(error) = try_remove(path) {
        log::warn!("{} is left: {error}", path.display());
    }
}

fn try_remove(path: &Path) -> io::Result<()> {
    let Some(name) = path.file_name() else { return Ok(()) };
    let folder = File::open(folder_of(path))?;
    match fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(facts) if facts.st_mode & libc::S_IFMT == libc::S_IFSOCK => {}
        // replaced, or gone
        _ => return Ok(()),
    }
    match is_closed(&short_path(&folder, folder_of(path), name)) {
        true => own::remove(&folder, name),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_that_is_closed_a_moment_late_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            drop(listener);
        });
        remove_socket(&path);
        assert!(!path.exists());
    }

    #[test]
    fn a_listener_is_found_and_hears_nothing_of_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("socket");
        assert!(!is_listened_on(&path));
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(is_listened_on(&path));
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        remove_socket(&path);
        assert!(path.exists(), "a process listens");
        drop(listener);
        assert!(!is_listened_on(&path));
        remove_socket(&path);
        assert!(!path.exists());
        std::fs::write(&path, "a file of the user's").unwrap();
        remove_socket(&path);
        assert!(path.exists());
    }
}
