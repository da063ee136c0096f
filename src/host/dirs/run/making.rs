//! How a run directory comes into being under its name, is taken over, and goes: there never is one that is half made.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{OFlag, renameat};

use super::super::directory::{Directory, Privacy};
use super::super::own::{self, Holds};
use super::super::{DirError, names};
use crate::host::sys;

/// How the name of a run directory begins while it is made or removed: no VM's does.
pub(super) const PART: &str = ".part-";

/// What became of an attempt to get a run directory that is there.
pub(super) enum Attempt {
    Taken(Directory, File),
    /// Another process has its lock.
    Held,
    Missing,
}

/// Takes the lock of a run directory that is there, if it is vmrun's.
pub(super) fn attempt_on(root: &Directory, name: &str) -> Result<Attempt, DirError> {
    let directory = match Directory::open_in(root, name, Privacy::Private) {
        Err(DirError::Missing { .. }) => return Ok(Attempt::Missing),
        other => other?,
    };
    let marked = own::bears_mark(&directory);
    // its last holder may have removed it since we opened it
    if !root.is_entry(name, &directory) {
        return Ok(Attempt::Missing);
    }
    if !marked {
        return Err(DirError::NotOurs { path: directory.path().to_owned() });
    }
    let io = |source| DirError::Io { action: "lock", path: directory.path().join(names::LOCK), source };
    let lock = match directory.open_file(names::LOCK, OFlag::O_RDWR) {
        // removed just now; or by hand, if the directory is still in its place
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !root.is_entry(name, &directory) {
                return Ok(Attempt::Missing);
            }
            directory.open_file(names::LOCK, OFlag::O_RDWR | OFlag::O_CREAT).map_err(io)?
        }
        other => other.map_err(io)?,
    };
    let held = sys::try_lock(&lock).map_err(io)?;
    match held && directory.is_entry(names::LOCK, &lock) && root.is_entry(name, &directory) {
        true => Ok(Attempt::Taken(directory, lock)),
        false => Ok(Attempt::Held),
    }
}

/// Makes a run directory under another name, with its lock held and marked as vmrun's, and only then gives it its own: there never is one
/// that is half made. None if another process was faster.
pub(super) fn make_in(root: &Directory, name: &str) -> Result<Option<(Directory, File)>, DirError> {
    let part = part();
    let directory = match Directory::create_in(root, &part, Privacy::Private) {
        // swept away as what a killed process had left
        Err(DirError::Missing { path }) if path != root.path() => return Ok(None),
        other => other?,
    };
    let fill = || {
        let lock = directory.open_file(names::LOCK, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)?;
        let held = sys::try_lock(&lock)?;
        own::mark(&directory)?;
        Ok((held, lock))
    };
    let filled = match fill() {
        Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => return Ok(None),
        Ok((true, lock)) => match renameat(root, part.as_str(), root, name) {
            Ok(()) => Ok(lock),
            Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => Err(None),
            Err(errno) => Err(Some(errno.into())),
        },
        Ok((false, _)) => Err(None),
        Err(error) => Err(Some(error)),
    };
    match filled {
        Ok(lock) => Ok(Some((directory.renamed(root.path().join(name)), lock))),
        Err(failed) => {
            let _ = dissolve(root, &part, &directory);
            let path = root.path().join(name);
            failed.map_or(Ok(None), |source| Err(DirError::Io { action: "create", path, source }))
        }
    }
}

/// What a run directory is called while it is made or removed.
pub(super) fn part() -> String {
    format!("{PART}{}-{:08x}", std::process::id(), rand::random::<u32>())
}

/// Removes a run directory in which only lock and mark are left.
pub(super) fn dissolve(root: &Directory, part: &str, directory: &Directory) -> io::Result<()> {
    own::remove(directory, names::LOCK.as_ref())?;
    own::remove(directory, names::MARK.as_ref())?;
    own::remove_empty(root, part.as_ref())
}

/// The same for one whose process was killed.
pub(super) fn dissolve_part(root: &Directory, part: &str) {
    // one that was only just made
    if own::remove_empty(root, part.as_ref()).is_err() {
        return;
    }
    let Ok(directory) = Directory::open_in(root, part, Privacy::Private) else { return };
    // who makes or removes it has the lock, and the mark comes after that and goes after it
    let lock = directory.open_file(names::LOCK, OFlag::O_RDWR);
    let held = lock.as_ref().is_ok_and(|lock| sys::try_lock(lock).is_ok_and(|free| !free));
    if own::bears_mark(&directory)
        && !held
        && own::empty(&directory, Holds::Run, &[names::LOCK, names::MARK]).is_ok()
    {
        let _ = dissolve(root, part, &directory);
    }
}
