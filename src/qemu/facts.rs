//! What the command line depends on besides the VM's description.

use crate::spec::{Accel, Arch};

/// The host as the command line sees it: looked at once, by the layer that may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HostFacts {
    /// The host's own architecture.
    pub arch: Arch,
    /// The accelerator that was found to work for this VM.
    pub accel: Accel,
    /// QEMU's version; none counts as the oldest that is supported, 7.0.
    pub qemu_version: Option<(u32, u32)>,
}

impl HostFacts {
    /// Whether this QEMU is known to be at least `major.minor`.
    pub fn qemu_at_least(&self, major: u32, minor: u32) -> bool {
        self.qemu_version.unwrap_or((7, 0)) >= (major, minor)
    }
}
