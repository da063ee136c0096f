//! The books of one VM: what is plugged, forwarded, reserved. Only the owner task writes them;
//! every question that they can answer costs no round trip to QEMU.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::qemu::ids;
use crate::qemu::media::{Medium, medium_node, medium_number};
use crate::qemu::slots::Slots;
use crate::qmp::hmp::ForwardLine;
use crate::spec::{DeviceId, DiskBus, Forward, ImageFormat, Limits, MacAddress, Networking};

use super::error::{ChangeError, ErrorKind};
use super::state::RunState;
use super::status::Published;

/// How many letters of an id may be wrong for it to be recognised.
const ALIKE: usize = 1;

/// Where a device is on its way in or out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Reserved; QEMU has not confirmed it yet.
    Adding,
    /// In the machine.
    Present,
    /// The guest was asked to release it.
    Removing,
}

/// A device of the VM.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// QEMU's id of it.
    pub id: DeviceId,
    /// QEMU's device model.
    pub driver: String,
    /// The slot's name, where it is in one.
    pub slot: Option<String>,
    /// On its way in or out.
    pub phase: Phase,
    /// What it is.
    pub kind: Kind,
}

/// What a device is, with the facts of its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A USB device that is not a disk of `disk-add`.
    Usb {
        /// For people, e.g. `046d:c52b Logitech Unifying Receiver`.
        description: String,
        /// Its image, if it is a stick: its block nodes are deleted with it.
        file: Option<String>,
        /// Identity (device, inode) of that image.
        identity: Option<(u64, u64)>,
    },
    /// A disk or CD-ROM drive.
    Disk(DiskFacts),
    /// Anything else that was asked for by name.
    Other,
    /// A network card.
    Nic(NicFacts),
    /// Made by vmrun for others to be plugged into (USB or SCSI controller).
    Controller,
}

/// The facts of a network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicFacts {
    /// What it is connected to; none = something that was made by hand in QEMU's monitor.
    pub network: Option<Networking>,
    /// The host's interface behind it, where there is one and it is known.
    pub interface: Option<String>,
    /// Its address; none = it could not be made out.
    pub mac: Option<MacAddress>,
    /// QEMU's id of its back-end.
    pub netdev: String,
    /// Its cable is plugged.
    pub link_up: bool,
    /// The back-end is somebody else's: it stays when the card goes.
    pub foreign: bool,
}

impl NicFacts {
    /// The facts of a new card.
    pub fn new(id: &str, network: Networking, mac: MacAddress) -> Self {
        let interface = match &network {
            Networking::Tap(name) => Some(name.to_string()),
            _ => None,
        };
        Self {
            network: Some(network),
            interface,
            mac: Some(mac),
            netdev: ids::netdev(id),
            link_up: true,
            foreign: false,
        }
    }
}

/// A forward and the back-end that it hangs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The forward; its host port is not 0.
    pub forward: Forward,
    /// QEMU's id of the back-end.
    pub netdev: String,
}

impl Bound {
    /// Where the forward listens that a wait for a guest's port makes for itself: on Linux all of 127.0.0.0/8 is this machine, and
    /// nobody else uses this one. So it is told from what users have made, also by a supervisor that finds it in QEMU.
    pub const PROBE: Ipv4Addr =
        if cfg!(target_os = "linux") { Ipv4Addr::new(127, 118, 109, 114) } else { Ipv4Addr::LOCALHOST };

    /// Made by a wait for a guest's port, for as long as that takes: nobody is told of it.
    pub fn is_probe(&self) -> bool {
        self.forward.address == Self::PROBE && Self::PROBE != Ipv4Addr::LOCALHOST
    }
}

impl From<ForwardLine> for Bound {
    fn from(line: ForwardLine) -> Self {
        let ForwardLine { address, host_port: host, guest_port: guest, protocol, netdev, .. } = line;
        Self { forward: Forward { address, host, guest, protocol }, netdev }
    }
}

/// The facts of a disk or drive.
#[derive(Debug, Clone, PartialEq)]
pub struct DiskFacts {
    /// The image as text for people; none = a drive without a medium.
    pub file: Option<String>,
    /// The image's format.
    pub format: Option<ImageFormat>,
    /// How it is attached.
    pub bus: DiskBus,
    /// Virtual size in bytes, once known.
    pub size_bytes: Option<u64>,
    /// Attached read-only.
    pub readonly: bool,
    /// A CD-ROM drive.
    pub removable: bool,
    /// Shown to the guest.
    pub serial: Option<String>,
    /// Name of the medium's block nodes in QEMU; none = no medium.
    pub node: Option<String>,
    /// Identity (device, inode) of the image, to refuse a second use of it.
    pub identity: Option<(u64, u64)>,
    /// The medium's block nodes are somebody else's: they stay when the device or the medium goes.
    pub foreign: bool,
    /// What it may do per second.
    pub limits: Limits,
}

impl DiskFacts {
    /// What is in the drive.
    pub fn medium(&self) -> Option<Medium<'_>> {
        self.node.as_deref().map(|node| Medium { node, foreign: self.foreign })
    }

    /// The block nodes that go with the medium.
    pub fn own_node(&self) -> Option<&str> {
        self.node.as_deref().filter(|_| !self.foreign)
    }
}

/// The network cards among devices: the one from the start, then the others in the order of their ids.
pub(super) fn cards_first<'a>(
    devices: impl Iterator<Item = &'a Entry> + Clone,
) -> impl Iterator<Item = (&'a Entry, &'a NicFacts)> {
    let of = move |first: bool| {
        devices.clone().filter_map(move |entry| match &entry.kind {
            Kind::Nic(facts) if (entry.id.as_str() == ids::NIC) == first => Some((entry, facts)),
            _ => None,
        })
    };
    of(true).chain(of(false))
}

/// The books.
#[derive(Debug)]
pub struct Inventory {
    /// What QEMU does, from its events.
    pub run_state: RunState,
    /// Why it is in this state, where that is not obvious.
    pub reason: Option<String>,
    devices: BTreeMap<DeviceId, Entry>,
    /// Forwards in the order they were made.
    pub forwards: Vec<Bound>,
    /// The account of slots.
    pub slots: Slots,
    /// Devices without an id of their own in QEMU, by the one that they have here, with their path in QEMU's object tree.
    pub anonymous: BTreeMap<String, String>,
    /// Below which number those of a prefix are used up.
    counters: BTreeMap<&'static str, u32>,
    /// Prefix and number of the ids that were made for devices on their way in.
    automatic: BTreeMap<DeviceId, (&'static str, u32)>,
    /// The highest number of a medium that QEMU has, or had.
    media: u32,
}

impl Inventory {
    /// Empty books.
    pub fn new(slots: Slots) -> Self {
        Self {
            run_state: RunState::Starting,
            reason: None,
            devices: BTreeMap::new(),
            forwards: Vec::new(),
            slots,
            anonymous: BTreeMap::new(),
            counters: BTreeMap::new(),
            automatic: BTreeMap::new(),
            media: 0,
        }
    }

    /// All devices, in the order of their ids.
    pub fn devices(&self) -> impl Iterator<Item = &Entry> + Clone {
        self.devices.values()
    }

    /// One device.
    pub fn device(&self, id: &str) -> Option<&Entry> {
        self.devices.values().find(|entry| entry.id.as_str() == id)
    }

    /// One device, to be changed.
    pub fn device_mut(&mut self, id: &str) -> Option<&mut Entry> {
        self.devices.values_mut().find(|entry| entry.id.as_str() == id)
    }

    /// Books a device; its id must be free (see [`Self::free_id`]).
    pub fn insert(&mut self, entry: Entry) {
        self.devices.insert(entry.id.clone(), entry);
    }

    /// A name for the block nodes of another medium, which no other has or had.
    pub fn next_medium(&mut self) -> String {
        self.media = self.media.saturating_add(1);
        medium_node(self.media)
    }

    /// Takes note of the block nodes that QEMU has.
    pub fn note_nodes<'a>(&mut self, nodes: impl Iterator<Item = &'a str>) {
        self.media = nodes.filter_map(medium_number).fold(self.media, u32::max);
    }

    /// A device on its way in is there: nobody else gets its id any more. None if it was not on its way in.
    pub fn commit(&mut self, id: &str) -> Option<&Entry> {
        let key = self.device(id).filter(|entry| entry.phase == Phase::Adding)?.id.clone();
        if let Some((prefix, number)) = self.automatic.remove(&key) {
            let next = self.counters.entry(prefix).or_insert(0);
            *next = (*next).max(number.saturating_add(1));
        }
        let entry = self.device_mut(id)?;
        entry.phase = Phase::Present;
        Some(entry)
    }

    /// Strikes a device off and frees its slot.
    pub fn remove(&mut self, id: &str) -> Option<Entry> {
        let key = self.device(id)?.id.clone();
        self.slots.release(id);
        self.automatic.remove(&key);
        self.devices.remove(&key)
    }

    /// A disk's medium has this many bytes now.
    pub fn set_size(&mut self, node: &str, size_bytes: u64) {
        for entry in self.devices.values_mut() {
            if let Kind::Disk(facts) = &mut entry.kind
                && facts.node.as_deref() == Some(node)
            {
                facts.size_bytes = Some(size_bytes);
            }
        }
    }

    /// The id asked for if it is free, else the next free one of `prefix`. Numbers of devices that were there are not used
    /// twice, so that a script cannot mistake a new device for one that it has removed.
    pub fn free_id(
        &mut self,
        wanted: Option<DeviceId>,
        prefix: &'static str,
    ) -> Result<DeviceId, ChangeError> {
        if let Some(id) = wanted {
            return match self.is_taken(&id) {
                true => Err(ChangeError::new(
                    ErrorKind::AlreadyThere { id: id.to_string() },
                    format!("id '{id}' is taken"),
                )),
                false => Ok(id),
            };
        }
        let first = self.counters.get(prefix).copied().unwrap_or(0);
        for number in first.. {
            let id = format!("{prefix}{number}").parse();
            let id: DeviceId = id.map_err(|error| ChangeError::invalid("id", error))?;
            if !self.is_taken(&id) {
                self.automatic.insert(id.clone(), (prefix, number));
                return Ok(id);
            }
        }
        Err(ChangeError::invalid("id", "there are no more numbers"))
    }

    fn is_taken(&self, id: &DeviceId) -> bool {
        ids::is_reserved(id.as_str()) || self.devices.contains_key(id)
    }

    /// Takes in what was found in QEMU and is not known yet; what is known stays as it is (but for the limits of disks), since it
    /// may be on its way in or out.
    /// `forwards_went`: forwards that were not found are gone.
    pub fn take_in(&mut self, found: Self, forwards_went: bool) {
        self.media = self.media.max(found.media);
        for (id, entry) in found.devices {
            if let Some(known) = self.devices.get_mut(&id) {
                if let (Kind::Disk(known), Kind::Disk(found)) = (&mut known.kind, &entry.kind) {
                    known.limits = found.limits;
                }
            } else {
                if let Some(slot) = &entry.slot {
                    self.slots.restore(slot, id.as_str());
                }
                self.devices.insert(id, entry);
            }
        }
        if forwards_went {
            self.forwards.retain(|forward| found.forwards.contains(forward));
        }
        for forward in found.forwards {
            if !self.forwards.contains(&forward) {
                self.forwards.push(forward);
            }
        }
    }

    /// How QEMU is told of a device.
    pub fn qemu_name<'a>(&'a self, id: &'a str) -> &'a str {
        self.anonymous.get(id).map_or(id, String::as_str)
    }

    /// Ids of the devices that are neither on their way in nor out.
    pub fn settled(&self) -> BTreeSet<DeviceId> {
        self.devices().filter(|entry| entry.phase == Phase::Present).map(|entry| entry.id.clone()).collect()
    }

    /// Takes in what was found in a VM that others change, too, without telling. `settled`: what was there when the look began; of
    /// that, what was not found is gone.
    pub fn renew(&mut self, found: Self, settled: &BTreeSet<DeviceId>) {
        let is_gone = |entry: &Entry| {
            entry.phase == Phase::Present
                && settled.contains(&entry.id)
                && !found.devices.contains_key(&entry.id)
        };
        self.devices.retain(|_, entry| !is_gone(entry));
        self.slots = found.slots.clone();
        for entry in self.devices.values_mut() {
            // what is on its way in has its place already
            match (&entry.slot, self.slots.slot_of(entry.id.as_str())) {
                (Some(slot), None) => self.slots.restore(slot, entry.id.as_str()),
                (_, Some(slot)) => entry.slot = Some(slot.to_owned()),
                (None, None) => {}
            }
        }
        self.run_state = found.run_state;
        self.anonymous = found.anonymous.clone();
        for (id, entry) in &found.devices {
            if let (Kind::Disk(now), Some(Entry { kind: Kind::Disk(known), .. })) =
                (&entry.kind, self.devices.get_mut(id))
            {
                // somebody else may have changed the medium
                if known.foreign {
                    known.clone_from(now);
                }
            }
        }
        self.take_in(found, true);
    }

    /// The disk or stick that uses this image already.
    fn user_of_image(&self, identity: (u64, u64)) -> Option<&DeviceId> {
        self.devices.values().find_map(|entry| match &entry.kind {
            Kind::Disk(DiskFacts { identity: used, .. }) | Kind::Usb { identity: used, .. } => {
                (*used == Some(identity)).then_some(&entry.id)
            }
            Kind::Nic(_) | Kind::Other | Kind::Controller => None,
        })
    }

    /// The network cards, in the order in which people think of them: the one from the start first.
    pub fn nics(&self) -> impl Iterator<Item = (&Entry, &NicFacts)> {
        cards_first(self.devices())
    }

    /// The back-end that a forward is hung on: of the first card with user networking that is to stay.
    pub fn user_netdev(&self) -> Option<&str> {
        self.nics()
            .find(|(entry, nic)| entry.phase == Phase::Present && nic.network == Some(Networking::User))
            .map(|(_, nic)| nic.netdev.as_str())
    }

    /// The back-end of the card that is named for a forward.
    pub fn user_netdev_of(&self, id: &str) -> Result<&str, ChangeError> {
        let is_nic = |entry: &Entry| matches!(entry.kind, Kind::Nic(_));
        let Some((entry, nic)) = self.nics().find(|(entry, _)| entry.id.as_str() == id) else {
            return Err(self.no_such("network card", id, is_nic));
        };
        if nic.network != Some(Networking::User) {
            let error = ChangeError::unsupported(format!("network card '{id}' is not on user networking"));
            return Err(error.hint("only user networking has forwards"));
        }
        let state = match entry.phase {
            Phase::Present => return Ok(&nic.netdev),
            Phase::Adding => "adding",
            Phase::Removing => "removing",
        };
        let kind = ErrorKind::NotNow { state: state.to_owned() };
        Err(ChangeError::new(kind, format!("network card '{id}' is {state}")))
    }

    /// The forwards that somebody has asked for.
    pub fn forwards_asked_for(&self) -> impl Iterator<Item = &Bound> {
        self.forwards.iter().filter(|bound| !bound.is_probe())
    }

    /// A forward as people are told of it.
    pub fn published(&self, bound: &Bound) -> Published {
        let nic = self.nics().find(|(_, nic)| nic.netdev == bound.netdev);
        Published { forward: bound.forward, nic: nic.map(|(entry, _)| entry.id.to_string()) }
    }

    /// There is no such device; with what was probably meant instead.
    pub fn no_such(&self, what: &str, id: &str, fits: impl Fn(&Entry) -> bool) -> ChangeError {
        let alike = |entry: &Entry| strsim::damerau_levenshtein(entry.id.as_str(), id);
        let all: Vec<&Entry> = self.devices().filter(|entry| fits(entry)).collect();
        let near = all.iter().min_by_key(|entry| alike(entry)).filter(|entry| alike(entry) <= ALIKE);
        let error = ChangeError::no_such(what, id);
        match near {
            Some(near) => error.hint(format!("did you mean '{}'?", near.id)),
            None if all.is_empty() => error,
            None => {
                let ids: Vec<&str> = all.iter().map(|entry| entry.id.as_str()).collect();
                error.hint(format!("it has {}", ids.join(", ")))
            }
        }
    }

    /// Refuses a second use of an image: two writers would corrupt it.
    pub fn check_unused(&self, identity: (u64, u64), shown: &str) -> Result<(), ChangeError> {
        let Some(user) = self.user_of_image(identity) else { return Ok(()) };
        let message = format!("{shown} is in use already, by '{user}'");
        Err(ChangeError::new(ErrorKind::AlreadyThere { id: user.to_string() }, message))
    }

    /// The forward that a new one would collide with.
    pub fn conflicting_forward(&self, forward: &Forward) -> Option<&Forward> {
        self.forwards.iter().map(|bound| &bound.forward).find(|other| other.conflicts(forward))
    }
}
