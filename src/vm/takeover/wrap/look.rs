//! What a VM has that somebody else has put together: the books, from QEMU's own answers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::qemu::machine::Family;
use crate::qemu::pci;
use crate::qemu::plan::Controller;
use crate::qemu::{Command, Found, Machine, PlugTarget, Slots, ids};
use crate::qmp::hmp::{user_networks, usernet};
use crate::qmp::qtree::{Dev, Tree};
use crate::qmp::{CommandError, Session};
use crate::spec::{Accel, Arch, DeviceId, DiskBus, Networking, Size, VmSpec};

use super::blocks::Blocks;
use crate::vm::changes::taken;
use crate::vm::state::facts::{Facts, NodeFile};
use crate::vm::state::inventory::{Bound, DiskFacts, Entry, Inventory, Kind, NicFacts, Phase};
use crate::vm::state::open_files::OpenFiles;
use crate::vm::state::run_state::RunState;

/// Places of a PCI bus.
const PCI_PLACES: u8 = 32;
/// The channel subsystem has room for more than anybody wants.
const CCW_ROOM: usize = 200;

/// What was found.
pub(super) struct Seen {
    pub(super) machine: Machine,
    pub(super) inventory: Inventory,
    uuid: Option<uuid::Uuid>,
    target: String,
    cpus: u32,
    memory_bytes: u64,
    kvm: bool,
    networking: &'static str,
    mac: Option<String>,
    files: BTreeMap<String, NodeFile>,
}

impl Seen {
    /// Takes what has a place in a description, and in the facts, there.
    pub(super) fn tell(&self, spec: &mut VmSpec, facts: &mut Facts) {
        spec.arch = self.machine.arch();
        spec.machine = Some(self.machine.kind().to_owned());
        spec.uuid = self.uuid.unwrap_or_default();
        // none yet in `-preconfig`: not to be taken for a VM that was never looked at
        spec.cpus = self.cpus.max(1);
        spec.memory = Size::from_bytes(self.memory_bytes).unwrap_or(spec.memory);
        spec.networking = if self.networking == "user" { Networking::User } else { Networking::None };
        facts.host.accel = if self.kvm { Accel::Kvm } else { Accel::Tcg };
        if let Some(wrapped) = &mut facts.wrapped {
            wrapped.target.clone_from(&self.target);
            self.networking.clone_into(&mut wrapped.networking);
            wrapped.mac.clone_from(&self.mac);
            wrapped.files.clone_from(&self.files);
        }
    }
}

/// What vmrun takes one of QEMU's many architectures for.
fn arch(target: &str) -> Arch {
    Arch::of_target(target).unwrap_or(Arch::X86_64)
}

/// Asks for everything in one go. `from_start`: a VM that is taken over again had these devices from the start; what came later and
/// looks as if vmrun had plugged it was. With none, nothing was plugged by vmrun.
pub(super) async fn look(
    session: &Session,
    facts: &Facts,
    from_start: Option<&[String]>,
) -> Result<Seen, CommandError> {
    let plain = |name: &str| Command::new(name, Value::Null);
    let commands = [
        plain("query-status"),
        Command::hmp("info qtree"),
        Command::hmp("info usernet"),
        plain("query-block"),
        Command::new("query-named-block-nodes", json!({ "flat": true })),
        plain("query-target"),
        plain("query-kvm"),
        plain("query-uuid"),
        plain("query-cpus-fast"),
        plain("query-memory-size-summary"),
        Command::new("qom-get", json!({ "path": "/machine", "property": "type" })),
        pci::query(),
    ];
    let mut answers = Vec::with_capacity(commands.len());
    for answer in session.submit_all(&commands) {
        answers.push(match answer.await {
            // in `-preconfig` QEMU answers few questions yet
            Err(CommandError::Refused { .. }) => Value::Null,
            other => other?,
        });
    }
    let mut answers = answers.into_iter();
    let mut next = || answers.next().unwrap_or(Value::Null);
    let (status, tree, usernet_text, blocks, nodes) = (next(), next(), next(), next(), next());
    let (target, kvm, uuid, cpus, memory, kind, pci) =
        (next(), next(), next(), next(), next(), next(), next());
    let tree = Tree::parse(tree.as_str().unwrap_or_default());
    let usernet_text = usernet_text.as_str().unwrap_or_default();
    let target = target["arch"].as_str().unwrap_or_default().to_owned();
    let none = BTreeMap::new();
    let known = facts.wrapped.as_ref().map_or(&none, |wrapped| &wrapped.files);
    let blocks = Blocks::new(&blocks, &nodes, &OpenFiles::of(facts.qemu_pid), known);
    let view = View { tree: &tree, blocks, from_start, usernet: usernet_text };
    let (machine, slots) = view.machine(arch(&target), kind.as_str().unwrap_or_default());
    let mut inventory = Inventory::new(&machine, slots);
    inventory.run_state = RunState::from_qmp(status["status"].as_str().unwrap_or_default());
    inventory.note_nodes(view.blocks.nodes());
    view.devices(&mut inventory);
    taken::fill(&mut inventory, &machine, &pci);
    inventory.forwards = usernet(usernet_text).into_iter().map(Bound::from).collect();
    let mac = tree.devices.iter().find_map(|dev| dev.properties.get("mac").cloned());
    Ok(Seen {
        files: view.blocks.files().clone(),
        networking: match (user_networks(usernet_text).is_empty(), &mac) {
            (false, _) => "user",
            (true, Some(_)) => "other",
            (true, None) => "none",
        },
        machine,
        inventory,
        uuid: uuid["UUID"].as_str().and_then(|text| text.parse().ok()),
        target,
        cpus: cpus.as_array().map_or(0, |all| u32::try_from(all.len()).unwrap_or(u32::MAX)),
        memory_bytes: ["base-memory", "plugged-memory"].iter().filter_map(|key| memory[*key].as_u64()).sum(),
        kvm: kvm["enabled"] == true,
        mac,
    })
}

struct View<'a> {
    tree: &'a Tree,
    blocks: Blocks<'a>,
    from_start: Option<&'a [String]>,
    usernet: &'a str,
}

impl View<'_> {
    /// What the machine's type and its buses decide.
    fn machine(&self, arch: Arch, kind: &str) -> (Machine, Slots) {
        let has_bus =
            |name: &str, kind: &str| self.tree.buses.iter().any(|bus| bus.name == name && bus.kind == kind);
        let (family, target, slots): (_, _, Vec<_>) = if has_bus("pcie.0", "PCIE") {
            let family = if arch == Arch::X86_64 { Family::Q35 } else { Family::Virt };
            (family, PlugTarget::Slots, self.root_ports().collect())
        } else if has_bus("pci.0", "PCI") {
            (Family::Pc, PlugTarget::Bus("pci.0"), self.pci_places())
        } else if has_bus("virtual-css", "virtual-css-bus") || arch == Arch::S390x {
            (Family::Ccw, PlugTarget::Direct, vec![("ccw".to_owned(), None); CCW_ROOM])
        } else {
            (Family::Microvm, PlugTarget::None, Vec::new())
        };
        let found = Found {
            usb_bus: self.usb_bus(),
            scsi_bus: self.scsi_bus(),
            netdev: user_networks(self.usernet).first().map(|name| (*name).to_owned()),
        };
        let kind = kind.strip_suffix("-machine").unwrap_or(kind);
        (Machine::found(arch, family, kind, found), Slots::found(target, slots))
    }

    /// Ports that take one device each while the VM runs. Those whose bus shares its name with another cannot be named.
    fn root_ports(&self) -> impl Iterator<Item = (String, Option<String>)> {
        // QEMU lists the last one first
        self.tree.buses.iter().enumerate().rev().filter_map(|(index, bus)| {
            let port = self.tree.devices.get(bus.parent?)?;
            let is_port = port.driver.ends_with("root-port") || port.driver == "xio3130-downstream";
            let can = port.properties.get("hotplug").is_none_or(|value| value == "true");
            (is_port && can && self.tree.is_unique(&bus.name))
                .then(|| (bus.name.clone(), self.tree.on(index).next().map(|dev| name_of(dev).to_owned())))
        })
    }

    /// The places of `pci.0`.
    fn pci_places(&self) -> Vec<(String, Option<String>)> {
        let Some(bus) = self.tree.buses.iter().position(|bus| bus.name == "pci.0") else { return Vec::new() };
        let mut places = BTreeMap::new();
        for dev in self.tree.on(bus) {
            let place = dev.properties.get("addr").and_then(|addr| addr.split('.').next());
            if let Some(place) = place.and_then(|place| u8::from_str_radix(place, 16).ok()) {
                places.entry(place).or_insert_with(|| name_of(dev).to_owned());
            }
        }
        (0..PCI_PLACES).map(|place| ("pci.0".to_owned(), places.remove(&place))).collect()
    }

    /// The bus that takes the fastest devices, of those that can be named.
    fn usb_bus(&self) -> Option<String> {
        let rank = |driver: &str| match driver {
            _ if driver.contains("xhci") => 0,
            _ if driver.contains("ehci") => 1,
            _ => 2,
        };
        let buses =
            self.tree.buses.iter().filter(|bus| bus.kind == "usb-bus" && self.tree.is_unique(&bus.name));
        let controllers = buses.filter_map(|bus| Some((self.tree.devices.get(bus.parent?)?, bus)));
        let best = controllers.min_by_key(|(controller, _)| rank(&controller.driver));
        best.map(|(_, bus)| bus.name.clone())
    }

    /// The bus of a virtio controller: others do not take disks while the VM runs, or a few only.
    fn scsi_bus(&self) -> Option<String> {
        let is_virtio =
            |dev: usize| self.tree.devices.get(dev).is_some_and(|dev| dev.driver.starts_with("virtio-scsi"));
        let mut buses =
            self.tree.buses.iter().filter(|bus| bus.kind == "SCSI" && self.tree.is_unique(&bus.name));
        buses.find(|bus| bus.parent.is_some_and(is_virtio)).map(|bus| bus.name.clone())
    }

    /// Everything that has an id, and disks, USB devices and network cards without one.
    fn devices(&self, inventory: &mut Inventory) {
        for (index, dev) in self.tree.devices.iter().enumerate() {
            let disk = self.disk(index);
            let is_usb = self.tree.bus_of(index).is_some_and(|bus| bus.kind == "usb-bus");
            let nic = if disk.is_none() && !is_usb { self.nic(index) } else { None };
            if dev.id.is_empty() && disk.is_none() && !is_usb && nic.is_none() {
                continue;
            }
            let name = match (&disk, &nic, dev.id.is_empty()) {
                (_, _, false) => dev.id.clone(),
                (Some((drive, _)), _, true) => drive.clone(),
                (None, Some(nic), true) => self.card_name(inventory, nic, &dev.driver),
                (None, None, true) => free_name(inventory, &dev.driver),
            };
            let Ok(id) = plain(&name).parse::<DeviceId>() else { continue };
            let kind = match disk {
                Some((drive, facts)) => self.disk_or_stick(dev, &drive, facts),
                None if is_usb => usb(dev),
                None if is_our_controller(dev) => Kind::Controller,
                None => nic.map_or(Kind::Other, Kind::Nic),
            };
            if dev.id.is_empty() {
                let path = self.path(index, &kind);
                inventory.anonymous.insert(id.to_string(), path);
            }
            let slot = self.tree.bus_of(index).map(|bus| bus.name.clone());
            let slot = slot.filter(|bus| inventory.slots.iter().any(|(name, _)| name == bus));
            inventory.insert(Entry {
                id,
                driver: dev.driver.clone(),
                slot,
                phase: Phase::Present,
                taken: None,
                kind,
            });
        }
    }

    /// The drive of a device, if it is a disk: its own, or its child's (the back half of virtio, the disk of a USB stick).
    fn disk(&self, index: usize) -> Option<(String, DiskFacts)> {
        let dev = self.tree.devices.get(index)?;
        let bus = disk_bus(&dev.driver)?;
        // the disk of a USB stick belongs to the stick
        let parent = self.tree.parent(index).and_then(|parent| self.tree.devices.get(parent));
        if parent.is_some_and(|parent| parent.driver == "usb-storage") {
            return None;
        }
        let property = |name| self.property(index, name);
        let drive = property("drive")?;
        let facts = self.blocks.facts(drive, bus, dev.driver.ends_with("-cd"), property("serial"));
        Some((drive.clone(), facts))
    }

    /// A property of a device that says something: its own, or its back half's, which is a device of its own in the tree (virtio).
    fn property(&self, index: usize, name: &str) -> Option<&String> {
        let children =
            self.tree.devices.iter().enumerate().filter(|(child, _)| self.tree.parent(*child) == Some(index));
        let mut halves = self.tree.devices.get(index).into_iter().chain(children.map(|(_, child)| child));
        halves.find_map(|dev| dev.properties.get(name).filter(|value| !value.is_empty()))
    }

    /// The name of a card without an id: that of its back-end, which stays the same when others plug more cards. Back-ends and devices
    /// have their ids apart, so a device may have it already.
    fn card_name(&self, inventory: &Inventory, nic: &NicFacts, driver: &str) -> String {
        let name = plain(&nic.netdev);
        let is_taken =
            inventory.device(&name).is_some() || self.tree.devices.iter().any(|dev| dev.id == name);
        if is_taken { free_name(inventory, driver) } else { name }
    }

    /// A network card, if it is one; whose back-end it is on tells its id.
    fn nic(&self, index: usize) -> Option<NicFacts> {
        let dev = self.tree.devices.get(index)?;
        let is_virtio = |dev: &Dev| dev.driver.starts_with("virtio-net-");
        let parent = self.tree.parent(index).and_then(|parent| self.tree.devices.get(parent));
        // the back half belongs to the card, and what has a card on its bus (a port, the host's bridge) is none
        if is_virtio(dev) && parent.is_some_and(is_virtio)
            || !is_virtio(dev) && !dev.properties.contains_key("netdev")
        {
            return None;
        }
        let netdev = self.property(index, "netdev")?;
        Some(NicFacts {
            network: user_networks(self.usernet).contains(&netdev.as_str()).then_some(Networking::User),
            interface: None,
            mac: self.property(index, "mac").and_then(|mac| mac.parse().ok()),
            link_up: true,
            foreign: *netdev != ids::netdev(&dev.id),
            netdev: netdev.clone(),
        })
    }

    /// Tells what vmrun has plugged in an earlier life from what others have.
    fn disk_or_stick(&self, dev: &Dev, drive: &str, facts: DiskFacts) -> Kind {
        let id = dev.id.as_str();
        let was_there = self.from_start.is_none_or(|all| all.iter().any(|other| other == id));
        let like_ours = self.blocks.has_node(id) && self.blocks.has_node(&format!("{id}.file"));
        let ours = !was_there && like_ours && [id, ""].contains(&facts.node.as_deref().unwrap_or(drive));
        let is_stick = dev.driver == "usb-storage"
            && dev.properties.get("removable").is_some_and(|value| value == "true");
        match ours && is_stick {
            true => Kind::Usb {
                description: format!("stick with {}", facts.file.as_deref().unwrap_or_default()),
                identity: facts.identity,
                file: facts.file,
            },
            false => Kind::Disk(DiskFacts { foreign: !ours, ..facts }),
        }
    }

    /// How QEMU is told of a device without an id, as far as it is needed: by the path of a drive, by the back-end of a card.
    fn path(&self, index: usize, kind: &Kind) -> String {
        if let Kind::Nic(nic) = kind {
            return nic.netdev.clone();
        }
        let drive = matches!(kind, Kind::Disk(_)).then(|| self.disk(index)).flatten();
        drive.and_then(|(drive, _)| self.blocks.device_path(&drive)).unwrap_or_default().to_owned()
    }
}

fn name_of(dev: &Dev) -> &str {
    if dev.id.is_empty() { &dev.driver } else { &dev.id }
}

/// A name that is an id: node names that QEMU makes up begin with `#`.
fn plain(name: &str) -> String {
    name.trim_start_matches('#').chars().take(26).collect()
}

fn free_name(inventory: &Inventory, driver: &str) -> String {
    let numbered = |number: u32| format!("{driver}.{number}");
    (0..).map(numbered).find(|name| inventory.device(name).is_none()).unwrap_or_default()
}

fn disk_bus(driver: &str) -> Option<DiskBus> {
    Some(match driver {
        "usb-storage" => DiskBus::Usb,
        "scsi-hd" | "scsi-cd" => DiskBus::Scsi,
        "ide-hd" | "ide-cd" => DiskBus::Sata,
        "nvme" => DiskBus::Nvme,
        // its back half is a device of its own in the tree
        "virtio-blk-device" => return None,
        _ if driver.starts_with("virtio-blk") => DiskBus::Virtio,
        _ => return None,
    })
}

/// What vmrun plugs when a device needs a controller.
fn is_our_controller(dev: &Dev) -> bool {
    (Controller::Usb.is_named(&dev.id) && dev.driver == "qemu-xhci")
        || (Controller::Scsi.is_named(&dev.id) && dev.driver.starts_with("virtio-scsi"))
}

fn usb(dev: &Dev) -> Kind {
    let told = dev.notes.iter().find_map(|note| note.split_once(", name ")?.1.split(',').next());
    Kind::Usb { description: told.unwrap_or(&dev.driver).to_owned(), file: None, identity: None }
}
