//! The file on the host that a guest's file is copied to.
//!
//! A regular file is written as a new file and renamed when it is complete, so that no reader sees half of it and the old content
//! stays until then. It has no name until then (`O_TMPFILE`), so that nothing is left of it even by a `kill -9`; on file systems
//! that cannot do that its name ends in `.vmrun-XXXXXXXX.part`. What is not a regular file (a pipe, a device) is written to
//! directly.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::fstatvfs;

use crate::host::files;
use crate::host::made::{NewFile, folder_of};
use crate::host::sys;

/// Read, write and execute bits; set-user-ID and similar bits are not copied.
pub(super) const PERMISSIONS: u32 = 0o777;
/// How much of a file's name the temporary name contains: names have 255 bytes at most.
const NAME_PART: usize = 200;
/// The kernel's limit of symbolic links.
const MOST_LINKS: usize = 40;

/// The path of the file itself, if a directory was given.
pub(super) fn place(source: &str, destination: &Path) -> PathBuf {
    match (destination.is_dir(), source.rsplit('/').next()) {
        (true, Some(name)) if !matches!(name, "" | "." | "..") => destination.join(name),
        _ => destination.to_owned(),
    }
}

/// A file to write to.
pub(super) enum Target<'a> {
    /// A new file, which replaces the existing one when it is complete.
    New(Copy),
    /// An existing file that must not be replaced, such as a device.
    There(File),
    /// An open stream of the caller.
    Stream(&'a mut dyn Write),
}

impl Target<'_> {
    /// Opens the file at this path, or makes a new file for it with space for `size` bytes. A symbolic link is followed: the link
    /// stays, and its target is replaced.
    pub(super) fn open(path: &Path, size: Option<u64>) -> io::Result<Self> {
        let there = || {
            let (file, facts) = files::open_to_write(path)?;
            // as a shell does with `> /dev/fd/3`
            if facts.is_file() {
                file.set_len(0)?;
            }
            Ok(Self::There(file))
        };
        if path.as_os_str().as_bytes().ends_with(b"/") && !path.is_dir() {
            return Err(io::Error::new(ErrorKind::NotADirectory, "there is no such directory"));
        }
        let path = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Copy::make(path.to_owned(), size),
            Err(error) => return Err(error),
            // a file under such a name is a descriptor that a process has open already
            Ok(_) if is_descriptor(path)? => return there(),
            Ok(_) => fs::canonicalize(path).map_err(|error| match error.kind() {
                ErrorKind::NotFound => io::Error::new(ErrorKind::NotFound, "it is a link to nothing"),
                _ => error,
            })?,
        };
        let facts = fs::metadata(&path)?;
        if facts.is_dir() {
            return Err(io::Error::from(ErrorKind::IsADirectory));
        }
        if !facts.is_file() {
            return there();
        }
        // like `cp`: a file without write permission is not replaced either; a running program may be
        match files::open_to_write(&path) {
            Err(error) if error.kind() != ErrorKind::ExecutableFileBusy => Err(error),
            _ => Copy::make(path, size),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::New(copy) => copy.new.file().write_all(bytes),
            Self::There(file) => file.write_all(bytes),
            Self::Stream(stream) => stream.write_all(bytes),
        }
    }

    /// The file is complete: sets its mode, limited by the umask, and its name.
    pub(super) fn commit(self, mode: Option<u32>) -> io::Result<()> {
        match self {
            Self::New(copy) => copy.commit(mode),
            Self::There(_) => Ok(()),
            Self::Stream(stream) => stream.flush(),
        }
    }
}

/// Whether this is the name of a descriptor (`/dev/stdout`, `/dev/fd/3`), or a link to one.
fn is_descriptor(path: &Path) -> io::Result<bool> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(next) = fs::read_link(&path) else { return Ok(false) };
        let folder = fs::canonicalize(folder_of(&path))?;
        if folder.starts_with("/proc") && folder.ends_with("fd") {
            return Ok(true);
        }
        path = folder.join(next);
    }
    Ok(false)
}

/// A new file without its final name.
pub(super) struct Copy {
    new: NewFile,
    path: PathBuf,
}

impl Copy {
    fn make<'a>(path: PathBuf, size: Option<u64>) -> io::Result<Target<'a>> {
        let new = NewFile::create(&part_of(&path)).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => io::Error::new(
                error.kind(),
                format!("a new file, which a copy is written to first, cannot be made beside it: {error}"),
            ),
            _ => error,
        })?;
        let free = fstatvfs(new.file()).ok().filter(|disk| disk.blocks() > 0);
        let free = free.map(|disk| disk.blocks_available() * disk.fragment_size());
        match (size, free) {
            (Some(size), Some(free)) if size > free => Err(io::Error::new(
                ErrorKind::StorageFull,
                format!("the guest's file has {size} bytes, and only {free} are free here"),
            )),
            _ => Ok(Target::New(Self { new, path })),
        }
    }

    fn commit(self, mode: Option<u32>) -> io::Result<()> {
        let Self { mut new, path } = self;
        if let Some(mode) = mode {
            new.file().set_permissions(Permissions::from_mode(mode & PERMISSIONS & !sys::umask()))?;
        }
        new.take_name()?;
        new.replace(&path)
    }
}

/// Its temporary name.
fn part_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let mut part = OsString::from_vec(name[..name.len().min(NAME_PART)].to_vec());
    part.push(format!(".vmrun-{:08x}.part", rand::random::<u32>()));
    path.with_file_name(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_copy_with_a_name_of_its_own_is_gone_with_its_end() {
        let dir = tempfile::tempdir().unwrap();
        // a name of the maximal length
        let path = dir.path().join("x".repeat(255));
        let mut new = NewFile::create(&part_of(&path)).unwrap();
        new.take_name().unwrap();
        let [part] = names(dir.path()).try_into().unwrap();
        assert!(part.starts_with("xxx") && part.contains(".vmrun-") && part.ends_with(".part"), "{part}");
        drop(new);
        assert!(names(dir.path()).is_empty());
        let mut new = NewFile::create(&part_of(&path)).unwrap();
        new.take_name().unwrap();
        new.file().write_all(b"new").unwrap();
        Copy { new, path: path.clone() }.commit(None).unwrap();
        assert_eq!(names(dir.path()).len(), 1);
        assert_eq!(fs::read(path).unwrap(), b"new");
    }

    #[test]
    fn what_must_not_be_written_is_not_replaced() {
        // also as root, where this test may do everything: the files that root may open belong to another user
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let fixed = dir.path().join("fixed");
        fs::write(&fixed, "old").unwrap();
        fs::set_permissions(&fixed, Permissions::from_mode(0o444)).unwrap();
        let closed = dir.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o555)).unwrap();
        let refused = std::thread::spawn(move || {
            // of this thread only
            nix::unistd::setfsuid(65534.into());
            [fixed, closed.join("x")].map(|path| match Target::open(&path, None) {
                Ok(_) => panic!("{} was opened", path.display()),
                Err(error) => (error.kind(), error.to_string()),
            })
        });
        let [fixed, closed] = refused.join().unwrap();
        assert_eq!(fixed.0, ErrorKind::PermissionDenied);
        assert_eq!(closed.0, ErrorKind::PermissionDenied);
        assert!(closed.1.contains("beside it"), "{closed:?}");
    }
}
