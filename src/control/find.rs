//! Finds the VM that a command is for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::host::dirs::{DirError, Liveness, RunClient, RunDir};
use crate::spec::VmName;
use crate::vm::is_orphan;

use super::client::{Client, ClientError};
use super::silence::CONNECT;

/// A supervisor binds its socket microseconds after it takes its lock; on a busy machine it takes longer.
const CONNECT_ATTEMPTS: u32 = 50;
const CONNECT_PAUSE: Duration = Duration::from_millis(4);

/// Why no VM was found, or it cannot be reached.
#[derive(Debug, Error)]
pub enum FindError {
    /// None runs.
    #[error("no VM is running")]
    None,
    /// More than one runs, and no name was given.
    #[error("several VMs are running: {}", names(.0))]
    Several(Vec<VmName>),
    /// The named VM does not run.
    #[error("no VM '{name}' is running{}", others(.running))]
    NoSuch {
        /// The name.
        name: VmName,
        /// The running VMs.
        running: Vec<VmName>,
    },
    /// Its supervisor has died, and QEMU is running: it can be taken over.
    #[error("the supervisor of VM '{0}' has died")]
    Orphan(VmName),
    /// Its supervisor and QEMU are dead; only files are left.
    #[error("VM '{0}' is not running any more; its supervisor ended without cleaning up")]
    Stale(VmName),
    /// The folder of running VMs cannot be used.
    #[error(transparent)]
    Directory(#[from] DirError),
    /// The folder of running VMs cannot be read.
    #[error("the folder of running VMs cannot be read: {0}")]
    List(std::io::Error),
    /// The control socket does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl FindError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::None => Some("start one with `vmrun qemu IMAGE`".to_owned()),
            Self::Several(names) => {
                names.first().map(|name| format!("say which with `--vm {name}` or `export VMRUN_VM={name}`"))
            }
            Self::NoSuch { .. } => Some("`vmrun ls` lists the running VMs".to_owned()),
            Self::Stale(name) => Some(format!("the next `vmrun qemu --name {name} …` cleans it up")),
            Self::Directory(error) => error.hint(),
            Self::Client(ClientError::NotAnswering(silence)) => silence.hint(),
            Self::List(_) | Self::Client(_) | Self::Orphan(_) => None,
        }
    }
}

fn names(names: &[VmName]) -> String {
    names.iter().map(VmName::as_str).collect::<Vec<_>>().join(", ")
}

fn others(running: &[VmName]) -> String {
    if running.is_empty() { String::new() } else { format!("; running: {}", names(running)) }
}

/// Whether a VM has a supervisor, from its run directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has a supervisor.
    Supervised,
    /// Its supervisor has died, and QEMU is running.
    Orphan,
    /// Both are dead; files are left.
    Stale,
}

/// All VMs in the runtime folder with their standing.
pub fn all(root: &Path) -> Result<Vec<(VmName, Standing)>, FindError> {
    let names = RunDir::list(root).map_err(FindError::List)?;
    Ok(names
        .into_iter()
        .map(|name| (standing(root, &name), name))
        .map(|(standing, name)| (name, standing))
        .collect())
}

/// The standing of one VM.
pub fn standing(root: &Path, name: &VmName) -> Standing {
    RunClient::open(root, name).map_or(Standing::Stale, |directory| standing_of(&directory))
}

pub(super) fn standing_of(directory: &RunClient) -> Standing {
    match directory.liveness() {
        Liveness::Alive => Standing::Supervised,
        Liveness::Free if is_orphan(directory) => Standing::Orphan,
        Liveness::Free => Standing::Stale,
    }
}

/// The names of running VMs, with or without a supervisor.
fn running(root: &Path) -> Result<Vec<VmName>, FindError> {
    let all = all(root)?;
    Ok(all.into_iter().filter(|(_, standing)| *standing != Standing::Stale).map(|(name, _)| name).collect())
}

/// Connects to the named VM, or to the only running one.
pub fn connect(root: &Path, name: Option<&VmName>) -> Result<(VmName, Client), FindError> {
    if let Some(name) = name {
        return Ok((name.clone(), connect_to(name, open(root, name)?, CONNECT)?));
    }
    let mut names = RunDir::list(root).map_err(FindError::List)?;
    if names.len() > 1 {
        // some may have only files left
        names.retain(|name| standing(root, name) != Standing::Stale);
    }
    let only = match <[VmName; 1]>::try_from(names) {
        Ok([only]) => only,
        Err(names) if names.is_empty() => return Err(FindError::None),
        Err(names) => return Err(FindError::Several(names)),
    };
    match open(root, &only).and_then(|directory| connect_to(&only, directory, CONNECT)) {
        Ok(client) => Ok((only, client)),
        // it has just ended, or only files are left
        Err(FindError::NoSuch { .. } | FindError::Stale(_)) => Err(FindError::None),
        Err(error) => Err(error),
    }
}

/// Connects to the named VM, with a deadline.
pub fn connect_within(root: &Path, name: &VmName, within: Duration) -> Result<Client, FindError> {
    connect_to(name, open(root, name)?, within)
}

/// The run directory of a VM that has a supervisor.
pub fn open_supervised(root: &Path, name: &VmName) -> Result<RunClient, FindError> {
    let directory = open(root, name)?;
    supervised(name, &directory)?;
    Ok(directory)
}

fn open(root: &Path, name: &VmName) -> Result<RunClient, FindError> {
    match RunClient::open(root, name) {
        Ok(directory) => Ok(directory),
        Err(DirError::Missing { .. } | DirError::NotOurs { .. }) => {
            Err(FindError::NoSuch { name: name.clone(), running: running(root)? })
        }
        Err(error) => Err(error.into()),
    }
}

fn supervised(name: &VmName, directory: &RunClient) -> Result<(), FindError> {
    match standing_of(directory) {
        Standing::Supervised => Ok(()),
        Standing::Orphan => Err(FindError::Orphan(name.clone())),
        Standing::Stale => Err(FindError::Stale(name.clone())),
    }
}

fn connect_to(name: &VmName, directory: RunClient, within: Duration) -> Result<Client, FindError> {
    let directory = Arc::new(directory);
    let mut left = CONNECT_ATTEMPTS;
    loop {
        let not_yet = |error: &std::io::Error| {
            matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)
        };
        match Client::connect_within(Arc::clone(&directory), within) {
            // a process that accepts is alive, so the lock matters only if none does; a new supervisor binds its socket a moment
            // after it takes the lock
            Err(ClientError::Connect(error)) if not_yet(&error) && left > 0 => {
                supervised(name, &directory)?;
                left -= 1;
                std::thread::sleep(CONNECT_PAUSE);
            }
            other => return Ok(other?),
        }
    }
}
