//! Finds the VM that a command is meant for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::host::dirs::{DirError, Liveness, RunClient, RunDir};
use crate::spec::VmName;
use crate::vm::is_orphan;

use super::client::{Client, ClientError};
use super::silence::CONNECT;

/// Between a supervisor's lock and its socket there are microseconds; on a busy machine some more.
const CONNECT_ATTEMPTS: u32 = 50;
const CONNECT_PAUSE: Duration = Duration::from_millis(4);

/// Why it is not clear which VM is meant, or it cannot be reached.
#[derive(Debug, Error)]
pub enum FindError {
    /// None runs.
    #[error("no VM is running")]
    None,
    /// More than one runs and none was named.
    #[error("several VMs are running: {}", names(.0))]
    Several(Vec<VmName>),
    /// The one that was named does not run.
    #[error("no VM '{name}' is running{}", others(.running))]
    NoSuch {
        /// The name.
        name: VmName,
        /// Those that do.
        running: Vec<VmName>,
    },
    /// Its supervisor has died, and QEMU lives: it can be taken over.
    #[error("the supervisor of VM '{0}' has died")]
    Orphan(VmName),
    /// Its supervisor is gone, only leftovers are there.
    #[error("VM '{0}' is not running any more; its supervisor ended without cleaning up")]
    Stale(VmName),
    /// The folder of running VMs is not usable.
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
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::None => Some("start one with `vmrun qemu IMAGE`".to_owned()),
            Self::Several(names) => names.first().map(|name| format!("say which with `--vm {name}`")),
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

/// How a VM is doing, as its run directory tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has a supervisor.
    Supervised,
    /// Its supervisor has died and QEMU lives.
    Orphan,
    /// Both are dead; there are leftovers.
    Stale,
}

/// All names in the runtime folder with how they are doing.
pub fn all(root: &Path) -> Result<Vec<(VmName, Standing)>, FindError> {
    let names = RunDir::list(root).map_err(FindError::List)?;
    Ok(names
        .into_iter()
        .map(|name| (standing(root, &name), name))
        .map(|(standing, name)| (name, standing))
        .collect())
}

/// How one is doing.
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

/// The names of those that run, with or without a supervisor.
fn running(root: &Path) -> Result<Vec<VmName>, FindError> {
    let all = all(root)?;
    Ok(all.into_iter().filter(|(_, standing)| *standing != Standing::Stale).map(|(name, _)| name).collect())
}

/// Connects to the VM that is meant: the named one, or the only one.
pub fn connect(root: &Path, name: Option<&VmName>) -> Result<(VmName, Client), FindError> {
    if let Some(name) = name {
        return Ok((name.clone(), connect_to(name, open(root, name)?, CONNECT)?));
    }
    let mut names = RunDir::list(root).map_err(FindError::List)?;
    if names.len() > 1 {
        // some may be leftovers
        names.retain(|name| standing(root, name) != Standing::Stale);
    }
    let only = match <[VmName; 1]>::try_from(names) {
        Ok([only]) => only,
        Err(names) if names.is_empty() => return Err(FindError::None),
        Err(names) => return Err(FindError::Several(names)),
    };
    match open(root, &only).and_then(|directory| connect_to(&only, directory, CONNECT)) {
        Ok(client) => Ok((only, client)),
        // it has just ended, or is a leftover
        Err(FindError::NoSuch { .. } | FindError::Stale(_)) => Err(FindError::None),
        Err(error) => Err(error),
    }
}

/// Connects to the named VM, if it takes the connection in this time.
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
            // who listens lives, so the lock tells something of the others only; a supervisor that has just taken its lock
            // binds its socket a moment later
            Err(ClientError::Connect(error)) if not_yet(&error) && left > 0 => {
                supervised(name, &directory)?;
                left -= 1;
                std::thread::sleep(CONNECT_PAUSE);
            }
            other => return Ok(other?),
        }
    }
}
