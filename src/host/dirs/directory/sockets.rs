//! Sockets in an open directory, under a path of any length.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::super::socket::{self as sockets, short_path};
use super::Directory;
use crate::host::made::folder_of;

impl Directory {
    /// A path for a file in it that is short enough for a socket (107 bytes) however long the real one is.
    /// Good in this process, while the directory is open.
    pub fn short_path(&self, name: &str) -> PathBuf {
        short_path(&self.fd, &self.path, name.as_ref())
    }

    /// Connects to a socket in it, waiting if its queue is full.
    ///
    /// # Errors
    /// As of `connect`: `NotFound`, or `ConnectionRefused` without a listener.
    pub fn connect(&self, name: &str) -> io::Result<UnixStream> {
        UnixStream::connect(self.short_path(name))
    }

    /// The same with a deadline, whose error is `WouldBlock`. It holds for each write to the connection as well.
    ///
    /// # Errors
    /// As of [`Directory::connect`].
    pub fn connect_within(&self, name: &str, within: Duration) -> io::Result<UnixStream> {
        let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // how long `connect` waits in a full queue (unix(7), socket(7)); 0 would be for ever
        let within = TimeVal::milliseconds(i64::try_from(within.as_millis()).unwrap_or(i64::MAX).max(1));
        setsockopt(&socket, sockopt::SendTimeout, &within)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(&self.short_path(name))?)?;
        Ok(socket.into())
    }

    /// Whether a process has the socket of this name, in whatever namespace it is. The process does not notice.
    pub fn is_listened_on(&self, name: &str) -> bool {
        sockets::is_listened_on(&self.short_path(name))
    }

    /// Whether the listening socket of this name is closed, which it may be a moment after the end of its process.
    pub fn is_closed(&self, name: &str) -> bool {
        sockets::is_closed(&self.short_path(name))
    }

    /// Binds a socket (mode 0600) anywhere, under a path of any length; there must be nothing at the path.
    ///
    /// # Errors
    /// The folder cannot be opened, or the name is taken.
    pub fn bind_at(path: &Path) -> io::Result<UnixListener> {
        let folder = folder_of(path);
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let opened = File::open(folder)?;
        let short = short_path(&opened, folder, name);
        let listener = UnixListener::bind(&short)?;
        std::fs::set_permissions(&short, Permissions::from_mode(0o600))?;
        Ok(listener)
    }
}
