//! Where vmrun's own devices sit on the guest's buses: each has an address that depends on nothing else in the VM, so that the guest's
//! names for them (`enp0s2`, `vda`) survive every flag, raw arguments included.
//!
//! | slot on `pcie.0` (`pci.0` begins one later) | device |
//! | --- | --- |
//! | 1 | random numbers |
//! | 2 | network card; without one the agent's controller |
//! | 3 to 0xc | disks on virtio and NVMe, in their order; more of them are behind a bridge in slot 0x1e |
//! | 0xd, 0xe | random numbers and the agent's controller, where something else has their slots |
//! | 0xf | AHCI controllers |
//! | 0x10 to 0x17 | root ports, eight in each |
//! | 0x18, 0x19, 0x1a, 0x1c, 0x1d | USB, SCSI, video, shared folders, panic device |
//! | 0x1b | further network cards, each a function of it |
//!
//! QEMU gives a device without an address the lowest free slot, and a guest counts its cards and disks from the lowest slot up. So
//! there is no free slot below the network card and the disks that a device of the user could get. Devices that QEMU makes with the
//! machine (`-vga`, `-nic`) come before all others: the first slots are kept for them, and otherwise have devices that no guest counts.

use std::ffi::OsStr;

use super::machine::Family;
use super::models::Class;
use super::{Device, Machine, ids, wrapped};
use crate::spec::{Boot, DiskBus, Networking, VmSpec};

/// Disks with a slot of their own on the root bus, which ends before [`RNG_AWAY`].
const LAST_DISK: usize = 0xc;
const RNG_AWAY: usize = 0xd;
const SERIAL_AWAY: usize = 0xe;
const AHCI: usize = 0xf;
/// Of the first eight root ports.
pub(super) const PORTS: usize = 0x10;
const USB: usize = 0x18;
const SCSI: usize = 0x19;
const VIDEO: usize = 0x1a;
/// On no card that QEMU's q35 has of itself.
const NICS: usize = 0x1b;
const SHARES: usize = 0x1c;
/// q35 has USB controllers of its own there with `-usb`, and its panic device elsewhere.
const PANIC: usize = 0x1d;
const BRIDGE: usize = 0x1e;
/// A PCI device has at most eight functions.
pub(super) const FUNCTIONS: usize = 8;
/// Slots behind the bridge; slot 0 is the bridge's own.
const BEHIND: usize = 31;
/// No root port of the spare ones has this number.
const BRIDGE_CHASSIS: usize = 100;
/// What is not counted by the guest comes after all disks in the channel subsystem, which has room.
const CCW_AWAY: usize = 0x1000;
/// After the numbers that are slots on PCI.
const CCW_NICS: usize = 0x40;

/// The bridge for disks that have no slot on the root bus.
const BRIDGE_ID: &str = "vmrun-bridge";
const BRIDGE_PORT_ID: &str = "vmrun-bridge-port";

/// The addresses of one VM's devices.
pub(super) struct Addresses<'a> {
    machine: &'a Machine,
    /// Devices that QEMU makes with the machine, for the user's arguments.
    made: usize,
    card: bool,
    disks: usize,
    /// Ids of the further network cards.
    nics: Vec<&'a str>,
}

impl<'a> Addresses<'a> {
    /// None where QEMU chooses: in VMs of the older layout, on microvm (which has no addresses, and keeps the order), and where
    /// more devices come with the machine than there are slots kept for them.
    pub(super) fn of(machine: &'a Machine, spec: &'a VmSpec) -> Option<Self> {
        let has_addresses = machine.has_fixed_addresses() && machine.family() != Family::Microvm;
        let (made, card) = (made_with_the_machine(spec), spec.networking != Networking::None);
        let kept = if card { 1 } else { 2 };
        let nics = spec.nics.iter().map(|nic| nic.id.as_str()).collect();
        (has_addresses && made <= kept).then_some(Self { machine, made, card, disks: 0, nics })
    }

    /// The device with its address. Those that sit on another device's bus have one already.
    pub(super) fn addressed(&mut self, device: Device) -> Device {
        if device.bus.as_deref().is_some_and(|bus| bus != "pcie.0") {
            return device;
        }
        let ids = self.machine.ids();
        let id = device.id.as_str();
        let first = self.first();
        let at = match id {
            _ if id == ids.rng => {
                if self.made == 0 {
                    first
                } else {
                    self.away(RNG_AWAY)
                }
            }
            _ if id == ids.virtio_serial => match self.card || self.made == 2 {
                true => self.away(SERIAL_AWAY),
                false => first + 1,
            },
            ids::NIC => first + 1,
            _ if id == ids.usb => self.away(USB),
            _ if id == ids.scsi => self.away(SCSI),
            _ if id == ids.video => self.away(VIDEO),
            // the other two are not on PCI
            _ if id == ids.panic && device.driver == "pvpanic-pci" => PANIC,
            _ if id == ids.keyboard && self.is_ccw() => self.away(VIDEO + 1),
            _ if id == ids.tablet && self.is_ccw() => self.away(VIDEO + 2),
            _ if id == BRIDGE_ID || id == BRIDGE_PORT_ID => BRIDGE,
            _ if matches!(Class::of(&device.driver), Class::Disk(DiskBus::Virtio | DiskBus::Nvme)) => {
                return self.disk(device);
            }
            _ => return self.one_of_many(device),
        };
        self.put(device, at)
    }

    fn is_ccw(&self) -> bool {
        self.machine.family() == Family::Ccw
    }

    /// The lowest slot.
    fn first(&self) -> usize {
        match self.machine.family() {
            Family::Pc => 2,
            Family::Ccw => 0,
            _ => 1,
        }
    }

    fn away(&self, slot: usize) -> usize {
        if self.is_ccw() { CCW_AWAY + slot } else { slot }
    }

    fn root(&self) -> &'static str {
        if self.machine.family() == Family::Pc { "pci.0" } else { "pcie.0" }
    }

    fn put(&self, device: Device, at: usize) -> Device {
        match self.is_ccw() {
            true => device.with("devno", format!("fe.0.{at:04x}")),
            false => device.on(self.root()).with("addr", format!("{at:x}")),
        }
    }

    fn disk(&mut self, device: Device) -> Device {
        let number = self.disks;
        self.disks += 1;
        let own = on_root_bus(self.machine);
        match number.checked_sub(own) {
            Some(behind) if !self.is_ccw() => device.on(BRIDGE_ID).with("addr", format!("{:x}", behind + 1)),
            _ => self.put(device, self.first() + 2 + number),
        }
    }

    /// Functions of one slot; what does not fit is left to QEMU.
    fn one_of_many(&self, device: Device) -> Device {
        let id = device.id.clone();
        if let Some(index) = self.nics.iter().position(|nic| *nic == id) {
            return match self.is_ccw() {
                true => self.put(device, self.away(CCW_NICS) + index),
                false => self.function(device, NICS, index),
            };
        }
        let number_of =
            |family: fn(usize) -> String, max: usize| (0..max).find(|number| family(*number) == id);
        if let Some(index) = number_of(|index| ids::slot(index + 1), PORTS * FUNCTIONS) {
            return self.function(device, PORTS, index);
        }
        let ids = self.machine.ids();
        if let Some(index) = (0..FUNCTIONS).find(|number| ids.ahci(*number) == id) {
            return self.function(device, AHCI, index);
        }
        match (0..FUNCTIONS).find(|number| ids.share(*number) == id) {
            Some(index) if self.is_ccw() => self.put(device, self.away(SHARES) + index),
            Some(index) => self.function(device, SHARES, index),
            None => device,
        }
    }

    fn function(&self, device: Device, first: usize, index: usize) -> Device {
        let address = format!("{:x}.{}", first + index / FUNCTIONS, index % FUNCTIONS);
        device.on(self.root()).with("addr", address).with("multifunction", true)
    }
}

/// The bridge for the disks that have no slot on the root bus, if there are such; with the port that it is in.
pub(super) fn bridge(machine: &Machine, spec: &VmSpec) -> Vec<Device> {
    if !machine.has_pci() || !machine.has_fixed_addresses() || pci_disks(spec) <= on_root_bus(machine) {
        return Vec::new();
    }
    if machine.family() == Family::Pc {
        return vec![Device::new("pci-bridge", BRIDGE_ID).with("chassis_nr", BRIDGE_CHASSIS)];
    }
    let port = Device::new("pcie-root-port", BRIDGE_PORT_ID)
        .with("chassis", BRIDGE_CHASSIS)
        .with("slot", BRIDGE_CHASSIS);
    vec![port, Device::new("pcie-pci-bridge", BRIDGE_ID).on(BRIDGE_PORT_ID)]
}

fn on_root_bus(machine: &Machine) -> usize {
    if machine.family() == Family::Pc { LAST_DISK - 3 } else { LAST_DISK - 2 }
}

/// How many disks a machine takes that are PCI devices each; none if that is not what limits it.
pub(super) fn most_pci_disks(machine: &Machine) -> Option<usize> {
    (machine.has_pci() && machine.has_fixed_addresses()).then(|| on_root_bus(machine) + BEHIND)
}

/// How many disks are devices of their own on the root bus or behind the bridge.
pub(super) fn pci_disks(spec: &VmSpec) -> usize {
    let root = matches!(spec.boot, Boot::Squashfs { sata: false, .. });
    let own = |bus| matches!(bus, DiskBus::Virtio | DiskBus::Nvme);
    usize::from(root) + spec.disks.iter().filter(|disk| own(disk.bus)).count()
}

/// How many PCI devices the user's arguments let QEMU make together with the machine, before all others.
fn made_with_the_machine(spec: &VmSpec) -> usize {
    let says = |value: &OsStr, what: &str| {
        value.to_str().is_some_and(|value| {
            value.split(',').any(|part| part == what || part.starts_with(&format!("{what}=")))
        })
    };
    let makes = |(name, value): &(&str, &OsStr)| match *name {
        "vga" | "nic" => !says(value, "none"),
        "net" => says(value, "nic"),
        "audio" => says(value, "model"),
        _ => false,
    };
    wrapped::options(&spec.extra).filter(makes).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::testing::spec;

    #[test]
    fn what_comes_with_the_machine_is_counted() {
        for (line, expected) in [
            ("", 0),
            ("-vga std -nic user,model=e1000", 2),
            ("-vga none -nic none -net none -net user", 0),
            ("-net nic -net user -audio driver=none,model=hda", 2),
            ("-device VGA -drive if=virtio,file=vga -append -vga", 0),
        ] {
            let extra = line.split_whitespace().map(Into::into).collect();
            assert_eq!(made_with_the_machine(&VmSpec { extra, ..spec() }), expected, "{line}");
        }
    }
}
