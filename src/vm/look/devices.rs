//! The devices of a VM, from QEMU's tree of devices.

use crate::qemu::ids::{self, Ids};
use crate::qemu::models::Class;
use crate::qemu::plan::Controller;
use crate::qmp::qtree::{Dev, Tree};
use crate::spec::{DeviceId, DiskBus};

use super::Whose;
use super::blocks::Blocks;
use super::nics::Networks;
use crate::vm::state::inventory::{DiskFacts, Entry, Inventory, Kind, NicFacts, Phase};
use crate::vm::state::opened::ImageNodes;

/// The input of the search for devices.
pub(super) struct View<'a> {
    pub(super) tree: &'a Tree,
    pub(super) blocks: &'a Blocks<'a>,
    pub(super) networks: Networks<'a>,
    pub(super) whose: Whose<'a>,
    /// Everything that has an id.
    pub(super) present: &'a [(String, String)],
    /// The images that vmrun has passed to QEMU.
    pub(super) images: &'a ImageNodes,
}

impl View<'_> {
    /// Adds all devices that can be listed and changed: those with an id that are not vmrun's own machine devices; of QEMU arguments of
    /// the user (behind `--`, or all of a wrapped VM) also disks, USB devices and network cards without an id.
    pub(super) fn devices(&self, inventory: &mut Inventory, ids: &'static Ids) {
        for (index, dev) in self.tree.devices.iter().enumerate() {
            if self.is_part(index) || !self.is_listed(dev, ids) {
                continue;
            }
            let drive = self.disk(index);
            let is_usb = self.is_usb(index);
            let mut nic = if drive.is_none() && !is_usb { self.nic(index) } else { None };
            if dev.id.is_empty() && drive.is_none() && !is_usb && nic.is_none() {
                continue;
            }
            let name = match (&drive, &nic, dev.id.is_empty()) {
                (_, _, false) => dev.id.clone(),
                (Some((drive, _)), _, true) => drive.clone(),
                (None, Some(nic), true) => self.card_name(inventory, nic, &dev.driver),
                (None, None, true) => free_name(inventory, &dev.driver),
            };
            let Ok(id) = plain(&name).parse::<DeviceId>() else { continue };
            if dev.id.is_empty() {
                inventory.anonymous.insert(id.to_string(), self.path(drive.as_ref(), nic.as_ref()));
            }
            if let Some(nic) = &mut nic {
                self.networks.complete(id.as_str(), nic);
            }
            let slot = self.slot(inventory, index);
            if let (Whose::Ours { .. }, Some(slot)) = (self.whose, &slot) {
                inventory.slots.restore(slot, id.as_str());
            }
            let kind = match drive {
                Some((drive, facts)) => self.disk_or_stick(dev, &drive, facts, ids),
                None if is_usb => self.usb(dev),
                None if self.is_controller(dev, ids) => Kind::Controller,
                None => nic.map_or(Kind::Other, Kind::Nic),
            };
            inventory.insert(Entry {
                id,
                driver: dev.driver.clone(),
                slot,
                phase: Phase::Present,
                taken: None,
                kind,
            });
        }
        self.without_a_bus(inventory, ids);
    }

    /// Memory modules and processors.
    fn without_a_bus(&self, inventory: &mut Inventory, ids: &'static Ids) {
        for (id, driver) in self.present {
            let in_tree = self.tree.devices.iter().any(|dev| dev.id == *id);
            if in_tree || self.is_fixture(ids, id) {
                continue;
            }
            let Ok(id) = id.parse::<DeviceId>() else { continue };
            let driver = driver.clone();
            inventory.insert(Entry {
                id,
                driver,
                slot: None,
                phase: Phase::Present,
                taken: None,
                kind: Kind::Other,
            });
        }
    }

    fn is_listed(&self, dev: &Dev, ids: &'static Ids) -> bool {
        match self.whose {
            Whose::Wrapped { .. } => true,
            // vmrun's own devices all have ids
            Whose::Ours { spec, .. } if dev.id.is_empty() => !spec.extra.is_empty(),
            Whose::Ours { .. } => {
                self.present.iter().any(|(id, _)| *id == dev.id) && !self.is_fixture(ids, &dev.id)
            }
        }
    }

    /// vmrun's own devices from the start, which cannot be changed.
    fn is_fixture(&self, ids: &'static Ids, id: &str) -> bool {
        matches!(self.whose, Whose::Ours { .. })
            && ids.is_reserved(id)
            && ![ids::NIC, ids.usb, ids.scsi, ids::BOOT_CD, ids::METADATA_CD].contains(&id)
    }

    /// The inner virtio device, and the disk of a USB stick, are devices of their own in the tree.
    fn is_part(&self, index: usize) -> bool {
        let parent = self.tree.parent(index).and_then(|parent| self.tree.devices.get(parent));
        let class = parent.map(|parent| Class::of(&parent.driver));
        let has_id = self.tree.devices.get(index).is_some_and(|dev| !dev.id.is_empty());
        !has_id && class.is_some_and(|class| class.drive().is_some() || class == Class::Nic)
    }

    fn is_usb(&self, index: usize) -> bool {
        let on_usb = self.tree.bus_of(index).is_some_and(|bus| bus.kind == "usb-bus");
        on_usb || self.tree.devices.get(index).is_some_and(|dev| Class::of(&dev.driver).is_usb())
    }

    /// The slot of a device, from the bus that it sits on.
    fn slot(&self, inventory: &Inventory, index: usize) -> Option<String> {
        let bus = self.tree.bus_of(index)?;
        // on `pci.0` it is unknown what was plugged while a VM of vmrun's ran
        let port = bus.parent.and_then(|port| self.tree.devices.get(port));
        let is_port = port.is_some_and(|port| Class::of(&port.driver) == Class::RootPort);
        let is_slot = inventory.slots.iter().any(|(name, _)| name == bus.name);
        (is_slot && (is_port || matches!(self.whose, Whose::Wrapped { .. }))).then(|| bus.name.clone())
    }

    /// The drive of a device, if it is a disk.
    fn disk(&self, index: usize) -> Option<(String, DiskFacts)> {
        let dev = self.tree.devices.get(index)?;
        let drive = Class::of(&dev.driver).drive()?;
        let serial = self.property(index, "serial").cloned();
        let serial = match self.whose {
            Whose::Ours { .. } => serial.filter(|serial| drive.0 != DiskBus::Sata || !is_default(serial)),
            Whose::Wrapped { .. } => serial,
        };
        let name = self.property(index, "drive").cloned().unwrap_or_default();
        let facts = self.blocks.facts(&name, &dev.id, drive, serial)?;
        Some((name, facts))
    }

    /// A non-empty property of a device: its own, or that of its inner device or disk.
    fn property(&self, index: usize, name: &str) -> Option<&String> {
        let children = self.tree.devices.iter().enumerate();
        let children = children.filter(|(child, _)| self.tree.parent(*child) == Some(index));
        let mut halves = self.tree.devices.get(index).into_iter().chain(children.map(|(_, child)| child));
        halves.find_map(|dev| dev.properties.get(name).filter(|value| !value.is_empty()))
    }

    /// The name of a card without an id: that of its back-end, which stays the same when more cards are plugged. Back-ends and
    /// devices have separate ids, so a device may have the name already.
    fn card_name(&self, inventory: &Inventory, nic: &NicFacts, driver: &str) -> String {
        let name = plain(&nic.netdev);
        let is_taken =
            inventory.device(&name).is_some() || self.tree.devices.iter().any(|dev| dev.id == name);
        if is_taken { free_name(inventory, driver) } else { name }
    }

    /// A network card, if it is one. A device with a card on its bus (a port, the host bridge) is not one.
    fn nic(&self, index: usize) -> Option<NicFacts> {
        let dev = self.tree.devices.get(index)?;
        if Class::of(&dev.driver) != Class::Nic && !dev.properties.contains_key("netdev") {
            return None;
        }
        let netdev = self.property(index, "netdev")?;
        let mac = self.property(index, "mac").and_then(|mac| mac.parse().ok());
        Some(self.networks.nic(&dev.id, netdev, mac))
    }

    /// A disk, or a stick of vmrun's; decides whether vmrun may close its block nodes.
    fn disk_or_stick(&self, dev: &Dev, drive: &str, facts: DiskFacts, ids: &'static Ids) -> Kind {
        let id = dev.id.as_str();
        let ours = match self.whose {
            Whose::Ours { .. } => facts
                .node
                .as_deref()
                .is_none_or(|node| node == id || self.images.contains_key(node) || ids.is_reserved(node)),
            Whose::Wrapped { from_start, .. } => {
                let was_there = from_start.is_none_or(|all| all.iter().any(|other| other == id));
                let like_ours = self.blocks.has_node(id) && self.blocks.has_node(&format!("{id}.file"));
                !was_there && like_ours && [id, ""].contains(&facts.node.as_deref().unwrap_or(drive))
            }
        };
        let is_stick = Class::of(&dev.driver) == Class::UsbStorage
            && dev.properties.get("removable").is_some_and(|value| value == "true");
        let is_known = ours || matches!(self.whose, Whose::Ours { .. });
        match is_stick && is_known {
            true => {
                let file = facts.file.unwrap_or_default();
                Kind::Usb {
                    description: format!("stick with {file}"),
                    identity: facts.identity,
                    file: Some(file),
                }
            }
            false => Kind::Disk(DiskFacts { foreign: !ours, ..facts }),
        }
    }

    /// A USB device: described as vmrun does for plugged devices, or by the device's own name.
    fn usb(&self, dev: &Dev) -> Kind {
        let number = |name: &str| {
            let value = dev.properties.get(name).and_then(|value| value.split_whitespace().next());
            value.unwrap_or("null").to_owned()
        };
        let calls_itself =
            || dev.notes.iter().find_map(|note| note.split_once(", name ")?.1.split(',').next());
        let description = match (self.whose, Class::of(&dev.driver)) {
            (Whose::Ours { .. }, Class::UsbHost) => {
                format!("host device {}.{}", number("hostbus"), number("hostaddr"))
            }
            (Whose::Ours { .. }, _) => dev.driver.clone(),
            (Whose::Wrapped { .. }, _) => calls_itself().unwrap_or(&dev.driver).to_owned(),
        };
        Kind::Usb { description, file: None, identity: None }
    }

    /// A controller that vmrun plugs for other devices.
    fn is_controller(&self, dev: &Dev, ids: &'static Ids) -> bool {
        let is_named = |controller: Controller| match self.whose {
            Whose::Ours { .. } => controller.id(ids) == dev.id,
            // of any version
            Whose::Wrapped { .. } => controller.is_named(&dev.id),
        };
        match Class::of(&dev.driver) {
            Class::UsbController(0) => is_named(Controller::Usb),
            Class::ScsiController => is_named(Controller::Scsi),
            _ => false,
        }
    }

    /// How commands name a device without an id: a drive by its path, a card by its back-end.
    fn path(&self, drive: Option<&(String, DiskFacts)>, nic: Option<&NicFacts>) -> String {
        match (drive, nic) {
            (_, Some(nic)) => nic.netdev.clone(),
            (Some((drive, _)), None) => self.blocks.device_path(drive).unwrap_or_default().to_owned(),
            (None, None) => String::new(),
        }
    }
}

/// QEMU's default serials of IDE drives are `QM00001` and so on (`ide_init_drive` in hw/ide/core.c).
fn is_default(serial: &str) -> bool {
    let number = serial.strip_prefix("QM");
    number.is_some_and(|number| number.len() == 5 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A name that is a valid id: generated node names start with `#`.
fn plain(name: &str) -> String {
    name.trim_start_matches('#').chars().take(26).collect()
}

fn free_name(inventory: &Inventory, driver: &str) -> String {
    let numbered = |number: u32| format!("{driver}.{number}");
    (0..).map(numbered).find(|name| inventory.device(name).is_none()).unwrap_or_default()
}
