//! A directory opened once: everything in it is reached through its descriptor, so that swapping its path changes nothing.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstat, fstatat, futimens, mkdirat};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};
use nix::unistd::Uid;

use super::{DirError, RunId, ancestors, names};

/// No file in our directories is larger; a larger one is not ours.
const MAX_FILE_BYTES: u64 = 32 << 20;

/// Which permissions of others are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Privacy {
    /// Nobody else may do anything.
    Private,
    /// Others may look.
    ReadableByOthers,
}

/// How a pipe that has a name is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipeEnd {
    /// What is read ends when nobody has it open to write any more.
    Read,
    /// Writing fails when nobody has it open to read any more.
    Write,
    /// To read what never ends (Linux; POSIX leaves it open).
    Both,
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
            // A umask may have taken bits of 0700. Nobody else can swap it: our parents are ours or sticky.
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

    /// Opens a folder that need not be our own, but in which nobody else may put anything in the place of what is ours; nor may anybody
    /// put another folder in its place.
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
    pub(super) fn open(path: &Path, privacy: Privacy) -> Result<Self, DirError> {
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

    /// A path for a file in it that is short enough for a socket (107 bytes) however long the real one is.
    /// Good in this process, while the directory is open.
    pub fn short_path(&self, name: &str) -> PathBuf {
        if cfg!(target_os = "linux") {
            PathBuf::from(format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd()))
        } else {
            self.path.join(name)
        }
    }

    /// Connects to a socket in it, waiting if its queue is full.
    ///
    /// # Errors
    /// As of `connect`: `NotFound`, or `ConnectionRefused` when nobody listens.
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

    /// Whether a process has the socket of this name, in whatever namespace it is. It hears nothing of the question.
    pub fn is_listened_on(&self, name: &str) -> bool {
        super::socket::is_listened_on(&self.short_path(name))
    }

    /// Opens one end of a pipe in it, or both; nothing waits for the other end.
    ///
    /// # Errors
    /// Of the file system; `ENXIO` where it is opened to be written only and nobody has it open to read.
    pub fn open_pipe(&self, name: &str, access: PipeEnd) -> io::Result<File> {
        let flags = match access {
            PipeEnd::Read => OFlag::O_RDONLY,
            PipeEnd::Write => OFlag::O_WRONLY,
            PipeEnd::Both => OFlag::O_RDWR,
        };
        self.open_file(name, flags)
    }

    /// Opens a file in it, never through a symlink.
    pub(super) fn open_file(&self, name: &str, flags: OFlag) -> io::Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        Ok(openat(&self.fd, name, flags, mode)?.into())
    }

    /// Opens a file in it to read, however large it is.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub fn open_to_read(&self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlag::O_RDONLY)
    }

    /// Reads a file in it.
    ///
    /// # Errors
    /// It is not there, cannot be read, or is larger than anything of ours.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_file(name, OFlag::O_RDONLY)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE_BYTES { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    }

    /// The id of a run, in a run directory; none where there is none, as after the VM's end.
    pub fn run_id(&self) -> Option<RunId> {
        String::from_utf8(self.read(names::RUN).ok()?).ok()?.parse().ok()
    }

    /// Writes a file in it (mode 0600), replacing an old one in one step: a reader sees all of the one or all of the other.
    ///
    /// # Errors
    /// Of the file system; the old file is as it was.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.replace(name, |file| file.write_all(bytes))
    }

    /// As [`Directory::write`], with what `fill` puts into the file.
    ///
    /// # Errors
    /// As there.
    pub fn replace(&self, name: &str, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        self.replace_after(name, fill, File::sync_all)
    }

    /// The names of what is in it.
    pub(in crate::host) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut listed = Dir::openat(&self.fd, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut names = Vec::new();
        for entry in listed.iter() {
            let name = entry?.file_name().to_bytes().to_owned();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// When a file in it was written or touched last, to say which of two is older; none if it is not there.
    pub(in crate::host) fn age_rank(&self, name: &OsStr) -> io::Result<Option<(i64, i64)>> {
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(facts) => Ok(Some((facts.st_mtime, facts.st_mtime_nsec))),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a file in it the newest.
    pub(in crate::host) fn touch(&self, name: &str) -> io::Result<()> {
        let file = self.open_file(name, OFlag::O_WRONLY)?;
        Ok(futimens(&file, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW)?)
    }

    /// Waits until a file in it, which need not be there any more, and its name are on the disk.
    pub(in crate::host) fn sync(&self, name: &str) -> io::Result<()> {
        match self.open_file(name, OFlag::O_RDONLY) {
            Ok(file) => file.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(nix::unistd::fsync(&self.fd)?)
    }

    /// As [`Directory::write`], but the file need not outlive the machine: nothing waits for the disk.
    pub(in crate::host) fn write_for_now(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.replace_after(name, |file| file.write_all(bytes), |_| Ok(()))
    }

    fn replace_after(
        &self,
        name: &str,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
        sync: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<()> {
        let temporary = format!(".{name}.{}-{:08x}", std::process::id(), rand::random::<u32>());
        let mut file = self.open_file(&temporary, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?;
        let written = file
            .set_permissions(Permissions::from_mode(0o600))
            .and_then(|()| fill(&mut file))
            .and_then(|()| sync(&file))
            .and_then(|()| Ok(renameat(&self.fd, temporary.as_str(), &self.fd, name)?));
        written.inspect_err(|_| drop(self.unlink(&temporary)))
    }

    /// Makes a file in it (mode 0600) to be written and read; there must be none of this name.
    ///
    /// # Errors
    /// Of the file system.
    pub fn create_new(&self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_APPEND)
    }

    /// Opens a file in it to be added to and read, and makes it (mode 0600) if need be.
    ///
    /// # Errors
    /// Of the file system.
    pub fn append(&self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_APPEND)
    }

    /// Gives a file another name in it, in place of what had that name.
    ///
    /// # Errors
    /// Of the file system; `NotFound` if there is no such file.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Binds a socket (mode 0600) anywhere, under a path of any length; there must be nothing at the path.
    ///
    /// # Errors
    /// The folder cannot be opened, or the name is taken.
    pub fn bind_at(path: &Path) -> io::Result<UnixListener> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = File::open(folder)?;
        let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        let listener = UnixListener::bind(&short)?;
        std::fs::set_permissions(&short, Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Removes a file; one that is not there is fine.
    ///
    /// # Errors
    /// Of the file system.
    pub fn unlink(&self, name: &str) -> io::Result<()> {
        super::own::remove(&self.fd, name.as_ref())
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
