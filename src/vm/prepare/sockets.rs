//! The sockets of a VM, which listen before there is a QEMU: nothing needs to be waited for.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::host::dirs::{Directory, RunDir, names};

use super::super::start_error::{StartError, system};

/// The sockets that clients connect to.
#[derive(Debug)]
pub struct Doors {
    /// The control protocol.
    pub control: UnixListener,
    /// Plain QMP, shared.
    pub qmp: UnixListener,
}

impl Doors {
    pub(in super::super) fn open(run: &RunDir) -> Result<Self, StartError> {
        let bind = |name: &str| {
            let listener = run.bind(name)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        Ok(Self {
            control: bind(names::CONTROL).map_err(system("the control socket"))?,
            qmp: bind(names::QMP_SHARED).map_err(system("the shared QMP socket"))?,
        })
    }
}

/// The listening sockets of a VM's run directory.
#[derive(Debug)]
pub(in super::super) struct Sockets {
    pub(in super::super) qmp: OwnedFd,
    pub(in super::super) serial: OwnedFd,
    pub(in super::super) agent: OwnedFd,
}

impl Sockets {
    /// Binds them, before QEMU is there: nothing needs to be waited for.
    pub(in super::super) fn bind(run: &RunDir) -> Result<Self, StartError> {
        let bind =
            |name: &str| run.bind(name).map(OwnedFd::from).map_err(system("a socket in the run directory"));
        Ok(Self { qmp: bind(names::QMP)?, serial: bind(names::SERIAL)?, agent: bind(names::AGENT)? })
    }
}

/// The socket of `--qmp`, under any path length.
pub(super) fn user_monitor(path: &Path) -> Result<(PathBuf, UnixListener), StartError> {
    let path = std::path::absolute(path).map_err(system("the working directory"))?;
    let bound = Directory::bind_at(&path).map_err(|error| {
        let taken = error.kind() == std::io::ErrorKind::AddrInUse;
        StartError::File {
            what: "QMP socket",
            path: path.clone(),
            why: if taken { "something has that name already".to_owned() } else { error.to_string() },
            hint: taken.then(|| "remove it, or choose another path".to_owned()),
        }
    })?;
    Ok((path, bound))
}
