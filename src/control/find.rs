//! Finds the VM that a command is meant for.

use std::path::Path;

use thiserror::Error;

use crate::host::dirs::{DirError, Liveness, RunClient, RunDir};
use crate::spec::VmName;

use super::client::{Client, ClientError};

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
            Self::List(_) | Self::Client(_) => None,
        }
    }
}

fn names(names: &[VmName]) -> String {
    names.iter().map(VmName::as_str).collect::<Vec<_>>().join(", ")
}

fn others(running: &[VmName]) -> String {
    if running.is_empty() { String::new() } else { format!("; running: {}", names(running)) }
}

/// All names in the runtime folder with their liveness.
pub fn all(root: &Path) -> Result<Vec<(VmName, Liveness)>, FindError> {
    let names = RunDir::list(root).map_err(FindError::List)?;
    Ok(names
        .into_iter()
        .map(|name| {
            let live = RunDir::probe(root, &name);
            (name, live)
        })
        .collect())
}

/// The names of those that run.
pub fn running(root: &Path) -> Result<Vec<VmName>, FindError> {
    let all = all(root)?;
    Ok(all.into_iter().filter(|(_, live)| *live == Liveness::Alive).map(|(name, _)| name).collect())
}

/// Connects to the VM that is meant: the named one, or the only one.
pub fn connect(root: &Path, name: Option<&VmName>) -> Result<(VmName, Client), FindError> {
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
        return Err(FindError::Stale(name));
    }
    let client = Client::connect(&directory)?;
    Ok((name, client))
}
