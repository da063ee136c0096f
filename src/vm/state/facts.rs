//! Facts that were decided or detected at a VM's start and do not change while it runs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::host::dirs::RunId;
use crate::qemu::HostFacts;
use crate::qmp::session::Greeting;

/// The most bytes of the console's log by default: of its two files together.
pub(in crate::vm) const DEFAULT_LOG_CAP: u64 = 16 << 20;

/// Decided at the start; part of `vm.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    /// The host facts that the command line depends on.
    pub host: HostFacts,
    /// Why this accelerator was chosen.
    pub accel_reason: String,
    /// Path of QEMU's program.
    #[serde(with = "crate::spec::fields::path")]
    pub qemu: PathBuf,
    /// QEMU's version as it reports it, e.g. `7.2.22`.
    pub qemu_version: String,
    /// The package version in QEMU's greeting, e.g. `Debian 1:7.2+dfsg-7+deb12u18`; empty if there is none.
    #[serde(default)]
    pub qemu_package: String,
    /// Process id of QEMU.
    pub qemu_pid: i32,
    /// Start time of that process in clock ticks after boot (field 22 of `/proc/PID/stat`), which distinguishes it from a later
    /// process with the same id.
    pub qemu_start_time: u64,
    /// The run directory: sockets, lock and description.
    #[serde(with = "crate::spec::fields::path")]
    pub run_directory: PathBuf,
    /// The state directory, which outlives the run.
    #[serde(with = "crate::spec::fields::path")]
    pub state_directory: PathBuf,
    /// The VM outlives the terminal that started it.
    pub detached: bool,
    /// The state directory is removed with the VM.
    #[serde(default)]
    pub ephemeral: bool,
    /// The folder of the template that the VM is a fork of.
    #[serde(with = "crate::spec::fields::optional_path", default)]
    pub template: Option<PathBuf>,
    /// More resets by the guest than this end the VM.
    #[serde(default)]
    pub max_resets: Option<u32>,
    /// The VM is shut down when it has run for this time, in milliseconds.
    #[serde(default)]
    pub max_lifetime_ms: Option<u64>,
    /// The most bytes of the console's log.
    #[serde(default = "default_log_bytes")]
    pub log_bytes: u64,
    /// The folder in which the console's log and the outcome are kept at the end.
    #[serde(with = "crate::spec::fields::optional_path", default)]
    pub keep_logs: Option<PathBuf>,
    /// Budget of the shutdown ladder on a signal, in milliseconds.
    pub stop_timeout_ms: u64,
    /// When QEMU was started, in milliseconds after the Unix epoch; for display, since clocks can be set. `qemu_start_time` gives
    /// its age.
    pub started_unix_ms: u64,
    /// Id of this run; `None` if a version without such ids started it.
    #[serde(default)]
    pub run: Option<RunId>,
    /// Folder of the store in which the VM's end is recorded; `None` = from the environment.
    #[serde(with = "crate::spec::fields::optional_path", default)]
    pub state_home: Option<PathBuf>,
}

impl Facts {
    /// Records the QEMU version from its greeting.
    pub(in crate::vm) fn set_greeting(&mut self, greeting: &Greeting) {
        let (major, minor, micro) = greeting.version;
        self.qemu_version = format!("{major}.{minor}.{micro}");
        self.qemu_package.clone_from(&greeting.package);
    }
}

/// The limit in descriptions that were written before it could be chosen.
fn default_log_bytes() -> u64 {
    DEFAULT_LOG_CAP
}
