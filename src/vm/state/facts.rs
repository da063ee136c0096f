//! What was decided or found out at a VM's start and does not change while it lives.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::host::dirs::RunId;
use crate::qemu::HostFacts;
use crate::qmp::session::Greeting;

use crate::vm::console::DEFAULT_LOG_CAP;

/// Decided at the start; part of `vm.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    /// What the command line depended on.
    pub host: HostFacts,
    /// Why this accelerator.
    pub accel_reason: String,
    /// QEMU's program.
    #[serde(with = "crate::spec::fields::path")]
    pub qemu: PathBuf,
    /// QEMU's version as it tells it, e.g. `7.2.22`.
    pub qemu_version: String,
    /// What its packagers call it, as its greeting has it, e.g. `Debian 1:7.2+dfsg-7+deb12u18`; empty where they say nothing.
    #[serde(default)]
    pub qemu_package: String,
    /// Process id of QEMU.
    pub qemu_pid: i32,
    /// Start time of that process in clock ticks after boot (field 22 of `/proc/PID/stat`), to tell it from a later one of the same id.
    pub qemu_start_time: u64,
    /// Sockets, lock and description.
    #[serde(with = "crate::spec::fields::path")]
    pub run_directory: PathBuf,
    /// What outlives the run.
    #[serde(with = "crate::spec::fields::path")]
    pub state_directory: PathBuf,
    /// The VM outlives the terminal that started it.
    pub detached: bool,
    /// The state directory goes with the VM.
    #[serde(default)]
    pub ephemeral: bool,
    /// More resets by the guest than this end the VM.
    #[serde(default)]
    pub max_resets: Option<u32>,
    /// The most that the console's log has.
    #[serde(default = "default_log_bytes")]
    pub log_bytes: u64,
    /// Budget of the ladder on a signal, in milliseconds.
    pub stop_timeout_ms: u64,
    /// When QEMU was started, in milliseconds after the Unix epoch; for people, since clocks are set. `qemu_start_time` tells its age.
    pub started_unix_ms: u64,
    /// Which run this is; none of a version that had no such ids.
    #[serde(default)]
    pub run: Option<RunId>,
    /// Folder of the store in which the VM's end is recorded; none = where the environment has it.
    #[serde(with = "crate::spec::fields::optional_path", default)]
    pub state_home: Option<PathBuf>,
}

impl Facts {
    /// Notes which QEMU has greeted.
    pub(in crate::vm) fn set_greeting(&mut self, greeting: &Greeting) {
        let (major, minor, micro) = greeting.version;
        self.qemu_version = format!("{major}.{minor}.{micro}");
        self.qemu_package.clone_from(&greeting.package);
    }
}

/// For descriptions that were written before the limit could be chosen.
fn default_log_bytes() -> u64 {
    DEFAULT_LOG_CAP
}
