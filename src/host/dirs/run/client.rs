//! A run directory as others see it.

use std::ops::Deref;
use std::path::Path;

use nix::fcntl::OFlag;

use super::super::directory::{Directory, Privacy};
use super::super::holder::holder;
use super::super::{DirError, RunId, names, own};
use super::Liveness;
use crate::host::sys;
use crate::spec::VmName;

/// Someone else's view of a run directory: to connect and to read. See [`Directory`].
#[derive(Debug)]
pub struct RunClient {
    directory: Directory,
    run: Option<RunId>,
}

impl Deref for RunClient {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        &self.directory
    }
}

impl RunClient {
    /// Opens `<root>/<name>/`.
    ///
    /// # Errors
    /// [`DirError::Missing`] if there is no such VM; else why the directory is not to be trusted.
    pub fn open(root: &Path, name: &VmName) -> Result<Self, DirError> {
        let root = Directory::open(root, Privacy::ReadableByOthers)?;
        let directory = Directory::open_in(&root, name.as_str(), Privacy::Private)?;
        match own::bears_mark(&directory) {
            true => {
                let run = directory.run_id();
                Ok(Self { directory, run })
            }
            false if root.is_entry(name.as_str(), &directory) => {
                Err(DirError::NotOurs { path: directory.path().to_owned() })
            }
            // removed just now
            false => Err(DirError::Missing { path: directory.path().to_owned() }),
        }
    }

    /// The run whose directory it was when it was opened; none where that was not written down yet.
    pub fn run(&self) -> Option<&RunId> {
        self.run.as_ref()
    }

    /// Whether its VM's supervisor is alive. Looks without changing anything.
    pub fn liveness(&self) -> Liveness {
        let lock = self.open_file(names::LOCK, OFlag::O_RDWR);
        let held = lock.is_ok_and(|lock| sys::try_lock(&lock).is_ok_and(|free| !free));
        if held { Liveness::Alive } else { Liveness::Free }
    }

    /// The process of its VM's supervisor, if the system shows it: the one that holds the lock.
    pub fn supervisor(&self) -> Option<i32> {
        holder(&self.open_file(names::LOCK, OFlag::O_RDWR).ok()?)
    }
}
