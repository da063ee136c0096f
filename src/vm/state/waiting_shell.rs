//! What a template says of the shell that waits in its guest.

use serde::{Deserialize, Serialize};

/// The shell that waits, in each fork, for its first command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingShellFacts {
    /// The number by which its ports are unplugged.
    pub(in crate::vm) number: u64,
    /// The guest's id of its process.
    pub(in crate::vm) pid: i64,
    /// The ports of its output, error and input.
    pub(in crate::vm) ports: Vec<WaitingPort>,
}

/// A port of a waiting shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingPort {
    /// QEMU's id of it.
    pub(in crate::vm) id: String,
    /// Its name in the guest.
    pub(in crate::vm) name: String,
    /// Its number at its controller, by which QEMU finds its state.
    pub(in crate::vm) nr: u64,
}
