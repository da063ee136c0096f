//! The run directory of one VM. The process that holds its lock owns it; a held lock means a living supervisor.

mod client;
mod making;

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::fcntl::renameat;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::mkfifoat;

use super::directory::{Directory, Privacy};
use super::own::{self, Holds};
use super::{DirError, RunId, names};
use crate::host::HINTED;
use crate::spec::VmName;
pub use client::RunClient;
use making::{Attempt, PART, attempt_on, dissolve, dissolve_part, make_in, part};

/// The mode of sockets and pipes: 0600.
const PRIVATE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);
/// How often a lock is tried before it counts as taken: [`RunDir::probe`] of another process holds it for microseconds,
/// and a directory can vanish under our hands when its VM ends.
const ATTEMPTS: u32 = 10;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(10);

/// Whether a VM's supervisor is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It holds its lock.
    Alive,
    /// No process does: there is no such VM, or its supervisor was killed.
    Free,
}

/// A run directory that we own. Reading and writing: see [`Directory`].
#[derive(Debug)]
pub struct RunDir {
    name: VmName,
    /// The folder of run directories.
    root: Directory,
    directory: Directory,
    // closed last: until then the name cannot be taken
    _lock: File,
}

impl Deref for RunDir {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        &self.directory
    }
}

impl RunDir {
    /// Makes `<root>/<name>/` (or takes over what a killed supervisor left) and locks it. `root` is that of
    /// [`runtime_root`](super::runtime_root).
    ///
    /// # Errors
    /// [`DirError::Taken`] while another supervisor has the name; else why the directory cannot be used.
    pub fn create(root: &Path, name: &VmName) -> Result<Self, DirError> {
        Self::get(root, name, true)?.ok_or_else(|| DirError::Missing { path: root.join(name.as_str()) })
    }

    /// Takes over what a killed supervisor left; none if there is no such directory.
    ///
    /// # Errors
    /// As of [`RunDir::create`].
    pub fn take(root: &Path, name: &VmName) -> Result<Option<Self>, DirError> {
        Self::get(root, name, false)
    }

    fn get(root: &Path, name: &VmName, make: bool) -> Result<Option<Self>, DirError> {
        let root = Directory::open(root, Privacy::ReadableByOthers)?;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                thread::sleep(BETWEEN_ATTEMPTS);
            }
            let made = match attempt_on(&root, name.as_str())? {
                Attempt::Taken(directory, lock) => Some((directory, lock)),
                Attempt::Missing if make => make_in(&root, name.as_str())?,
                Attempt::Missing => return Ok(None),
                Attempt::Held => None,
            };
            if let Some((directory, lock)) = made {
                return Ok(Some(Self { name: name.clone(), root, directory, _lock: lock }));
            }
        }
        Err(DirError::Taken { name: name.to_string() })
    }

    /// Whether a VM of this name is alive. Looks without changing anything.
    pub fn probe(root: &Path, name: &VmName) -> Liveness {
        RunClient::open(root, name).map_or(Liveness::Free, |client| client.liveness())
    }

    /// The names of all run directories, sorted, whether their VMs are alive or not.
    ///
    /// # Errors
    /// The root cannot be read; one that is not there has none.
    pub fn list(root: &Path) -> io::Result<Vec<VmName>> {
        let Some(root) = open_root(root)? else { return Ok(Vec::new()) };
        let (mut names, _) = named_as_vms(&root)?;
        names.sort_by(|a: &VmName, b| a.as_str().cmp(b.as_str()));
        Ok(names)
    }

    /// Removes what a process that was killed while it made or removed a run directory has left, and tells of the folders that
    /// are named as a VM could be and are not vmrun's: these are left alone.
    ///
    /// # Errors
    /// The root cannot be read.
    pub fn tidy(root: &Path) -> io::Result<Vec<PathBuf>> {
        let Some(root) = open_root(root)? else { return Ok(Vec::new()) };
        for name in own::entries(&root)? {
            if let Some(part) = name.to_str().filter(|name| name.starts_with(PART)) {
                dissolve_part(&root, part);
            }
        }
        Ok(named_as_vms(&root)?.1)
    }

    /// The VM's name.
    pub fn name(&self) -> &VmName {
        &self.name
    }

    /// Writes a file in it as [`Directory::write`] does, without waiting for the disk: what is said of a running VM is worth nothing
    /// after the machine's end.
    ///
    /// # Errors
    /// Of the file system; the old file is as it was.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.directory.write_for_now(name, bytes)
    }

    /// The id of the VM's run: made up at its start, the same for all its supervisors. To be there before a client can connect.
    ///
    /// # Errors
    /// Of the file system.
    pub fn ensure_run_id(&self) -> io::Result<RunId> {
        match self.run_id() {
            Some(run) => Ok(run),
            None => {
                let run = RunId::random();
                self.write(names::RUN, run.to_string().as_bytes())?;
                Ok(run)
            }
        }
    }

    /// Binds a socket in it (mode 0600), in place of one that was left over.
    ///
    /// # Errors
    /// Of the system.
    pub fn bind(&self, name: &str) -> io::Result<UnixListener> {
        self.unlink(name)?;
        let listener = UnixListener::bind(self.short_path(name))?;
        self.make_private(name)?;
        Ok(listener)
    }

    /// Makes a pipe in it (mode 0600), in place of one that was left over. It is opened with [`Directory::open_pipe`].
    ///
    /// # Errors
    /// Of the system.
    pub fn make_pipe(&self, name: &str) -> io::Result<()> {
        self.unlink(name)?;
        mkfifoat(&self.directory, name, PRIVATE)?;
        self.make_private(name)
    }

    /// Whatever the umask gave what was just made, or took from it; until then the directory's 0700 protects it.
    fn make_private(&self, name: &str) -> io::Result<()> {
        Ok(fchmodat(&self.directory, name, PRIVATE, FchmodatFlags::FollowSymlink)?)
    }

    /// Empties the directory but for the lock: what a killed supervisor left.
    ///
    /// # Errors
    /// There is something in it that is not vmrun's, and nothing was removed; or of the file system.
    pub fn clear(&self) -> Result<(), DirError> {
        // left by a supervisor that was killed in a moment (see `nowhere`); not removed if anything is in it
        let _ = own::remove_empty(&self.directory, names::EMPTY.as_ref());
        own::empty(&self.directory, Holds::Run, &[names::LOCK, names::MARK])
    }

    /// Removes everything, then gives the name back.
    ///
    /// # Errors
    /// As of [`RunDir::clear`]; the name is given back all the same.
    pub fn remove_all(self) -> Result<(), DirError> {
        self.clear()?;
        let name = self.name.as_str();
        if !self.root.is_entry(name, &self.directory) {
            // it was moved: not ours any more
            return Ok(());
        }
        let io = |source| DirError::Io { action: "remove", path: self.directory.path().to_owned(), source };
        let part = part();
        // from here on the name is free, and the next process makes a directory of its own
        renameat(&self.root, name, &self.root, part.as_str()).map_err(|errno| io(errno.into()))?;
        dissolve(&self.root, &part, &self.directory).map_err(io)
    }

    /// As [`RunDir::remove_all`], where no caller takes the error: what stays is logged.
    pub fn discard(self) {
        if let Err(error) = self.remove_all() {
            warn_of(&error);
        }
    }
}

/// Says that something stays where it is, and what to do about it.
pub fn warn_of(error: &DirError) {
    let source = std::error::Error::source(error).map(|why| format!(": {why}")).unwrap_or_default();
    match error.hint() {
        Some(hint) => log::warn!(target: HINTED, "{error}{source}\nhint: {hint}"),
        None => log::warn!("{error}{source}"),
    }
}

fn open_root(root: &Path) -> io::Result<Option<Directory>> {
    match Directory::open(root, Privacy::ReadableByOthers) {
        Ok(root) => Ok(Some(root)),
        Err(DirError::Missing { .. }) => Ok(None),
        Err(DirError::Io { source, .. }) => Err(source),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// The run directories in the folder of these, and what is named as one could be and is none.
fn named_as_vms(root: &Directory) -> io::Result<(Vec<VmName>, Vec<PathBuf>)> {
    let (mut names, mut strangers) = (Vec::new(), Vec::new());
    for entry in own::entries(root)? {
        let Some(name) = entry.to_str().and_then(|name| name.parse::<VmName>().ok()) else { continue };
        match Directory::open_in(root, name.as_str(), Privacy::Private) {
            Ok(directory) if own::bears_mark(&directory) => names.push(name),
            Ok(directory) if root.is_entry(name.as_str(), &directory) => {
                strangers.push(directory.path().to_owned());
            }
            Err(DirError::Foreign { path, .. } | DirError::Open { path, .. }) => strangers.push(path),
            _ => {}
        }
    }
    Ok((names, strangers))
}

#[cfg(test)]
mod tests;
