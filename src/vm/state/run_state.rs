//! QEMU's run state, from its events.
//!
//! ```text
//! starting ──cont──► running ◄──RESUME── paused | io-error | suspended | panicked
//!                       │ STOP / BLOCK_IO_ERROR / SUSPEND / GUEST_PANICKED ▲
//!                       └──────────────────────────────────────────────────┘
//! any ── QEMU has ended ──► ended
//! ```

use std::fmt;

use qapi::Enum;
use serde::{Deserialize, Serialize};

/// QEMU's run state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// The guest's processors have not run yet.
    Starting,
    /// The guest runs.
    Running,
    /// Stopped by a client.
    Paused,
    /// Stopped because a disk's host storage failed.
    IoError,
    /// The guest is suspended.
    Suspended,
    /// The guest's kernel has panicked, and the VM was kept.
    Panicked,
    /// The guest is off; QEMU is about to end.
    Off,
}

impl RunState {
    /// From `status` of QMP's `query-status`; unknown states count as paused.
    pub fn from_qmp(status: &str) -> Self {
        use qapi::qmp::RunState as Qmp;
        match Qmp::from_name(status) {
            Some(Qmp::prelaunch | Qmp::inmigrate) => Self::Starting,
            Some(Qmp::running) => Self::Running,
            Some(Qmp::io_error) => Self::IoError,
            Some(Qmp::suspended) => Self::Suspended,
            Some(Qmp::guest_panicked) => Self::Panicked,
            Some(Qmp::shutdown) => Self::Off,
            _ => Self::Paused,
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::IoError => "io_error",
            Self::Suspended => "suspended",
            Self::Panicked => "panicked",
            Self::Off => "off",
        })
    }
}
