//! The changes that a client can request of a running VM, and their results.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::qemu::Command;
use crate::qemu::snapshot::Snapshot;
use crate::qmp::session::COMMAND_TIMEOUT;
use crate::spec::{
    DeviceId, DeviceSpec, DiskSpec, Forward, ImageFormat, Limits, NicSpec, Protocol, Size, SnapshotName,
    UsbSelector,
};

use crate::vm::error::ChangeError;
pub use crate::vm::state::inventory::DeviceKind;
use crate::vm::state::inventory::Entry;
use crate::vm::state::outcome::Outcome;
use crate::vm::state::status::Published;
use crate::vm::state::waiting_shell::WaitingShellFacts;

/// A change of a running VM. Paths are absolute: the supervisor's working directory is not the client's.
#[derive(Debug, Clone)]
pub enum Change {
    /// Plug a USB device.
    AddUsb {
        /// The device on the host.
        selector: UsbSelector,
        /// The new device's id; `None` = vmrun picks one.
        id: Option<DeviceId>,
    },
    /// Open (or create) an image and plug it as a disk.
    AddDisk {
        /// The disk.
        disk: DiskSpec,
        /// Files and folders outside the image's own folder that the image may refer to.
        allow_backing: Vec<PathBuf>,
    },
    /// Plug a network card.
    AddNic(NicSpec),
    /// Plug or pull the cable of a network card.
    SetLink {
        /// The card's id; `None` = the only card.
        nic: Option<String>,
        /// True = plugged.
        up: bool,
    },
    /// Plug any device.
    AddDevice(DeviceSpec),
    /// Unplug a device and wait for it.
    Remove {
        /// The kind that the device must have.
        kind: DeviceKind,
        /// Its id.
        id: String,
        /// How long the guest may take to release it.
        wait: Duration,
    },
    /// Make a forward.
    AddForward {
        /// The forward; host port 0 = any free port.
        forward: Forward,
        /// Id of the network card that it leads to; `None` = the first card with user networking.
        nic: Option<String>,
    },
    /// End a forward.
    RemoveForward(ForwardPattern),
    /// Make a disk larger.
    ResizeDisk {
        /// Its id.
        id: String,
        /// The new size.
        size: Size,
    },
    /// Limit what a disk does per second.
    ThrottleDisk {
        /// Its id.
        id: String,
        /// The new limits; a kind that is left out keeps its value. `None` = remove all limits.
        limits: Option<Limits>,
    },
    /// Put another image into a CD-ROM drive.
    ChangeMedia {
        /// The drive's id.
        id: String,
        /// The image.
        file: PathBuf,
        /// Its format; `None` = detect it.
        format: Option<ImageFormat>,
        /// Files and folders outside the image's own folder that the image may refer to.
        allow_backing: Vec<PathBuf>,
    },
    /// Take the medium out of a CD-ROM drive.
    EjectMedia {
        /// The drive's id.
        id: String,
        /// Even if the guest has locked the tray.
        force: bool,
    },
    /// Save the whole VM to a file and end it.
    Save {
        /// The file; it must not exist.
        file: PathBuf,
        /// Receives the progress.
        progress: watch::Sender<Progress>,
    },
    /// Freeze the VM into a template, with the shell that waits in its guest; see [`super::Handle::freeze`].
    Freeze(Freeze, Option<WaitingShellFacts>),
    /// Make, load, delete or list snapshots.
    Snapshot(SnapshotChange),
    /// Stop the processors.
    Pause,
    /// Let the processors run.
    Resume,
    /// Reset the machine.
    Reset,
    /// Press the power button.
    Powerdown,
    /// Any command of QEMU's monitor.
    Qmp(Command),
    /// A line for QEMU's human monitor.
    Hmp(String),
}

/// When a change is allowed, and how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vm) struct Rules {
    /// It reads the inventory, which must be refreshed first if the VM can be changed from outside vmrun.
    pub(in crate::vm) fresh_inventory: bool,
    /// It may start while the VM shuts down.
    pub(in crate::vm) while_stopping: bool,
    /// It may start during an operation that excludes other changes.
    pub(in crate::vm) while_busy: bool,
    /// How long its client waits for QEMU.
    pub(in crate::vm) deadline: Duration,
}

/// How long a change may take that opens or makes files on the host before it sends commands to QEMU.
const WITH_FILES: Duration = Duration::from_secs(60);

/// How a VM is frozen into a template.
#[derive(Debug, Clone)]
pub struct Freeze {
    /// The template's folder, which is not there yet.
    pub folder: PathBuf,
    /// The VM goes on afterwards; otherwise it ends.
    pub keep_running: bool,
    /// The template goes with the last VM that uses it.
    pub until_unused: bool,
    /// To follow it.
    pub progress: watch::Sender<Progress>,
}

impl Change {
    /// It saves the devices' state for a QEMU that has only the devices of the VM's description.
    pub(in crate::vm) fn saves_devices(&self) -> bool {
        matches!(self, Self::Save { .. } | Self::Snapshot(SnapshotChange::Save { .. }))
    }

    /// The rules of each change. Every change is listed, so that a new one gets no rules by default.
    pub(in crate::vm) fn rules(&self) -> Rules {
        let usual = Rules {
            fresh_inventory: true,
            while_stopping: false,
            while_busy: false,
            deadline: COMMAND_TIMEOUT,
        };
        let past_inventory = Rules { fresh_inventory: false, ..usual };
        match self {
            Self::SetLink { .. }
            | Self::AddDevice(_)
            | Self::AddForward { .. }
            | Self::RemoveForward(_)
            | Self::ResizeDisk { .. }
            | Self::ThrottleDisk { .. }
            | Self::EjectMedia { .. } => usual,
            Self::AddUsb { .. } | Self::AddDisk { .. } | Self::AddNic(_) | Self::ChangeMedia { .. } => {
                Rules { deadline: WITH_FILES, ..usual }
            }
            Self::Remove { wait, .. } => Rules { deadline: wait.saturating_add(COMMAND_TIMEOUT), ..usual },
            // no limit of its own: it ends with QEMU at the latest
            Self::Snapshot(SnapshotChange::List) => {
                Rules { deadline: Duration::MAX, while_busy: true, ..usual }
            }
            Self::Snapshot(_) | Self::Save { .. } | Self::Freeze(..) => {
                Rules { deadline: Duration::MAX, ..usual }
            }
            Self::Pause | Self::Reset | Self::Powerdown => past_inventory,
            Self::Resume => Rules { while_stopping: true, ..past_inventory },
            Self::Qmp(_) | Self::Hmp(_) => Rules { while_stopping: true, while_busy: true, ..past_inventory },
        }
    }
}

/// Which forwards to end: a part that is not given matches everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardPattern {
    /// Host port.
    pub host: u16,
    /// Guest port.
    pub guest: Option<u16>,
    /// Host address.
    pub address: Option<std::net::Ipv4Addr>,
    /// Protocol.
    pub protocol: Option<Protocol>,
}

impl ForwardPattern {
    /// Whether the pattern matches a forward.
    pub fn matches(&self, forward: &Forward) -> bool {
        self.host == forward.host
            && self.guest.is_none_or(|guest| guest == forward.guest)
            && self.address.is_none_or(|address| address == forward.address)
            && self.protocol.is_none_or(|protocol| protocol == forward.protocol)
    }
}

impl std::fmt::Display for ForwardPattern {
    /// As the user types it: `8080`, `8080:80`, `127.0.0.1:8080:80/udp`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{address}:")?;
        }
        write!(f, "{}", self.host)?;
        if let Some(guest) = self.guest {
            write!(f, ":{guest}")?;
        }
        self.protocol.map_or(Ok(()), |protocol| write!(f, "/{protocol}"))
    }
}

/// The result of a change.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    /// A device is in the machine, or its facts have changed.
    Device(Box<Entry>),
    /// A forward listens; its host port is never 0.
    Forward(Published),
    /// A device is gone.
    Removed,
    /// The guest was asked to release it and has not answered in time. The request stays pending.
    RemovalPending,
    /// What a QMP command returned.
    Value(Value),
    /// What a line of the human monitor printed.
    Text(String),
    /// A snapshot was made, loaded or deleted.
    Snapshot(Snapshot),
    /// The existing snapshots.
    Snapshots(Vec<Snapshot>),
    /// The VM has ended.
    Ended(Outcome),
    /// A template was made, for which the guest was paused so long; zero if it was paused before.
    Frozen {
        /// How long.
        paused: Duration,
    },
    /// Done, without data.
    Nothing,
}

/// The result that a caller expects, by the change that it requested.
impl Done {
    /// A device.
    pub fn device(self) -> Result<Entry, ChangeError> {
        match self {
            Self::Device(entry) => Ok(*entry),
            other => Err(other.unexpected()),
        }
    }

    /// A forward.
    pub fn forward(self) -> Result<Published, ChangeError> {
        match self {
            Self::Forward(forward) => Ok(forward),
            other => Err(other.unexpected()),
        }
    }

    /// The end of a removal: true = the device is gone, false = the guest still has it.
    pub fn is_removed(self) -> Result<bool, ChangeError> {
        match self {
            Self::Removed => Ok(true),
            Self::RemovalPending => Ok(false),
            other => Err(other.unexpected()),
        }
    }

    /// What a QMP command returned.
    pub fn value(self) -> Result<Value, ChangeError> {
        match self {
            Self::Value(value) => Ok(value),
            other => Err(other.unexpected()),
        }
    }

    /// What a line of the human monitor printed.
    pub fn text(self) -> Result<String, ChangeError> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(other.unexpected()),
        }
    }

    /// A snapshot.
    pub fn snapshot(self) -> Result<Snapshot, ChangeError> {
        match self {
            Self::Snapshot(snapshot) => Ok(snapshot),
            other => Err(other.unexpected()),
        }
    }

    /// All snapshots.
    pub fn snapshots(self) -> Result<Vec<Snapshot>, ChangeError> {
        match self {
            Self::Snapshots(snapshots) => Ok(snapshots),
            other => Err(other.unexpected()),
        }
    }

    /// How long the guest was paused for a template.
    pub fn frozen(self) -> Result<Duration, ChangeError> {
        match self {
            Self::Frozen { paused } => Ok(paused),
            other => Err(other.unexpected()),
        }
    }

    /// Success without data.
    pub fn nothing(self) -> Result<(), ChangeError> {
        match self {
            Self::Nothing => Ok(()),
            other => Err(other.unexpected()),
        }
    }

    /// A bug in vmrun: the change did happen.
    fn unexpected(self) -> ChangeError {
        log::error!("a change had an unexpected result: {self:?}");
        ChangeError::host("the change was made, but its result is of another kind than vmrun expects")
            .hint("this is a bug in vmrun; `status` shows how the VM is now")
    }
}

/// An operation on snapshots.
#[derive(Debug, Clone)]
pub enum SnapshotChange {
    /// Make one.
    Save {
        /// Its name.
        name: SnapshotName,
        /// Replace an existing one of this name: it is deleted when the new one is complete.
        overwrite: bool,
        /// Receives the progress.
        progress: watch::Sender<Progress>,
    },
    /// Load one.
    Load(SnapshotName),
    /// Delete one.
    Delete(SnapshotName),
    /// List them.
    List,
}

impl SnapshotChange {
    /// What is being done, for messages.
    pub(in crate::vm) fn description(&self) -> String {
        match self {
            Self::Save { name, .. } => format!("snapshot '{name}' is being made"),
            Self::Load(name) => format!("snapshot '{name}' is being loaded"),
            Self::Delete(name) => format!("snapshot '{name}' is being deleted"),
            Self::List => "the snapshots are being listed".to_owned(),
        }
    }
}

/// Progress of a long operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes written so far.
    pub done_bytes: u64,
    /// Upper bound of that in bytes: the guest's memory. Empty and equal pages take no space.
    pub total_bytes: u64,
}

/// The plugged ports of one command.
#[derive(Debug)]
pub(in crate::vm) struct Ports {
    /// The command's number, by which they are unplugged.
    pub(in crate::vm) number: u64,
    /// In the order of the request.
    pub(in crate::vm) ports: Vec<Port>,
}

/// A plugged port for a standard stream.
#[derive(Debug)]
pub(in crate::vm) struct Port {
    /// QEMU's id of it.
    pub(in crate::vm) id: String,
    /// Its name in the guest.
    pub(in crate::vm) name: String,
    /// The host's end.
    pub(in crate::vm) socket: UnixStream,
}
