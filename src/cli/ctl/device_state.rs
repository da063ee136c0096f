//! The state of a device, for the commands that list and plug devices.

use crate::host::HINTED;

/// The text of a list's column STATE.
pub(super) fn shown(phase: &str, taken: Option<bool>) -> String {
    match (phase, taken) {
        ("present", Some(false)) => "plugged, but the guest does not use it".to_owned(),
        _ => phase.to_owned(),
    }
}

/// Warns that the guest does not use a plugged device.
pub(super) fn warn_if_not_taken(id: &str, taken: Option<bool>) {
    if taken == Some(false) {
        log::warn!(
            target: HINTED,
            "'{id}' is plugged, but the guest does not use it\nhint: its kernel may have no PCI hot-plug (Debian's for riscv64 has none): after `vmrun ctl reset`, or from the start, it finds the device"
        );
    }
}
