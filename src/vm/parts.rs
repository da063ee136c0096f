//! The parts of a running VM, in the groups in which a start or a takeover passes them to the owner task.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::Instant;

use super::console::Console;
use super::guest::agent::AgentLink;
use super::guest::waiting_shell::WaitingShell;
use super::process::qemu::Process;
use super::process::shares::Shares;
use super::process::sockets::ControlSockets;
use super::signals::Signals;
use super::state::images::Images;
use super::state::inventory::Inventory;
use super::state::journal::Journal;
use super::state::origin::Description;
use super::state::plugged::Plugged;
use crate::host::dirs::{RunDir, StateDir};
use crate::qemu::Machine;
use crate::qmp::{EventReceiver, Session};

/// QEMU, and the connections to it and to its guest.
pub(super) struct Qemu {
    pub(super) process: Process,
    pub(super) session: Session,
    pub(super) events: EventReceiver,
    pub(super) agent: AgentLink,
    /// The guest has opened the agent's port already.
    pub(super) agent_open: bool,
    /// When it was started.
    pub(super) started: Instant,
}

/// The VM's directories and sockets on this host.
pub(super) struct Home {
    pub(super) run: Arc<RunDir>,
    pub(super) state: Arc<StateDir>,
    /// The sockets for clients, until the server takes them.
    pub(super) control: Option<ControlSockets>,
    /// The socket of `--qmp`, which is removed with the VM.
    pub(super) user_qmp: Option<PathBuf>,
}

/// The VM's devices, and their files in the run directory.
pub(super) struct Devices {
    pub(super) machine: Machine,
    pub(super) inventory: Inventory,
    pub(super) journal: Journal,
    pub(super) plugged: Plugged,
    pub(super) images: Images,
}

/// All parts of a running VM, after a start or a takeover.
pub(super) struct Assembly {
    pub(super) description: Description,
    pub(super) qemu: Qemu,
    pub(super) home: Home,
    pub(super) devices: Devices,
    pub(super) console: Console,
    pub(super) signals: Signals,
    pub(super) shares: Shares,
    /// The shell that waits in the guest since the start, of a fork.
    pub(super) waiting_shell: Option<WaitingShell>,
}
