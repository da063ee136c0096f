//! A directory opened once: everything in it is reached through its descriptor, so that swapping its path changes nothing.

mod files;
mod sockets;

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::libc;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstat, fstatat, mkdirat};
use nix::unistd::Uid;

use super::{DirError, ancestors};
pub use files::PipeEnd;

/// Which permissions of others are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::host) enum Privacy {
    /// Other users have no access.
    Private,
    /// Others may look.
    ReadableByOthers,
}

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    fd: OwnedFd,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Directory {
    /// Makes a directory (mode 0700 whatever the umask; not its parents) unless it is there, then opens it.
    pub(super) fn create(path: &Path, privacy: Privacy) -> Result<Self, DirError> {
        let io = |source| DirError::Io { action: "create", path: path.to_owned(), source };
        match DirBuilder::new().mode(0o700).create(path) {
            // A umask may have taken bits of 0700. Other users cannot replace it: our parents are ours or sticky.
            Ok(()) => match std::fs::set_permissions(path, Permissions::from_mode(0o700)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(DirError::Missing { path: path.to_owned() });
                }
                other => other.map_err(io)?,
            },
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DirError::Missing { path: path.parent().unwrap_or(path).to_owned() });
            }
            Err(error) => return Err(io(error)),
        }
        Self::open(path, privacy)
    }

    /// The same for a directory in an open one: no path is looked up.
    pub(super) fn create_in(parent: &Self, name: &str, privacy: Privacy) -> Result<Self, DirError> {
        let path = parent.path.join(name);
        let io = |source| DirError::Io { action: "create", path: path.clone(), source };
        match mkdirat(parent, name, Mode::S_IRWXU) {
            // whatever the umask took
            Ok(()) => match fchmodat(parent, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink) {
                Err(Errno::ENOENT) => return Err(DirError::Missing { path }),
                other => other.map_err(|errno| io(errno.into()))?,
            },
            Err(Errno::EEXIST) => {}
            Err(Errno::ENOENT) => return Err(DirError::Missing { path: parent.path.clone() }),
            Err(errno) => return Err(io(errno.into())),
        }
        Self::open_in(parent, name, privacy)
    }

    /// Opens a directory in an open one; it must be our own.
    pub(super) fn open_in(parent: &Self, name: &str, privacy: Privacy) -> Result<Self, DirError> {
        let path = parent.path.join(name);
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        match openat(parent, name, flags, Mode::empty()) {
            Ok(fd) => Self::checked(fd.into(), path, privacy),
            // Linux says ENOTDIR for a symlink, too
            Err(Errno::ENOTDIR | Errno::ELOOP) if is_symlink(parent, name) => Err(DirError::Symlink { path }),
            Err(errno) => Err(not_opened(errno.into(), path)),
        }
    }

    /// Opens a folder that need not be our own, but in which no other user can replace what is ours, and which no other user can
    /// replace.
    pub(super) fn open_shared(
        path: &Path,
        role: &'static str,
        hint: impl Fn() -> String,
    ) -> Result<Self, DirError> {
        ancestors::check(path, role, &hint)?;
        let path = path.to_owned();
        let opened =
            File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NONBLOCK).open(&path);
        let directory = match opened {
            Ok(directory) => directory,
            Err(error) => return Err(not_opened(error, path)),
        };
        let facts = directory.metadata();
        let facts = facts.map_err(|source| DirError::Io { action: "look at", path: path.clone(), source })?;
        let owner = facts.uid();
        let mode = facts.mode() & 0o7777;
        let why = if owner != Uid::effective().as_raw() && owner != 0 {
            format!("belongs to another user (uid {owner})")
        } else if mode & 0o022 != 0 && mode & 0o1000 == 0 {
            format!("can be written by other users (mode {mode:04o})")
        } else {
            return Ok(Self { path, fd: directory.into() });
        };
        Err(DirError::Unsafe { role, path, why, hint: hint() })
    }

    /// Opens a directory that must be there and our own.
    pub(in crate::host) fn open(path: &Path, privacy: Privacy) -> Result<Self, DirError> {
        let path = path.to_owned();
        let opened = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path);
        let directory = match opened {
            Ok(directory) => directory,
            // Linux says ENOTDIR for a symlink, too
            Err(_) if path.is_symlink() => return Err(DirError::Symlink { path }),
            Err(error) => return Err(not_opened(error, path)),
        };
        Self::checked(directory, path, privacy)
    }

    /// Takes an open directory if it is our own, and closed to others.
    fn checked(directory: File, path: PathBuf, privacy: Privacy) -> Result<Self, DirError> {
        let facts = directory.metadata().map_err(|source| DirError::Io {
            action: "look at",
            path: path.clone(),
            source,
        })?;
        let mode = facts.mode() & 0o7777;
        let refused = match privacy {
            Privacy::Private => 0o077,
            Privacy::ReadableByOthers => 0o022,
        };
        if facts.uid() != Uid::effective().as_raw() {
            return Err(DirError::Foreign { path, owner: facts.uid() });
        }
        if mode & refused != 0 {
            return Err(DirError::Open { path, mode });
        }
        Ok(Self { path, fd: directory.into() })
    }

    /// A private directory in it, made (mode 0700 whatever the umask) unless it is there.
    ///
    /// # Errors
    /// It cannot be made, is no directory, a symlink, someone else's or open to others.
    pub fn subdirectory(&self, name: &str) -> Result<Self, DirError> {
        Self::create_in(self, name, Privacy::Private)
    }

    /// As [`Self::subdirectory`], but none if it is not there.
    ///
    /// # Errors
    /// As there.
    pub fn existing_subdirectory(&self, name: &str) -> Result<Option<Self>, DirError> {
        match Self::open_in(self, name, Privacy::Private) {
            Ok(directory) => Ok(Some(directory)),
            Err(DirError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where it was when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same once more.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { path: self.path.clone(), fd: self.fd.try_clone()? })
    }

    /// Its path from now on: it was given another name.
    pub(super) fn renamed(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    /// Whether `name` in it still is this open file or directory.
    pub(super) fn is_entry(&self, name: &str, file: impl AsFd) -> bool {
        let there = fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        matches!((there, fstat(file)), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
    }
}

fn not_opened(error: io::Error, path: PathBuf) -> DirError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOTDIR) => DirError::NotADirectory { path },
        Some(Errno::ENOENT) => DirError::Missing { path },
        _ => DirError::Io { action: "open", path, source: error },
    }
}

fn is_symlink(parent: &Directory, name: &str) -> bool {
    fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|facts| facts.st_mode & libc::S_IFMT == libc::S_IFLNK)
}
