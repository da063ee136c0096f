//! Files in an open directory: never through a link, and never waited for.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstatat, futimens};
use nix::sys::time::TimeSpec;

use super::super::{RunId, names, own};
use super::Directory;

/// No file in our directories is larger; a larger one is not ours.
const MAX_FILE_BYTES: u64 = 32 << 20;

/// How a pipe that has a name is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipeEnd {
    /// A read ends when the last writer has closed it.
    Read,
    /// A write fails when the last reader has closed it.
    Write,
    /// To read what never ends (Linux; POSIX leaves it open).
    Both,
}

impl Directory {
    /// Opens one end of a pipe in it, or both; nothing waits for the other end.
    ///
    /// # Errors
    /// Of the file system; `ENXIO` where it is opened to be written only without a reader.
    pub fn open_pipe(&self, name: &str, access: PipeEnd) -> io::Result<File> {
        let flags = match access {
            PipeEnd::Read => OFlag::O_RDONLY,
            PipeEnd::Write => OFlag::O_WRONLY,
            PipeEnd::Both => OFlag::O_RDWR,
        };
        self.open_file(name, flags)
    }

    /// Opens a file in it, never through a symlink.
    pub(in crate::host::dirs) fn open_file(&self, name: &str, flags: OFlag) -> io::Result<File> {
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

    /// Removes a file; one that is not there is fine.
    ///
    /// # Errors
    /// Of the file system.
    pub fn unlink(&self, name: &str) -> io::Result<()> {
        own::remove(&self.fd, name.as_ref())
    }
}
