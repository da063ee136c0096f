//! What the machine type decides: buses, names of device models, what can be plugged where.

use std::ffi::OsString;

use super::ids::{self, Ids};
use crate::spec::{Arch, DiskBus, Layout, VmSpec};

pub use crate::spec::Family;

/// Where a hot-plugged device can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlugTarget {
    /// Into a spare root port, one device each.
    Slots,
    /// Onto this bus, which takes many.
    Bus(&'static str),
    /// To the machine itself; no bus is named (channel subsystem).
    Direct,
    /// Nowhere.
    None,
}

/// What a wrapped VM has; everything else follows from the family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The bus that USB devices go into; none if there is no controller.
    pub usb_bus: Option<String>,
    /// The bus that SCSI disks go into; none if there is no controller.
    pub scsi_bus: Option<String>,
    /// The back-end of user networking; none if there is no such network.
    pub netdev: Option<String>,
}

/// The machine type of a VM. A type that is not known counts as the architecture's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    arch: Arch,
    family: Family,
    layout: Layout,
    kind: String,
    found: Option<Found>,
}

impl Machine {
    /// The machine that this description asks for.
    pub fn of(spec: &VmSpec) -> Self {
        let defaults = spec.arch.facts();
        let kind = spec.machine.as_deref().unwrap_or(defaults.machine);
        // options may follow the type: `q35,hpet=off`
        let name = kind.split(',').next().unwrap_or(kind);
        let family = match (spec.arch, name) {
            (Arch::X86_64, "microvm") => Family::Microvm,
            (Arch::X86_64, "pc") => Family::Pc,
            (Arch::X86_64, name) if name.starts_with("pc-i440fx-") => Family::Pc,
            _ => defaults.family,
        };
        Self { arch: spec.arch, family, layout: spec.layout, kind: kind.to_owned(), found: None }
    }

    /// A machine that was looked at rather than asked for.
    pub fn found(arch: Arch, family: Family, kind: &str, found: Found) -> Self {
        Self { arch, family, layout: Layout::Fixed, kind: kind.to_owned(), found: Some(found) }
    }

    /// The guest's architecture.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// The names of vmrun's own devices in it.
    pub fn ids(&self) -> &'static Ids {
        Ids::of(self.layout)
    }

    /// Whether vmrun's own devices have fixed addresses in it.
    pub fn has_fixed_addresses(&self) -> bool {
        self.layout == Layout::Fixed
    }

    /// What it behaves like.
    pub fn family(&self) -> Family {
        self.family
    }

    /// What stands after `-machine`, before vmrun's own options.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Where hot-plugged devices go.
    pub fn plug_target(&self) -> PlugTarget {
        match self.family {
            Family::Q35 | Family::Virt => PlugTarget::Slots,
            Family::Pc => PlugTarget::Bus("pci.0"),
            Family::Ccw => PlugTarget::Direct,
            Family::Microvm => PlugTarget::None,
        }
    }

    /// The full name of a virtio (or vhost-user) device model here: `virtio-blk` → `virtio-blk-pci`, `-ccw` or `-device`.
    pub fn virtio(&self, kind: &str) -> String {
        let transport = match self.family {
            Family::Q35 | Family::Pc | Family::Virt => "pci",
            Family::Ccw => "ccw",
            Family::Microvm => "device",
        };
        format!("{kind}-{transport}")
    }

    /// Whether there is PCI.
    pub fn has_pci(&self) -> bool {
        matches!(self.family, Family::Q35 | Family::Pc | Family::Virt)
    }

    /// Whether it has a power button that a guest can hear of, by what was typed for `-machine` and behind `--`: QEMU takes the press all
    /// the same where there is none. (aarch64 has one on a GPIO line without ACPI, s390x a signal of its own.)
    pub fn has_power_button(&self, typed: Option<&str>, extra: &[OsString]) -> bool {
        let is_off = |text: &str| {
            text.split(',').any(|option| matches!(option, "acpi=off" | "acpi=no" | "acpi=false"))
                || matches!(text, "-no-acpi" | "--no-acpi")
        };
        let extra = || extra.iter().filter_map(|word| word.to_str()).any(is_off);
        match self.arch {
            Arch::Riscv64 => false,
            Arch::X86_64 => !(typed.is_some_and(is_off) || extra()),
            _ => true,
        }
    }

    /// Whether the VM can have a USB controller from the start.
    pub fn has_usb(&self) -> bool {
        self.usb_bus().is_some()
    }

    /// Whether a USB controller can be plugged while the VM runs.
    pub fn hot_usb(&self) -> bool {
        self.has_pci()
    }

    /// The bus of the USB controller, if there is or were one; none where no controller exists (Debian's s390x build).
    pub fn usb_bus(&self) -> Option<&str> {
        if let Some(Found { usb_bus: Some(bus), .. }) = &self.found {
            return Some(bus);
        }
        match self.family {
            Family::Q35 | Family::Pc | Family::Virt => Some(self.ids().usb_bus),
            // microvm's own controller, which `-machine usb=on` switches on
            Family::Microvm => Some("usb-bus.0"),
            Family::Ccw => None,
        }
    }

    /// Whether a SCSI controller can be plugged while the VM runs.
    pub fn hot_scsi(&self) -> bool {
        self.plug_target() != PlugTarget::None
    }

    /// The bus of the SCSI controller, if there is or were one.
    pub fn scsi_bus(&self) -> &str {
        self.found.as_ref().and_then(|found| found.scsi_bus.as_deref()).unwrap_or(self.ids().scsi_bus)
    }

    /// Whether there is a USB controller that vmrun did not put there.
    pub fn came_with_usb(&self) -> bool {
        self.found.as_ref().is_some_and(|found| found.usb_bus.is_some())
    }

    /// Whether there is a SCSI controller that vmrun did not put there.
    pub fn came_with_scsi(&self) -> bool {
        self.found.as_ref().is_some_and(|found| found.scsi_bus.is_some())
    }

    /// The back-end that forwards hang on.
    pub fn netdev(&self) -> &str {
        self.found.as_ref().and_then(|found| found.netdev.as_deref()).unwrap_or(ids::NETDEV)
    }

    /// Whether a disk can be on this bus from the start.
    pub fn has_disk_bus(&self, bus: DiskBus) -> bool {
        match bus {
            DiskBus::Virtio | DiskBus::Scsi => true,
            DiskBus::Sata | DiskBus::Nvme => self.has_pci(),
            DiskBus::Usb => self.has_usb(),
        }
    }

    /// Whether a disk can be plugged into this bus while the VM runs, given the controllers that it has.
    pub fn can_hot_plug(&self, bus: DiskBus, has_usb: bool, has_scsi: bool) -> bool {
        match bus {
            DiskBus::Virtio => self.plug_target() != PlugTarget::None,
            DiskBus::Nvme => self.has_pci(),
            DiskBus::Scsi => has_scsi || self.hot_scsi(),
            DiskBus::Usb => has_usb || self.hot_usb(),
            // AHCI's buses take nothing while the VM runs
            DiskBus::Sata => false,
        }
    }

    /// The bus of the `number`th SATA drive (from 0), and the AHCI controller to add for it if it is its first.
    pub fn sata_port(&self, number: usize) -> (String, Option<String>) {
        const PORTS: usize = 6;
        let (controller, port) = (number / PORTS, number % PORTS);
        let added = match (self.family, controller) {
            // q35 has one of its own
            (Family::Q35, 0) => return (format!("ide.{port}"), None),
            (Family::Q35, n) => self.ids().ahci(n - 1),
            (_, n) => self.ids().ahci(n),
        };
        (format!("{added}.{port}"), (port == 0).then_some(added))
    }

    /// Whether CD-ROMs are IDE drives, which every installer knows; else they are SCSI drives.
    pub fn has_ide_cd(&self) -> bool {
        matches!(self.family, Family::Q35 | Family::Pc)
    }

    /// The panic device's model. s390x reports a panic without one; microvm has no firmware table to announce it.
    pub fn panic_device(&self) -> Option<&'static str> {
        match self.family {
            Family::Q35 | Family::Pc => Some("pvpanic"),
            Family::Virt => Some("pvpanic-pci"),
            Family::Microvm | Family::Ccw => None,
        }
    }

    /// The video device's model.
    pub fn video_device(&self) -> String {
        match self.family {
            // VGA-compatible, so firmware and boot loaders can be seen
            Family::Q35 | Family::Pc => "virtio-vga".to_owned(),
            _ => self.virtio("virtio-gpu"),
        }
    }

    /// The id of the root port, if the machine has such ports, by number from 1.
    pub fn slot_names(&self, spec: &VmSpec) -> Vec<String> {
        match self.plug_target() {
            PlugTarget::Slots => (1..=usize::from(spec.hotplug_slots)).map(ids::slot).collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::testing::spec;

    fn machine(arch: Arch, kind: Option<&str>) -> Machine {
        Machine::of(&VmSpec { arch, machine: kind.map(str::to_owned), ..spec() })
    }

    #[test]
    fn knows_families() {
        for (arch, kind, family) in [
            (Arch::X86_64, None, Family::Q35),
            (Arch::X86_64, Some("pc-q35-7.2"), Family::Q35),
            (Arch::X86_64, Some("pc"), Family::Pc),
            (Arch::X86_64, Some("pc,hpet=off"), Family::Pc),
            (Arch::X86_64, Some("pc-i440fx-7.2"), Family::Pc),
            (Arch::X86_64, Some("microvm"), Family::Microvm),
            (Arch::Aarch64, Some("virt-7.2"), Family::Virt),
            (Arch::Riscv64, None, Family::Virt),
            (Arch::S390x, None, Family::Ccw),
        ] {
            assert_eq!(machine(arch, kind).family(), family, "{arch:?} {kind:?}");
        }
    }

    #[test]
    fn sata_ports_continue_on_added_controllers() {
        let q35 = machine(Arch::X86_64, None);
        assert_eq!(q35.sata_port(5), ("ide.5".to_owned(), None));
        assert_eq!(q35.sata_port(6), ("vmrun-ahci0.0".to_owned(), Some("vmrun-ahci0".to_owned())));
        assert_eq!(q35.sata_port(7), ("vmrun-ahci0.1".to_owned(), None));
        let virt = machine(Arch::Aarch64, None);
        assert_eq!(virt.sata_port(0), ("vmrun-ahci0.0".to_owned(), Some("vmrun-ahci0".to_owned())));
        assert_eq!(virt.sata_port(6), ("vmrun-ahci1.0".to_owned(), Some("vmrun-ahci1".to_owned())));
    }

    #[test]
    fn says_what_can_be_plugged() {
        let microvm = machine(Arch::X86_64, Some("microvm"));
        assert!(!microvm.can_hot_plug(DiskBus::Virtio, true, true));
        assert!(microvm.can_hot_plug(DiskBus::Scsi, false, true));
        assert!(!microvm.can_hot_plug(DiskBus::Scsi, false, false));
        let q35 = machine(Arch::X86_64, None);
        assert!(q35.can_hot_plug(DiskBus::Scsi, false, false));
        assert!(!q35.can_hot_plug(DiskBus::Sata, true, true));
        assert!(!machine(Arch::S390x, None).can_hot_plug(DiskBus::Usb, false, false));
    }
}
