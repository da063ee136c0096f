//! What the command line depends on besides the VM's description.

use crate::spec::{Accel, Arch};

/// The host as the command line sees it: looked at once, by the layer that may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HostFacts {
    /// The host's own architecture.
    pub arch: Arch,
    /// The accelerator that was found to work for this VM.
    pub accel: Accel,
}
