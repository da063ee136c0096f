//! How the ids and addresses of a VM's own devices are chosen.

use serde::{Deserialize, Serialize};

/// The scheme by which vmrun chooses the ids and addresses of the devices that a VM starts with. A VM keeps the one that it was started
/// with when it is taken over or restored: QEMU knows devices by their ids, and writes addresses into what it saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Short ids (`usb0`), addresses that QEMU chooses: of VMs whose description names no layout, as before there was another.
    #[default]
    Grown,
    /// Ids with a reserved prefix, addresses that depend on nothing else in the VM.
    Fixed,
}
