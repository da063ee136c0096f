//! The devices that every VM has besides its drives: console, agent, random numbers, network card, what it shows, spare ports.

use super::addresses::{FUNCTIONS, PORTS};
use super::boot_order::BootOrder;
use super::controllers::{self, uses_usb};
use super::machine::Family;
use super::object::Object;
use super::{Device, Machine, Netdev, ids, models};
use crate::spec::{DeviceId, MacAddress, Networking, Nic, NicModel, VmSpec};

/// Root ports in slots of their own, as long as they are few: only then is everything about their hot-plug old and well-tried.
const SINGLE_PORTS: usize = 8;

/// The spare root ports.
pub(super) fn ports(machine: &Machine, spec: &VmSpec) -> Vec<Device> {
    let names = machine.slot_names(spec);
    let many = names.len() > SINGLE_PORTS;
    names
        .into_iter()
        .enumerate()
        .map(|(index, name)| {
            let port = Device::new("pcie-root-port", name)
                .on("pcie.0")
                .with("chassis", index + 1)
                .with("slot", index + 1);
            if !many {
                return port;
            }
            let address = format!("{:x}.{}", PORTS + index / FUNCTIONS, index % FUNCTIONS);
            // Port I/O is scarce (4 KiB a port, 64 KiB in all), and nothing of today needs it. Linux wants it all the same
            // and where the firmware gave none it arranges all ports anew, which slows the boot: so only where it is too little.
            port.with("addr", address).with("multifunction", true).with("io-reserve", 0)
        })
        .collect()
}

/// The console as a device, where `-serial` makes none.
pub(super) fn console(machine: &Machine) -> Option<Device> {
    let ids = machine.ids();
    (machine.family() == Family::Ccw)
        .then(|| Device::new("sclpconsole", ids.console).with("chardev", ids.console_chardev))
}

/// The guest agent's port and its controller.
pub(super) fn agent(machine: &Machine) -> [Device; 2] {
    let ids = machine.ids();
    let port = Device::new("virtserialport", ids.agent)
        .on(format!("{}.0", ids.virtio_serial).as_str())
        .with("chardev", ids.agent_chardev)
        .with("name", "org.qemu.guest_agent.0");
    [Device::new(machine.virtio("virtio-serial"), ids.virtio_serial), port]
}

/// Random numbers: QEMU's own source, which opens no file.
pub(super) fn entropy(machine: &Machine) -> (Object, Device) {
    let ids = machine.ids();
    let device = Device::new(machine.virtio("virtio-rng"), ids.rng).with("rng", ids.entropy);
    (Object::new("rng-builtin", ids.entropy), device)
}

/// Tells the guest that it is a fork, upon which Linux makes its random numbers anew: without it all forks would have the same.
pub(super) fn generation(spec: &VmSpec) -> Option<Device> {
    spec.forkable.then(|| Device::new("vmgenid", ids::GENERATION).with("guid", "auto"))
}

/// The network card of `--networking`.
pub(super) fn nic(machine: &Machine, spec: &VmSpec) -> Option<Device> {
    let card = Card { id: ids::NIC, mac: spec.mac, model: NicModel::Virtio };
    (spec.networking != Networking::None).then(|| cold_card(machine, spec, &card))
}

/// The further network cards.
pub(super) fn more_nics(machine: &Machine, spec: &VmSpec) -> Vec<Device> {
    let card =
        |nic: &Nic| cold_card(machine, spec, &Card { id: nic.id.as_str(), mac: nic.mac, model: nic.model });
    spec.nics.iter().map(card).collect()
}

fn cold_card(machine: &Machine, spec: &VmSpec, card: &Card<'_>) -> Device {
    match BootOrder::of(spec).nic.filter(|(id, _)| id == card.id) {
        Some((_, index)) => bootable_card(machine, card).with("bootindex", index),
        None => self::card(machine, card),
    }
}

/// The back-ends of all cards from the start; the forwards are those of [`VmSpec::forwarding_card`].
pub(super) fn netdevs(spec: &VmSpec) -> Vec<Netdev> {
    let forwarding = spec.forwarding_card();
    let netdev = |(id, network): (Option<&DeviceId>, &Networking)| {
        let forwards = if Some(id) == forwarding { spec.publish.as_slice() } else { &[] };
        Netdev::of(&ids::netdev(id.map_or(ids::NIC, DeviceId::as_str)), network, forwards)
    };
    spec.networks().filter_map(netdev).collect()
}

/// What the guest sees of a network card.
#[derive(Debug, Clone, Copy)]
pub struct Card<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its address.
    pub mac: MacAddress,
    /// What kind of card it is; others than virtio need PCI.
    pub model: NicModel,
}

/// QEMU's name of a network card's model.
pub fn card_driver(machine: &Machine, model: NicModel) -> String {
    match model {
        NicModel::Virtio => machine.virtio(models::VIRTIO_NIC),
        model => model.as_str().to_owned(),
    }
}

/// A network card on its back-end.
pub(super) fn card(machine: &Machine, card: &Card<'_>) -> Device {
    let nic = bootable_card(machine, card);
    // no option ROM: it only serves to boot from the network, and costs the firmware time
    if machine.has_pci() { nic.with("romfile", "") } else { nic }
}

/// The same with QEMU's option ROM, from which the firmware boots from the network.
fn bootable_card(machine: &Machine, card: &Card<'_>) -> Device {
    let driver = card_driver(machine, card.model);
    Device::new(driver, card.id).with("netdev", ids::netdev(card.id)).with("mac", card.mac.to_string())
}

/// The panic device.
pub(super) fn panic(machine: &Machine) -> Option<Device> {
    machine.panic_device().map(|driver| Device::new(driver, machine.ids().panic))
}

/// The USB controller, where it is a device of its own.
pub(super) fn usb(machine: &Machine, spec: &VmSpec) -> Option<Device> {
    (machine.has_pci() && uses_usb(machine, spec)).then(|| controllers::usb(machine))
}

/// Video device, keyboard and pointer.
pub(super) fn screen(machine: &Machine, spec: &VmSpec) -> Vec<Device> {
    if !spec.display.has_screen() {
        return Vec::new();
    }
    let ids = machine.ids();
    let video = Device::new(machine.video_device(), ids.video);
    let [keyboard, tablet] = match machine.usb_bus().filter(|_| machine.has_pci()) {
        Some(bus) => [("usb-kbd", ids.keyboard), ("usb-tablet", ids.tablet)]
            .map(|(driver, id)| Device::new(driver, id).on(bus)),
        None => [("virtio-keyboard", ids.keyboard), ("virtio-tablet", ids.tablet)]
            .map(|(kind, id)| Device::new(machine.virtio(kind), id)),
    };
    vec![video, keyboard, tablet]
}

/// The shared folders.
pub(super) fn shares(machine: &Machine, spec: &VmSpec) -> Vec<Device> {
    let share = |(number, share): (usize, &crate::spec::Share)| {
        let id = machine.ids().share(number);
        Device::new(machine.virtio("vhost-user-fs"), id.as_str())
            .with("chardev", id)
            .with("tag", share.tag.as_str())
    };
    spec.shares.iter().enumerate().map(share).collect()
}
