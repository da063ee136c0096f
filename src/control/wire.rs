//! The records of the control protocol. Deliberately not the types of the `vm` layer: those may change, these may only grow.

use serde::{Deserialize, Serialize};

use crate::vm::Outcome;

mod records;

pub use records::{DiskStats, Limits, Nic, NicStats, Share, Stats, VcpuStats};

/// A forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Host address that it listens on.
    pub address: String,
    /// Host port.
    pub host_port: u16,
    /// Guest port.
    pub guest_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Id of the network card that it leads to; `None` = unknown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nic: Option<String>,
}

/// A USB device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usb {
    /// Id.
    pub id: String,
    /// QEMU's device model.
    pub driver: String,
    /// Description for display.
    pub description: String,
    /// `adding`, `present` or `removing`.
    pub phase: String,
    /// Whether the guest uses it; `None` = unknown, or there from the start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub taken: Option<bool>,
}

/// A disk or CD-ROM drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Id.
    pub id: String,
    /// Image; `None` = no medium.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
    /// Image format.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub format: Option<String>,
    /// Its bus.
    pub bus: String,
    /// Virtual size in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size_bytes: Option<u64>,
    /// Attached read-only.
    pub readonly: bool,
    /// A CD-ROM drive.
    pub removable: bool,
    /// The serial number that the guest sees.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub serial: Option<String>,
    /// The slot that it is in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slot: Option<String>,
    /// `adding`, `present` or `removing`.
    pub phase: String,
    /// Whether the guest uses it; `None` = unknown, or there from the start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub taken: Option<bool>,
    /// Its I/O limits; `None` = none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limits: Option<Limits>,
    /// The host's cache mode; this and all options below as requested, `None` = not given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cache: Option<String>,
    /// QEMU's method of I/O on the file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub aio: Option<String>,
    /// What QEMU does with discarded blocks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub discard: Option<String>,
    /// What QEMU does with zeroes that the guest writes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detect_zeroes: Option<String>,
    /// The guest's block size in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub logical_block_size: Option<u32>,
    /// It has an I/O thread of its own in QEMU.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub iothread: Option<bool>,
    /// Its number in the boot order.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub boot: Option<u16>,
}

/// Any other device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Id.
    pub id: String,
    /// QEMU's device model.
    pub driver: String,
    /// The slot that it is in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slot: Option<String>,
    /// `adding`, `present` or `removing`.
    pub phase: String,
    /// Whether the guest uses it; `None` = unknown, or there from the start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub taken: Option<bool>,
}

/// A slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// The id of the device in it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<String>,
}

/// A snapshot. Fields as in the protocol's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Snapshot {
    pub name: String,
    pub id: String,
    pub created_unix_ms: u64,
    pub vm_clock_ms: u64,
    pub state_bytes: u64,
    pub disks: Vec<String>,
    pub missing: Vec<String>,
    pub loadable: bool,
}

/// The status of a VM. Fields as in the protocol's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Status {
    pub name: String,
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_unix_ms: Option<u64>,
    pub uptime_ms: u64,
    pub uuid: String,
    pub arch: String,
    pub machine: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub accel: String,
    pub accel_reason: String,
    pub sandbox: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wrapped: Option<bool>,
    pub qemu_version: String,
    pub qemu_pid: i32,
    pub supervisor_pid: u32,
    pub supervisor_version: String,
    pub detached: bool,
    pub run_directory: String,
    pub state_directory: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub template: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub siblings: Option<usize>,
    pub networking: String,
    pub mac: String,
    pub usb: Vec<Usb>,
    pub disks: Vec<Disk>,
    pub forwards: Vec<Forward>,
    pub devices: Vec<Device>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nics: Option<Vec<Nic>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shares: Option<Vec<Share>>,
    pub slots_total: usize,
    pub slots_used: usize,
    pub slots: Vec<Slot>,
}

/// Declares a message: its fields, and after the `;` the optional ones.
macro_rules! message {
    (
        [$($rule:meta)?] $(#[$doc:meta])* $name:ident
        { $($required:ident: $type:ty),* $(,)?; $($optional:ident: $option:ty),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        $(#[$rule])?
        #[allow(missing_docs)]
        pub struct $name {
            $(pub $required: $type,)*
            $(#[serde(skip_serializing_if = "Option::is_none", default)] pub $optional: Option<$option>,)*
        }
    };
}
pub(super) use message;

/// Declares replies. Unknown fields are ignored: a later supervisor may send more.
macro_rules! replies {
    ($($(#[$doc:meta])* $name:ident $fields:tt)*) => {
        $($crate::control::wire::message! { [] $(#[$doc])* $name $fields })*
    };
}
pub(super) use replies;

replies! {
    /// The reply of a method without data.
    Nothing { ; }
    /// Reply of methods that change a disk.
    DiskReply { disk: Disk; }
    /// Reply of methods that change a network card.
    NicReply { nic: Nic; }
    /// Reply of `RemoveDisk` and `RemoveDevice`. `unchecked`: why it is unknown whether the guest had a disk mounted.
    DiskRemoved { removed: bool; unchecked: String }
    /// Reply of `LoadSnapshot` and `DeleteSnapshot`.
    SnapshotReply { snapshot: Snapshot; }
}
