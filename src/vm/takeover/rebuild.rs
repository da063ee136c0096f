//! The books of a VM that was taken over, rebuilt from what QEMU says.

mod drives;
mod networks;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::qemu::block::{backing_file_node, file_node};
use crate::qemu::disk_options::disk_of_iothread;
use crate::qemu::ids::{self, Ids};
use crate::qemu::media::{medium_node, medium_number};
use crate::qemu::pci;
use crate::qemu::plan::{remove_image, remove_iothread};
use crate::qemu::{Command, Machine, Slots};
use crate::qmp::hmp::usernet;
use crate::qmp::{CommandError, Session};
use crate::spec::{DeviceId, DiskBus, DiskOptions, FileId, Limits, VmSpec};

use crate::vm::changes::taken;
use crate::vm::state::images::overlay_name;
use crate::vm::state::inventory::{Bound, DiskFacts, Entry, Inventory, Kind, Phase};
use crate::vm::state::journal::Pending;
use crate::vm::state::opened::{Files, ImageNodes};
use crate::vm::state::run_state::RunState;
use drives::device_of;
use networks::Networks;

pub(in crate::vm) use drives::{drive_of, fill_options, limits_of};

/// What is there from the start and is nobody's to change.
fn is_fixture(ids: &Ids, id: &str) -> bool {
    ids.is_reserved(id) && ![ids::NIC, ids.usb, ids.scsi, ids::BOOT_CD, ids::METADATA_CD].contains(&id)
}

/// Asks QEMU for everything, finishes or takes back what was half-done, and returns the books.
pub(in crate::vm) async fn rebuild(
    session: &Session,
    files: Files,
    spec: &VmSpec,
    pending: &Pending,
) -> Result<Inventory, CommandError> {
    let Found { mut inventory, nodes, present, in_use } = devices(session, files, spec, pending).await?;
    for id in &pending.removing {
        if let Some(entry) = inventory.device_mut(id) {
            entry.phase = Phase::Removing;
        }
    }
    take_back(session, pending, &present, &nodes, &in_use).await;
    networks::take_back(session, pending, &present, &mut inventory).await;
    networks::end_probes(session, &mut inventory).await;
    inventory.run_state = run_state(session).await?;
    inventory.reason = match inventory.run_state {
        RunState::IoError => io_error(session).await,
        RunState::Panicked => Some("the guest's kernel panicked".to_owned()),
        _ => None,
    };
    Ok(inventory)
}

/// Asks QEMU for devices and forwards, and changes nothing.
pub(in crate::vm) async fn look(
    session: &Session,
    files: Files,
    spec: &VmSpec,
    pending: &Pending,
) -> Result<Inventory, CommandError> {
    Ok(devices(session, files, spec, pending).await?.inventory)
}

struct Found {
    inventory: Inventory,
    nodes: Nodes,
    /// Ids of all devices, fixtures too.
    present: Vec<String>,
    /// Block nodes that are media of drives.
    in_use: Vec<String>,
}

async fn devices(
    session: &Session,
    files: Files,
    spec: &VmSpec,
    pending: &Pending,
) -> Result<Found, CommandError> {
    let machine = Machine::of(spec);
    let mut inventory = Inventory::new(&machine, Slots::of(&machine, spec));
    let images = images_of(spec, &pending.images);
    let nodes = Nodes::query(session, files, &images).await?;
    inventory.note_nodes(nodes.0.keys().map(String::as_str));
    let networks = Networks::query(session, &pending.cards).await?;
    let blocks = session.run(&Command::new("query-block", Value::Null)).await?;
    let folder = files.folder();
    let mut present = Vec::new();
    let mut in_use = Vec::new();
    for (id, driver) in peripherals(session).await? {
        present.push(id.clone());
        let Ok(device) = id.parse::<DeviceId>() else { continue };
        if is_fixture(machine.ids(), &id) {
            continue;
        }
        let asked = Asked { session, id: &id, ids: machine.ids() };
        let slot = slot(&asked.text("parent_bus").await);
        if let Some(slot) = &slot {
            inventory.slots.restore(slot, &id);
        }
        let mut kind = kind(&asked, &driver, &nodes, &networks).await;
        if let Kind::Disk(facts) = &mut kind {
            if let Some(drive) = drive_of(&blocks, &id) {
                let is_ours =
                    |node: &str| node == id || images.contains_key(node) || machine.ids().is_reserved(node);
                drives::complete(facts, drive, &folder, is_ours);
                facts.limits = limits_of(drive);
            }
            in_use.extend(facts.node.clone());
        }
        let slot = inventory.slots.slot_of(&id).map(str::to_owned);
        inventory.insert(Entry { id: device, driver, slot, phase: Phase::Present, taken: None, kind });
    }
    if machine.has_pci() {
        taken::fill(&mut inventory, &machine, &session.run(&pci::query()).await?);
    }
    inventory.forwards = usernet(&session.hmp("info usernet").await?).into_iter().map(Bound::from).collect();
    Ok(Found { inventory, nodes, present, in_use })
}

/// Ids and device models of everything that has an id.
pub(in crate::vm) async fn peripherals(session: &Session) -> Result<Vec<(String, String)>, CommandError> {
    let list = session.run(&Command::new("qom-list", json!({ "path": "/machine/peripheral" }))).await?;
    let entry = |item: &Value| {
        let kind = item["type"].as_str()?.strip_prefix("child<")?.strip_suffix('>')?;
        Some((item["name"].as_str()?.to_owned(), kind.to_owned()))
    };
    Ok(list.as_array().into_iter().flatten().filter_map(entry).collect())
}

struct Asked<'a> {
    session: &'a Session,
    id: &'a str,
    ids: &'static Ids,
}

impl Asked<'_> {
    /// A property; null if the device has none of this name.
    async fn property(&self, name: &str) -> Value {
        let path = format!("/machine/peripheral/{}", self.id);
        let get = Command::new("qom-get", json!({ "path": path, "property": name }));
        self.session.run(&get).await.unwrap_or(Value::Null)
    }

    async fn text(&self, name: &str) -> String {
        self.property(name).await.as_str().unwrap_or_default().to_owned()
    }
}

/// The slot in the path of a bus such as `/machine/peripheral/slot3/slot3`.
fn slot(bus: &str) -> Option<String> {
    let port = bus.strip_prefix("/machine/peripheral/")?.split('/').next()?;
    port.starts_with("slot").then(|| port.to_owned())
}

async fn kind(asked: &Asked<'_>, driver: &str, nodes: &Nodes, networks: &Networks<'_>) -> Kind {
    let stick = driver == "usb-storage" && asked.property("removable").await == json!(true);
    let bus = match driver {
        _ if stick => None,
        "usb-storage" => Some(DiskBus::Usb),
        "scsi-hd" | "scsi-cd" => Some(DiskBus::Scsi),
        "ide-hd" | "ide-cd" => Some(DiskBus::Sata),
        "nvme" => Some(DiskBus::Nvme),
        _ if driver.starts_with("virtio-blk") => Some(DiskBus::Virtio),
        _ => None,
    };
    if let Some(bus) = bus {
        let mut serial = asked.text("serial").await;
        if bus == DiskBus::Sata && is_default_serial(&serial) {
            serial.clear();
        }
        // usb-storage has handed its drive on to a disk of its own, which has no id
        let drive = if bus == DiskBus::Usb { asked.id.to_owned() } else { asked.text("drive").await };
        return disk(nodes, &drive, bus, driver.ends_with("-cd"), serial);
    }
    match driver {
        "usb-storage" => {
            let node = nodes.0.get(asked.id);
            let file = node.map(|node| node.shown.clone()).unwrap_or_default();
            Kind::Usb {
                description: format!("stick with {file}"),
                file: Some(file),
                identity: node.and_then(|node| node.identity),
            }
        }
        "usb-host" => {
            let (bus, address) = (asked.property("hostbus").await, asked.property("hostaddr").await);
            Kind::Usb { description: format!("host device {bus}.{address}"), file: None, identity: None }
        }
        _ if driver.starts_with("usb-") => {
            Kind::Usb { description: driver.to_owned(), file: None, identity: None }
        }
        _ if asked.id == asked.ids.usb || asked.id == asked.ids.scsi => Kind::Controller,
        _ => match asked.text("netdev").await {
            netdev if netdev.is_empty() => Kind::Other,
            netdev => Kind::Nic(networks.nic(asked.id, netdev, asked.text("mac").await.parse().ok())),
        },
    }
}

/// QEMU gives an IDE drive `QM00001` and so on when nobody says otherwise (`ide_init_drive` in hw/ide/core.c).
fn is_default_serial(serial: &str) -> bool {
    serial
        .strip_prefix("QM")
        .is_some_and(|number| number.len() == 5 && number.bytes().all(|b| b.is_ascii_digit()))
}

fn disk(nodes: &Nodes, drive: &str, bus: DiskBus, removable: bool, serial: String) -> Kind {
    let node = nodes.0.get(drive);
    let identity = node.and_then(|node| node.identity);
    Kind::Disk(DiskFacts {
        file: node.map(|node| node.shown.clone()),
        format: node.and_then(|node| node.driver.parse().ok()),
        bus,
        size_bytes: node.and_then(|node| node.size),
        readonly: node.map_or(removable, |node| node.readonly),
        removable,
        serial: Some(serial).filter(|serial| !serial.is_empty()),
        node: node.map(|_| drive.to_owned()),
        identity: identity.filter(|_| !removable),
        foreign: false,
        limits: Limits::default(),
        options: DiskOptions::default(),
    })
}

/// The images that vmrun has given to QEMU, by the names of their nodes: those from the start, and those that came since.
pub(in crate::vm) fn images_of(spec: &VmSpec, since: &ImageNodes) -> ImageNodes {
    let first = spec.disks.iter().map(|disk| (disk.id.to_string(), disk.image.clone()));
    let mut images: ImageNodes = first.collect();
    images.extend(since.iter().map(|(node, image)| (node.clone(), image.clone())));
    images
}

struct Node {
    driver: String,
    /// The image that a user knows of: below an ephemeral VM's overlay is his.
    shown: String,
    /// Which file that is.
    identity: Option<FileId>,
    readonly: bool,
    size: Option<u64>,
}

/// All named block nodes.
struct Nodes(BTreeMap<String, Node>);

impl Nodes {
    async fn query(session: &Session, files: Files, images: &ImageNodes) -> Result<Self, CommandError> {
        let list = session.run(&Command::new("query-named-block-nodes", json!({ "flat": true }))).await?;
        let open = files.open();
        let items = || list.as_array().into_iter().flatten();
        let file_of = |name: &str| items().find(|item| item["node-name"] == *name)?["file"].as_str();
        let node = |item: &Value| {
            let name = item["node-name"].as_str()?;
            // that of the format is JSON where the image has others under it
            let own = file_of(&file_node(name)).or(item["file"].as_str()).unwrap_or_default();
            let is_overlay = Path::new(own).file_name().is_some_and(|file| *file == *overlay_name(name));
            let below = file_of(&backing_file_node(name)).filter(|_| is_overlay);
            let image = images.get(name);
            let image = if is_overlay { image.and_then(|image| image.backing.as_deref()) } else { image };
            let shown = below.unwrap_or(own);
            let node = Node {
                driver: item["drv"].as_str()?.to_owned(),
                shown: shown.to_owned(),
                // of what nobody has noted: as its name says, if that is open
                identity: image.map_or_else(|| open.named(shown), |image| image.identity),
                readonly: item["ro"].as_bool().unwrap_or(false),
                size: item["image"]["virtual-size"].as_u64(),
            };
            Some((name.to_owned(), node))
        };
        let mut nodes = BTreeMap::new();
        nodes.extend(items().filter_map(node));
        Ok(Self(nodes))
    }

    /// Whether any of the two nodes of an image is there.
    fn has_image(&self, id: &str) -> bool {
        self.0.contains_key(id) || self.0.contains_key(&file_node(id))
    }
}

/// What a new supervisor finishes or takes back in a VM that somebody else has put together.
pub(in crate::vm) async fn tidy(
    session: &Session,
    files: Files,
    pending: &Pending,
    inventory: &mut Inventory,
) -> Result<(), CommandError> {
    let nodes = Nodes::query(session, files, &pending.images).await?;
    let present: Vec<String> = inventory.devices().map(|entry| entry.id.to_string()).collect();
    let media = inventory.devices().filter_map(|entry| match &entry.kind {
        Kind::Disk(facts) => facts.node.clone(),
        _ => None,
    });
    let in_use: Vec<String> = media.collect();
    for id in &pending.removing {
        if let Some(entry) = inventory.device_mut(id) {
            entry.phase = Phase::Removing;
        }
    }
    take_back(session, pending, &present, &nodes, &in_use).await;
    networks::end_probes(session, inventory).await;
    Ok(())
}

/// Closes the images of changes that were not finished, and removes those that they made.
async fn take_back(
    session: &Session,
    pending: &Pending,
    present: &[String],
    nodes: &Nodes,
    in_use: &[String],
) {
    let orphaned_media = nodes.0.keys().filter(|name| {
        medium_number(name).map(medium_node).as_ref() == Some(*name) && !in_use.contains(*name)
    });
    let half_done = pending.adding.keys().chain(&pending.removing).chain(orphaned_media);
    for id in half_done.filter(|id| !present.contains(*id)) {
        if nodes.has_image(id) {
            log::info!("closing the image of '{id}', whose change was not finished");
            for step in remove_image(id) {
                let name = step.command.arguments["node-name"].as_str().unwrap_or_default().to_owned();
                if nodes.0.contains_key(&name) {
                    // the next supervisor would try again
                    let _ = session.run(&step.command).await;
                }
            }
        }
        if let Some(Some(made)) = pending.adding.get(id) {
            made.remove();
        }
    }
    end_threads(session, present).await;
}

/// Ends the I/O threads of disks that are not there (any more).
async fn end_threads(session: &Session, present: &[String]) {
    let threads = session.run(&Command::new("query-iothreads", Value::Null)).await.unwrap_or_default();
    let of_disk = |thread: &Value| disk_of_iothread(thread["id"].as_str()?).map(str::to_owned);
    for disk in threads.as_array().into_iter().flatten().filter_map(of_disk) {
        if !present.contains(&disk) {
            for step in remove_iothread(&disk) {
                // the next supervisor would try again
                let _ = session.run(&step.command).await;
            }
        }
    }
}

pub(in crate::vm) async fn run_state(session: &Session) -> Result<RunState, CommandError> {
    let status = session.run(&Command::new("query-status", Value::Null)).await?;
    Ok(RunState::from_qmp(status["status"].as_str().unwrap_or_default()))
}

/// Which disk has stopped the VM, and why.
async fn io_error(session: &Session) -> Option<String> {
    let list = session.run(&Command::new("query-block", Value::Null)).await.ok()?;
    list.as_array()?.iter().find_map(|block| {
        let id = device_of(block["qdev"].as_str()?)?;
        match block["io-status"].as_str()? {
            "nospace" => Some(format!("no space left on the host for '{id}'")),
            "failed" => Some(format!("'{id}' has an I/O error")),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_found_in_the_path_of_a_bus() {
        assert_eq!(slot("/machine/peripheral/slot3/slot3").as_deref(), Some("slot3"));
        assert_eq!(slot("/machine/q35/pcihost/pcie.0"), None);
        assert_eq!(slot("/machine/peripheral/usb0/usb0.0"), None);
    }
}
