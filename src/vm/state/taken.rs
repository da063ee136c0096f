//! Which PCI device shows whether the guest uses a device that was plugged: QEMU reports whether a driver has enabled it.

use serde_json::Value;

use crate::qemu::{Machine, pci};

use super::inventory::{Entry, Inventory};

/// Devices plugged at run time, including those of an earlier supervisor.
pub(in crate::vm) fn plugged(inventory: &Inventory, machine: &Machine) -> Vec<String> {
    let is_plugged = |entry: &&Entry| {
        inventory.device(carrier(entry, machine)).is_some_and(|carrier| carrier.slot.is_some())
    };
    inventory.devices().filter(is_plugged).map(|entry| entry.id.to_string()).collect()
}

/// Records for each plugged device whether the guest uses it, from QEMU's answer to [`pci::query`].
pub(in crate::vm) fn fill(inventory: &mut Inventory, machine: &Machine, answer: &Value) {
    for id in plugged(inventory, machine) {
        if let Some(entry) = inventory.device_mut(&id) {
            entry.taken = pci::find(answer, carrier(entry, machine)).and_then(|found| found.enabled);
        }
    }
}

/// The PCI device that the guest must enable for this one: itself, or its controller.
pub(in crate::vm) fn carrier<'a>(entry: &'a Entry, machine: &Machine) -> &'a str {
    entry.kind.controller().map_or(entry.id.as_str(), |controller| controller.id(machine.ids()))
}
