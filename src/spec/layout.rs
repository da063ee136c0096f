//! How a VM's own devices are named and placed.

use serde::{Deserialize, Serialize};

/// The scheme by which vmrun names and places the devices that a VM starts with. A VM keeps the one that it was started with, whoever
/// takes it over or restores it: ids name what QEMU has, and places are in what QEMU saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Short ids (`usb0`), places that QEMU chooses: of VMs whose description says nothing, which is how they were before there was another.
    #[default]
    Grown,
    /// Ids with a reserved prefix, places that depend on nothing else in the VM.
    Fixed,
}
