//! What travels over the control socket. Deliberately not the types of the `vm` layer: those may change, these may only grow.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::vm::Outcome;

mod records;

pub use records::{DiskStats, Limits, Nic, NicStats, Stats, VcpuStats};

/// A forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Host address that is listened on.
    pub address: String,
    /// Host port.
    pub host_port: u16,
    /// Guest port.
    pub guest_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Id of the network card that it leads to; none = it is not known.
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
    /// For people.
    pub description: String,
    /// `adding`, `present` or `removing`.
    pub phase: String,
    /// Whether the guest has taken it; none = that is not known, or it was there from the start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub taken: Option<bool>,
}

/// A disk or CD-ROM drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Id.
    pub id: String,
    /// Image; none = no medium.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
    /// Image format.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub format: Option<String>,
    /// How it is attached.
    pub bus: String,
    /// Virtual size.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size_bytes: Option<u64>,
    /// Attached read-only.
    pub readonly: bool,
    /// A CD-ROM drive.
    pub removable: bool,
    /// Shown to the guest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub serial: Option<String>,
    /// The slot it is in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slot: Option<String>,
    /// `adding`, `present` or `removing`.
    pub phase: String,
    /// Whether the guest has taken it; none = that is not known, or it was there from the start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub taken: Option<bool>,
    /// What it may do per second; none = as much as it can.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limits: Option<Limits>,
    /// How the host caches the image; this and all below as it was asked for, none = nothing was said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cache: Option<String>,
    /// How QEMU reads and writes the file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub aio: Option<String>,
    /// What becomes of discarded blocks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub discard: Option<String>,
    /// What becomes of zeroes that the guest writes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detect_zeroes: Option<String>,
    /// The guest's blocks, in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub logical_block_size: Option<u32>,
    /// It has a thread of its own in QEMU.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub iothread: Option<bool>,
    /// Its place in the boot order.
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
    /// The slot it is in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slot: Option<String>,
    /// `adding`, `present` or `removing`.
    pub phase: String,
    /// Whether the guest has taken it; none = that is not known, or it was there from the start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub taken: Option<bool>,
}

/// A slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// What is in it.
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

/// Everything that is known of a VM. Fields as in the protocol's description.
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
    pub networking: String,
    pub mac: String,
    pub usb: Vec<Usb>,
    pub disks: Vec<Disk>,
    pub forwards: Vec<Forward>,
    pub devices: Vec<Device>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nics: Option<Vec<Nic>>,
    pub slots_total: usize,
    pub slots_used: usize,
    pub slots: Vec<Slot>,
}

/// No parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

macro_rules! message {
    (
        [$($rule:meta)?] $(#[$doc:meta])* $name:ident
        { $($required:ident: $type:ty),*; $($optional:ident: $option:ty),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        $(#[$rule])?
        #[allow(missing_docs)]
        pub struct $name {
            $(pub $required: $type,)*
            $(#[serde(skip_serializing_if = "Option::is_none", default)] pub $optional: Option<$option>,)*
        }
    };
}

/// What a supervisor does not know it must not leave out.
macro_rules! parameters {
    ($($(#[$doc:meta])* $name:ident $fields:tt)*) => {
        $(message! { [serde(deny_unknown_fields)] $(#[$doc])* $name $fields })*
    };
}

/// A later supervisor may tell more.
macro_rules! replies {
    ($($(#[$doc:meta])* $name:ident $fields:tt)*) => { $(message! { [] $(#[$doc])* $name $fields })* };
}

parameters! {
    /// Parameters of `AddUsb`.
    AddUsb { selector: String; id: String }
    /// Parameters of `RemoveUsb`.
    RemoveUsb { id: String; }
    /// Parameters of `AddForward`.
    AddForward { host_port: i64, guest_port: i64; address: String, protocol: String, nic: String }
    /// Parameters of `RemoveForward`.
    RemoveForward { host_port: i64; guest_port: i64, address: String, protocol: String }
    /// Parameters of `AddDisk`.
    AddDisk {
        file: String;
        size_bytes: i64, grow: bool, format: String, bus: String, readonly: bool, serial: String, id: String,
        allow_backing: Vec<String>, cache: String, aio: String, discard: String, detect_zeroes: String,
        logical_block_size: i64, iothread: bool, boot: i64
    }
    /// Parameters of `RemoveNic`.
    Remove { id: String; timeout_ms: i64 }
    /// Parameters of `RemoveDisk` and `RemoveDevice`.
    RemoveDisk { id: String; timeout_ms: i64, force: bool }
    /// Parameters of `ResizeDisk`.
    ResizeDisk { id: String, size_bytes: i64; }
    /// Parameters of `ThrottleDisk`.
    ThrottleDisk {
        id: String;
        iops: i64, iops_read: i64, iops_write: i64,
        bytes_per_s: i64, bytes_per_s_read: i64, bytes_per_s_write: i64, off: bool
    }
    /// Parameters of `AddNic`.
    AddNic { network: String; mac: String, model: String, id: String }
    /// Parameters of `SetLink`.
    SetLink { up: bool; nic: String }
    /// Parameters of `WatchStats`.
    WatchStats { ; interval_ms: i64 }
    /// Parameters of `ChangeMedia`.
    ChangeMedia { id: String, file: String; allow_backing: Vec<String>, format: String }
    /// Parameters of `EjectMedia`.
    EjectMedia { id: String; force: bool }
    /// Parameters of `AddDevice`.
    AddDevice { driver: String; properties: BTreeMap<String, String>, id: String }
    /// Parameters of `Save`.
    Save { file: String; }
    /// Parameters of `SaveSnapshot`.
    SaveSnapshot { name: String; overwrite: bool }
    /// Parameters of `LoadSnapshot` and `DeleteSnapshot`.
    NamedSnapshot { name: String; }
    /// Parameters of `Shutdown`.
    Shutdown { ; timeout_ms: i64, force: bool, no_repeat: bool }
    /// Parameters of `Wait`.
    Wait { conditions: Vec<String>; all: bool, timeout_ms: i64, from_now: bool }
    /// Parameters of `Events`.
    Events { ; names: Vec<String>, since: i64 }
    /// Parameters of `ReadConsole`.
    ReadConsole { ; from: String, follow: bool }
    /// Parameters of `WriteConsole`.
    WriteConsole { data: String; }
    /// Parameters of `ResizeConsole`.
    ResizeConsole { rows: i64, columns: i64; }
    /// Parameters of `SetTime`.
    SetTime { ; agent_timeout_ms: i64 }
    /// Parameters of `Reboot`.
    Reboot { ; force: bool, until: String, timeout_ms: i64, agent_timeout_ms: i64 }
    /// Parameters of `AgentCommand`.
    AgentCommand { command: String; arguments: Map<String, Value>, agent_timeout_ms: i64 }
    /// Parameters of `Exec`.
    Exec { command: Vec<String>; env: Vec<String>, stdin: String, timeout_ms: i64, agent_timeout_ms: i64 }
    /// Parameters of `StartGuestFile`.
    StartGuestFile { path: String; name: String, agent_timeout_ms: i64 }
    /// Parameters of `WriteGuestFile`.
    WriteGuestFile { handle: i64, data: String; }
    /// Parameters of `FinishGuestFile`.
    FinishGuestFile { handle: i64; mode: i64, sha256: String }
    /// Parameters of `ReadGuestFile`.
    ReadGuestFile { path: String; agent_timeout_ms: i64 }
    /// Parameters of `SendKeys`.
    SendKeys { keys: Vec<String>; delay_ms: i64 }
    /// Parameters of `TypeText`.
    TypeText { text: String; delay_ms: i64 }
    /// Parameters of `Qmp`.
    Qmp { command: Value; }
    /// Parameters of `Hmp`.
    Hmp { line: String; }
}

replies! {
    /// Reply of what has nothing to tell.
    Nothing { ; }
    /// Reply of `GetStatus`.
    StatusReply { status: Status; }
    /// Reply of `ListUsb`.
    UsbList { usb: Vec<Usb>; }
    /// Reply of `AddUsb`.
    UsbReply { usb: Usb; }
    /// Reply of `ListForwards`.
    ForwardList { forwards: Vec<Forward>; }
    /// Reply of `AddForward`.
    ForwardReply { forward: Forward; }
    /// Reply of `ListDisks`.
    DiskList { disks: Vec<Disk>; }
    /// Reply of `AddDisk` and others.
    DiskReply { disk: Disk; }
    /// Reply of `ListNics`.
    NicList { nics: Vec<Nic>; }
    /// Reply of `AddNic` and `SetLink`.
    NicReply { nic: Nic; }
    /// Reply of `GetStats` and `WatchStats`.
    StatsReply { stats: Stats; }
    /// Reply of `AddDevice`.
    DeviceReply { device: Device; }
    /// Reply of `RemoveNic`.
    Removed { removed: bool; }
    /// Reply of `RemoveDisk` and `RemoveDevice`.
    DiskRemoved { removed: bool; unchecked: String }
    /// Replies of `Save`.
    SaveReply { ; done_bytes: u64, total_bytes: u64, outcome: Outcome }
    /// Replies of `SaveSnapshot`.
    SaveSnapshotReply { ; done_bytes: u64, total_bytes: u64, snapshot: Snapshot }
    /// Reply of `LoadSnapshot` and `DeleteSnapshot`.
    SnapshotReply { snapshot: Snapshot; }
    /// Reply of `ListSnapshots`.
    SnapshotList { snapshots: Vec<Snapshot>; }
    /// Reply of `Shutdown`.
    OutcomeReply { outcome: Outcome; }
    /// Reply of `Wait`.
    WaitReply { came_true: Vec<CameTrue>; }
    /// A condition that came true.
    CameTrue { condition: String, after_ms: u64, details: Value; }
    /// Reply of `Events`.
    EventReply { ; event: Event, lost: u64 }
    /// An event.
    Event { sequence: u64, time_unix_ms: u64, name: String, data: Value; }
    /// Reply of `ReadConsole`.
    ConsoleReply { data: String, skipped: u64; }
    /// Reply of `ResizeConsole`.
    ResizeConsoleReply { by: String; }
    /// Reply of `SetTime`.
    SetTimeReply { behind_ms: i64, set: bool; }
    /// Reply of `Reboot`.
    RebootReply { reset_after_ms: u64; condition: String, up_after_ms: u64 }
    /// Reply of `AgentCommand`.
    AgentCommandReply { ; value: Value }
    /// Replies of `Exec`.
    ExecReply { ; stdout: String, stderr: String, exit_code: i64, signal: i64, truncated: bool }
    /// Reply of `StartGuestFile`.
    GuestFileReply { handle: i64, path: String; }
    /// Reply of `FinishGuestFile`.
    FinishedReply { checked: String; }
    /// Replies of `ReadGuestFile`.
    ReadGuestFileReply { ; size_bytes: u64, mode: u32, data: String, sha256: String }
    /// Reply of `Screenshot`.
    ScreenshotReply { png: String, width: u32, height: u32; }
    /// Reply of `Qmp`.
    QmpReply { value: Value; }
    /// Reply of `Hmp`.
    HmpReply { text: String; }
}
