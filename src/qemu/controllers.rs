//! Which controllers a VM starts with, from what is to hang on them.

use super::{Device, Machine, models};
use crate::spec::{Boot, DiskBus, VmSpec};

/// Whether the VM starts with a USB controller.
pub fn uses_usb(machine: &Machine, spec: &VmSpec) -> bool {
    let asked = spec.usb || has_disk(spec, DiskBus::Usb) || has_driver(spec, models::is_usb);
    // keyboard and pointer of a VM with a screen, unless they are virtio ones
    let for_screen = spec.display.has_screen() && machine.has_pci();
    machine.has_usb() && (asked || for_screen)
}

/// As many as `qemu-xhci` can have, of each speed; unasked it has four.
const USB_PORTS: u32 = 15;

/// The USB controller, cold or hot. A device that finds no free port ends up behind a hub which QEMU plugs in by itself:
/// that has full speed only, and Linux does not see what hangs on it.
pub(super) fn usb(machine: &Machine) -> Device {
    Device::new(models::XHCI, machine.ids().usb).with("p2", USB_PORTS).with("p3", USB_PORTS)
}

/// Whether the VM starts with a SCSI controller.
pub fn uses_scsi(machine: &Machine, spec: &VmSpec) -> bool {
    has_disk(spec, DiskBus::Scsi)
        || has_driver(spec, models::is_scsi)
        || (has_cd(spec) && !machine.has_ide_cd())
}

/// Whether a q35 VM starts with a drive on its own AHCI controller.
pub fn uses_sata(spec: &VmSpec) -> bool {
    let root = matches!(spec.boot, Boot::Squashfs { sata: true, .. });
    root || has_disk(spec, DiskBus::Sata) || has_driver(spec, models::is_ide) || has_cd(spec)
}

fn has_disk(spec: &VmSpec, bus: DiskBus) -> bool {
    spec.disks.iter().any(|disk| disk.bus == bus)
}

fn has_driver(spec: &VmSpec, is_such: fn(&str) -> bool) -> bool {
    spec.devices.iter().any(|device| is_such(&device.driver))
}

fn has_cd(spec: &VmSpec) -> bool {
    matches!(spec.boot, Boot::Iso { .. }) || spec.metadata.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::testing::{disk, extra_device, spec};
    use crate::spec::{Arch, Display};

    #[test]
    fn a_controller_is_there_for_what_hangs_on_it() {
        let uses = |spec: &VmSpec| {
            let machine = Machine::of(spec);
            (uses_usb(&machine, spec), uses_scsi(&machine, spec), uses_sata(spec))
        };
        assert_eq!(uses(&spec()), (false, false, false));
        let of = |bus| VmSpec { disks: vec![disk("a", bus)], ..spec() };
        assert_eq!(uses(&of(DiskBus::Usb)), (true, false, false));
        assert_eq!(uses(&of(DiskBus::Scsi)), (false, true, false));
        assert_eq!(uses(&of(DiskBus::Sata)), (false, false, true));
        let metadata = VmSpec { metadata: Some("/m.iso".into()), ..spec() };
        assert_eq!(uses(&metadata), (false, false, true));
        assert!(uses(&VmSpec { arch: Arch::Aarch64, ..metadata }).1);
        let window = VmSpec { display: Display::Gui, ..spec() };
        assert!(uses(&window).0);
        assert!(!uses(&VmSpec { arch: Arch::S390x, ..window }).0);
        let keyboard = VmSpec { devices: vec![extra_device("usb-kbd", "k", "usb0.0")], ..spec() };
        assert!(uses(&keyboard).0);
    }
}
