//! Finds which VM of this user listens on a host port.

use std::path::Path;

use crate::host::ports::{self, PortError};

use super::vm_file::qemus;

/// The error with the VM that has the port, if it is one in this folder of running VMs.
pub(in crate::vm) fn named(root: Option<&Path>, error: PortError) -> PortError {
    match error {
        PortError::Taken { address, protocol, by: None } => {
            let has_it = |pid| ports::is_held_by("/proc".as_ref(), pid, address, protocol);
            let vm = root.and_then(|root| qemus(root).find(|(_, pid)| has_it(*pid)));
            PortError::Taken { address, protocol, by: vm.map(|(name, _)| format!("VM '{name}'")) }
        }
        other => other,
    }
}
