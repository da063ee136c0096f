//! Finds the VM that a command is meant for.

use std::path::Path;

use thiserror::Error;

use crate::host::dirs::{DirError, Liveness, RunClient, RunDir};
use crate::spec::VmName;
use crate::vm::is_orphan;

use super::client::{Client, ClientError};

/// Between a supervisor's lock and its socket there are microseconds; on a busy machine some more.
const CONNECT_ATTEMPTS: u32 = 50;
const CONNECT_PAUSE: std::time::Duration = std::time::Duration::from_millis(4);

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
    if RunDir::probe(root, name) == Liveness::Alive {
        return Standing::Supervised;
    }
    let orphan = RunClient::open(root, name).is_ok_and(|directory| is_orphan(&directory));
    if orphan { Standing::Orphan } else { Standing::Stale }
}

/// The names of those that run, with or without a supervisor.
pub fn running(root: &Path) -> Result<Vec<VmName>, FindError> {
    let all = all(root)?;
    Ok(all.into_iter().filter(|(_, standing)| *standing != Standing::Stale).map(|(name, _)| name).collect())
}

/// Connects to the VM that is meant: the named one, or the only one.
pub fn connect(root: &Path, name: Option<&VmName>) -> Result<(VmName, Client), FindError> {
    let (name, directory) = open(root, name)?;
    let client = connect_to(&directory)?;
    Ok((name, client))
}

/// The run directory of the VM that is meant, which has a supervisor.
pub fn open(root: &Path, name: Option<&VmName>) -> Result<(VmName, RunClient), FindError> {
    let name = match name {
        Some(name) => name.clone(),
        None => {
            let mut running = running(root)?;
            match (running.pop(), running.is_empty()) {
                (Some(only), true) => only,
                (Some(last), false) => {
                    running.push(last);
                    return Err(FindError::Several(running));
                }
                (None, _) => return Err(FindError::None),
            }
        }
    };
    let directory = match RunClient::open(root, &name) {
        Ok(directory) => directory,
        Err(DirError::Missing { .. }) => {
            let running = running(root)?;
            return Err(FindError::NoSuch { name, running });
        }
        Err(error) => return Err(error.into()),
    };
    if RunDir::probe(root, &name) == Liveness::Free {
        return Err(if is_orphan(&directory) { FindError::Orphan(name) } else { FindError::Stale(name) });
    }
    Ok((name, directory))
}

/// A supervisor that has just taken its lock binds its socket a moment later.
fn connect_to(directory: &RunClient) -> Result<Client, ClientError> {
    let mut left = CONNECT_ATTEMPTS;
    loop {
        let not_yet = |error: &std::io::Error| {
            matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)
        };
        match Client::connect(directory) {
            Err(ClientError::Connect(error)) if not_yet(&error) && left > 0 => {
                left -= 1;
                std::thread::sleep(CONNECT_PAUSE);
            }
            other => return other,
        }
    }
}
