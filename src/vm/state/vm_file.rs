//! `vm.json`: what a new supervisor must know of a VM and cannot ask QEMU for.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::host::dirs::{Directory, RunClient, RunDir, names};
use crate::host::sys;
use crate::spec::VmName;

use super::origin::Description;
use crate::vm::start_error::{StartError, system};

/// How long a foreground QEMU, which dies with its supervisor, may take to end, in milliseconds.
const DYING: u16 = 2000;

/// The content of the file.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::vm) struct VmFile {
    #[serde(flatten)]
    pub(in crate::vm) description: Description,
    /// The socket of `--qmp`, which is removed with the VM.
    #[serde(with = "crate::spec::fields::optional_path", default)]
    pub(in crate::vm) user_qmp: Option<PathBuf>,
    /// The guest was started, or stays as it was saved. QEMU cannot tell: a paused VM that was reset looks not started.
    #[serde(default)]
    pub(in crate::vm) begun: bool,
}

impl VmFile {
    /// For a wrapped VM: none of its start depends on vmrun.
    pub(in crate::vm) fn of_wrapped(description: Description) -> Self {
        Self { description, user_qmp: None, begun: true }
    }

    pub(in crate::vm) fn read(directory: &Directory) -> Option<Self> {
        Self::load(directory).ok().flatten()
    }

    /// `None` if there is no such file; an error if it cannot be read.
    pub(in crate::vm) fn load(directory: &Directory) -> Result<Option<Self>, String> {
        match directory.read(names::VM) {
            Ok(text) => {
                serde_json::from_slice(&text).map(Some).map_err(|error| format!("{}: {error}", names::VM))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", names::VM)),
        }
    }

    /// Writes it to the run directory.
    pub(in crate::vm) fn write(&self, run: &RunDir) -> Result<(), StartError> {
        serde_json::to_vec(self)
            .map_err(io::Error::other)
            .and_then(|text| run.write(names::VM, &text))
            .map_err(system("the VM's description in the run directory"))
    }

    /// The recorded process, if it is still that process and alive.
    pub(in crate::vm) fn process(&self) -> Option<OwnedFd> {
        let Description { origin, facts } = &self.description;
        let pid = Pid::from_raw(facts.qemu_pid);
        let pidfd = sys::pidfd_open(pid).ok()?;
        // checked after the pidfd was opened: if the start time matches now, the pidfd refers to that process
        let started = sys::process_start_time("/proc".as_ref(), pid).ok()?;
        // a zombie still has its entry in /proc
        let dies_with_it = !facts.detached && !origin.is_wrapped();
        let patience = if dies_with_it { DYING } else { 0 };
        (started == facts.qemu_start_time && !ends_within(&pidfd, patience)).then_some(pidfd)
    }
}

/// Whether a process ends within so many milliseconds.
pub(in crate::vm) fn ends_within(process: &OwnedFd, patience_ms: u16) -> bool {
    // readable = ended; on an error it counts as alive
    poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::from(patience_ms))
        .is_ok_and(|ready| ready > 0)
}

/// The VM that a QEMU process belongs to.
pub(in crate::vm) fn vm_of(root: &Path, qemu_pid: i32) -> Option<VmName> {
    qemus(root).find(|(_, pid)| *pid == qemu_pid).map(|(name, _)| name)
}

/// The running VMs with their QEMU processes, by their descriptions.
pub(in crate::vm) fn qemus(root: &Path) -> impl Iterator<Item = (VmName, i32)> {
    RunDir::list(root).unwrap_or_default().into_iter().filter_map(move |name| {
        let directory = RunClient::open(root, &name).ok()?;
        let pid = VmFile::read(&directory)?.description.facts.qemu_pid;
        Some((name, pid))
    })
}

/// The VM that uses this state directory.
pub(in crate::vm) fn vm_with_state(root: &Path, state: &Path) -> Option<VmName> {
    let has_it = |name: &VmName| {
        let directory = RunClient::open(root, name).ok()?;
        VmFile::read(&directory).map(|file| file.description.facts.state_directory == state)
    };
    RunDir::list(root).ok()?.into_iter().find(|name| has_it(name) == Some(true))
}
