//! The machine of a VM that the user has put together: its type and buses decide what can be plugged where.

use std::collections::BTreeMap;

use crate::qemu::machine::Family;
use crate::qemu::models::Class;
use crate::qemu::{Found, Machine, PlugTarget, Slots};
use crate::qmp::hmp::user_networks;
use crate::qmp::qtree::{Bus, Dev, Tree};
use crate::spec::Arch;

use super::answers::Answers;

/// The number of devices on a PCI bus.
const PCI_SLOTS: u8 = 32;
/// The number of slots that vmrun offers on the channel subsystem, which has many more.
const CCW_ROOM: usize = 200;

/// What follows from the machine type and its buses.
pub(super) fn found(tree: &Tree, arch: Arch, answers: &Answers) -> (Machine, Slots) {
    let has_bus = |name: &str, kind: &str| tree.buses.iter().any(|bus| bus.name == name && bus.kind == kind);
    let (family, target, slots): (_, _, Vec<_>) = if has_bus("pcie.0", "PCIE") {
        let family = if arch == Arch::X86_64 { Family::Q35 } else { Family::Virt };
        (family, PlugTarget::Slots, root_ports(tree).collect())
    } else if has_bus("pci.0", "PCI") {
        (Family::Pc, PlugTarget::Bus("pci.0"), pci_slots(tree))
    } else if has_bus("virtual-css", "virtual-css-bus") || arch == Arch::S390x {
        (Family::Ccw, PlugTarget::Direct, vec![("ccw".to_owned(), None); CCW_ROOM])
    } else {
        (Family::Microvm, PlugTarget::None, Vec::new())
    };
    let found = Found {
        usb_bus: usb_bus(tree),
        scsi_bus: scsi_bus(tree),
        netdev: user_networks(answers.usernet()).first().map(|name| (*name).to_owned()),
    };
    (Machine::found(arch, family, answers.machine(), found), Slots::found(target, slots))
}

/// Ports that take one device each while the VM runs, except those whose bus name is ambiguous.
fn root_ports(tree: &Tree) -> impl Iterator<Item = (String, Option<String>)> {
    // QEMU lists the last one first
    tree.buses.iter().enumerate().rev().filter_map(|(index, bus)| {
        let port = parent(tree, bus)?;
        let is_port = Class::of(&port.driver) == Class::RootPort;
        let can = port.properties.get("hotplug").is_none_or(|value| value == "true");
        (is_port && can && tree.is_unique(&bus.name))
            .then(|| (bus.name.clone(), tree.on(index).next().map(|dev| name_of(dev).to_owned())))
    })
}

/// The slots of `pci.0`.
fn pci_slots(tree: &Tree) -> Vec<(String, Option<String>)> {
    let Some(bus) = tree.buses.iter().position(|bus| bus.name == "pci.0") else { return Vec::new() };
    let mut slots = BTreeMap::new();
    for dev in tree.on(bus) {
        let slot = dev.properties.get("addr").and_then(|addr| addr.split('.').next());
        if let Some(slot) = slot.and_then(|slot| u8::from_str_radix(slot, 16).ok()) {
            slots.entry(slot).or_insert_with(|| name_of(dev).to_owned());
        }
    }
    (0..PCI_SLOTS).map(|slot| ("pci.0".to_owned(), slots.remove(&slot))).collect()
}

/// The bus that takes the fastest devices, of those with an unambiguous name.
fn usb_bus(tree: &Tree) -> Option<String> {
    let rank = |dev: &Dev| match Class::of(&dev.driver) {
        Class::UsbController(rank) => rank,
        _ => u8::MAX,
    };
    let buses = tree.buses.iter().filter(|bus| bus.kind == "usb-bus" && tree.is_unique(&bus.name));
    let controllers = buses.filter_map(|bus| Some((parent(tree, bus)?, bus)));
    controllers.min_by_key(|(controller, _)| rank(controller)).map(|(_, bus)| bus.name.clone())
}

/// The bus of a virtio controller: others take no disks while the VM runs, or only a few.
fn scsi_bus(tree: &Tree) -> Option<String> {
    let is_virtio = |bus: &Bus| {
        parent(tree, bus).is_some_and(|controller| Class::of(&controller.driver) == Class::ScsiController)
    };
    let mut buses = tree.buses.iter().filter(|bus| bus.kind == "SCSI" && tree.is_unique(&bus.name));
    buses.find(|bus| is_virtio(bus)).map(|bus| bus.name.clone())
}

fn parent<'a>(tree: &'a Tree, bus: &Bus) -> Option<&'a Dev> {
    tree.devices.get(bus.parent?)
}

fn name_of(dev: &Dev) -> &str {
    if dev.id.is_empty() { &dev.driver } else { &dev.id }
}
