//! The inventory of one VM: its devices, forwards and reservations. Only the owner task changes it; a query that it can answer
//! needs no round trip to QEMU.

mod entry;
mod kind;

use std::collections::BTreeMap;

use crate::qemu::Machine;
use crate::qemu::ids::{self, Ids};
use crate::qemu::media::{medium_node, medium_number};
use crate::qemu::slots::Slots;
use crate::spec::{DeviceId, FileId, Forward, Limits, Subnet};

use super::run_state::RunState;
use super::status::Published;
use crate::vm::error::{ChangeError, ErrorKind};
pub use entry::{Bound, DiskFacts, Entry, NicFacts, Phase};
pub use kind::{DeviceKind, Kind};

/// How many letters of an id may differ for a suggestion.
const ALIKE: usize = 1;

/// The network cards among devices: the first one from the start, then the others in the order of their ids.
pub(in crate::vm) fn cards_first<'a>(
    devices: impl Iterator<Item = &'a Entry> + Clone,
) -> impl Iterator<Item = (&'a Entry, &'a NicFacts)> {
    let of = move |first: bool| {
        let of = devices.clone().filter(move |entry| (entry.id.as_str() == ids::NIC) == first);
        of.filter_map(|entry| Some((entry, entry.kind.nic()?)))
    };
    of(true).chain(of(false))
}

/// The inventory.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// Ids that are reserved for vmrun's own devices.
    ids: &'static Ids,
    /// QEMU's run state, from its events.
    pub run_state: RunState,
    /// The reason of that state, where it is not obvious.
    pub reason: Option<String>,
    devices: BTreeMap<DeviceId, Entry>,
    /// Forwards in the order they were made.
    pub forwards: Vec<Bound>,
    /// The slots and what is in them.
    pub slots: Slots,
    /// Devices without an id in QEMU: the id here, and the path in QEMU's object tree.
    pub anonymous: BTreeMap<String, String>,
    /// The lowest unused number of each prefix.
    counters: BTreeMap<&'static str, u32>,
    /// Prefix and number of ids that were generated for devices that are being added.
    automatic: BTreeMap<DeviceId, (&'static str, u32)>,
    /// The highest number of a medium that QEMU has, or had.
    media: u32,
}

impl Inventory {
    /// An empty inventory.
    pub fn new(machine: &Machine, slots: Slots) -> Self {
        Self {
            ids: machine.ids(),
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

    /// One device, mutable.
    pub fn device_mut(&mut self, id: &str) -> Option<&mut Entry> {
        self.devices.values_mut().find(|entry| entry.id.as_str() == id)
    }

    /// Adds a device; its id must be free (see [`Self::free_id`]).
    pub fn insert(&mut self, entry: Entry) {
        self.devices.insert(entry.id.clone(), entry);
    }

    /// A new, unused name for the block nodes of a medium.
    pub fn next_medium(&mut self) -> String {
        self.media = self.media.saturating_add(1);
        medium_node(self.media)
    }

    /// Records the names of the block nodes that QEMU has.
    pub fn note_nodes<'a>(&mut self, nodes: impl Iterator<Item = &'a str>) {
        self.media = nodes.filter_map(medium_number).fold(self.media, u32::max);
    }

    /// Commits a device that was being added: its id is not reused any more. `None` if it was not being added.
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

    /// Removes a device and frees its slot.
    pub fn remove(&mut self, id: &str) -> Option<Entry> {
        let key = self.device(id)?.id.clone();
        self.slots.release(id);
        self.automatic.remove(&key);
        self.devices.remove(&key)
    }

    /// The limits of the disks that have any.
    pub fn limits(&self) -> impl Iterator<Item = (&DeviceId, &Limits)> {
        let disks = self.devices().filter_map(|entry| Some((&entry.id, &entry.kind.disk()?.limits)));
        disks.filter(|(_, limits)| **limits != Limits::default())
    }

    /// Sets the size of a disk's medium in bytes.
    pub fn set_size(&mut self, node: &str, size_bytes: u64) {
        let disks = self.devices.values_mut().filter_map(|entry| entry.kind.disk_mut());
        for facts in disks.filter(|facts| facts.node.as_deref() == Some(node)) {
            facts.size_bytes = Some(size_bytes);
        }
    }

    /// The requested id if it is free, else the next free one of `prefix`. Numbers of removed devices are not reused, so that a
    /// script cannot mistake a new device for a removed one.
    pub fn free_id(
        &mut self,
        wanted: Option<DeviceId>,
        prefix: &'static str,
    ) -> Result<DeviceId, ChangeError> {
        if let Some(id) = wanted {
            let taken =
                |message| Err(ChangeError::new(ErrorKind::AlreadyThere { id: id.to_string() }, message));
            if self.devices.contains_key(&id) {
                return taken(format!("id '{id}' is taken"));
            }
            if self.ids.is_reserved(id.as_str()) {
                return taken(format!("id '{id}' is reserved for vmrun's own devices"))
                    .map_err(|error| error.hint("choose another"));
            }
            return Ok(id);
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
        self.ids.is_reserved(id.as_str()) || self.devices.contains_key(id)
    }

    /// Adds what was found in QEMU and is not known yet. Known devices stay as they are (except for the limits of disks), since
    /// they may be being added or removed. `remove_missing_forwards`: removes forwards that were not found.
    pub fn take_in(&mut self, found: Self, remove_missing_forwards: bool) {
        self.media = self.media.max(found.media);
        for (id, entry) in found.devices {
            if let Some(known) = self.devices.get_mut(&id) {
                if let (Some(known), Some(found)) = (known.kind.disk_mut(), entry.kind.disk()) {
                    known.limits = found.limits;
                }
            } else {
                if let Some(slot) = &entry.slot {
                    self.slots.restore(slot, id.as_str());
                }
                if let Some(path) = found.anonymous.get(id.as_str()) {
                    self.anonymous.insert(id.to_string(), path.clone());
                }
                self.devices.insert(id, entry);
            }
        }
        if remove_missing_forwards {
            self.forwards.retain(|forward| found.forwards.contains(forward));
        }
        for forward in found.forwards {
            if !self.forwards.contains(&forward) {
                self.forwards.push(forward);
            }
        }
    }

    /// The devices that have an id in QEMU, too: the names of the others can be others in the next run.
    pub fn named(&self) -> impl Iterator<Item = &Entry> {
        self.devices().filter(|entry| !self.anonymous.contains_key(entry.id.as_str()))
    }

    /// QEMU's name of a device.
    pub fn qemu_name<'a>(&'a self, id: &'a str) -> &'a str {
        self.anonymous.get(id).map_or(id, String::as_str)
    }

    /// Ids of the devices that are not being added or removed.
    pub fn present_ids(&self) -> Vec<DeviceId> {
        self.devices().filter(|entry| entry.phase == Phase::Present).map(|entry| entry.id.clone()).collect()
    }

    /// Replaces the inventory of a VM that can change from outside. `present`: the devices at the start of the look; those of them
    /// that were not found are removed.
    pub fn renew(&mut self, found: Self, present: &[DeviceId]) {
        let is_gone = |entry: &Entry| {
            entry.phase == Phase::Present
                && present.contains(&entry.id)
                && !found.devices.contains_key(&entry.id)
        };
        self.devices.retain(|_, entry| !is_gone(entry));
        self.slots = found.slots.clone();
        for entry in self.devices.values_mut() {
            // a device that is being added has its slot reserved already
            match (&entry.slot, self.slots.slot_of(entry.id.as_str())) {
                (Some(slot), None) => self.slots.restore(slot, entry.id.as_str()),
                (_, Some(slot)) => entry.slot = Some(slot.to_owned()),
                (None, None) => {}
            }
        }
        self.run_state = found.run_state;
        self.anonymous = found.anonymous.clone();
        for (id, entry) in &found.devices {
            let known = self.devices.get_mut(id).and_then(|entry| entry.kind.disk_mut());
            // the medium may have been changed from outside
            if let (Some(now), Some(known)) = (entry.kind.disk(), known.filter(|known| known.foreign)) {
                known.clone_from(now);
            }
        }
        self.take_in(found, true);
    }

    /// The disk or stick that uses this image.
    fn user_of_image(&self, identity: FileId) -> Option<&DeviceId> {
        let mut devices = self.devices.values();
        devices.find(|entry| entry.kind.image() == Some(identity)).map(|entry| &entry.id)
    }

    /// The network cards, the first one from the start first.
    pub fn nics(&self) -> impl Iterator<Item = (&Entry, &NicFacts)> {
        cards_first(self.devices())
    }

    /// The networks of the cards with user networking, by their ids.
    pub fn subnets(&self) -> Vec<(String, Subnet)> {
        self.nics().filter_map(|(entry, nic)| Some((entry.id.to_string(), nic.user()?.subnet()))).collect()
    }

    /// The back-end for new forwards: that of the first card with user networking that is not being removed.
    pub fn user_netdev(&self) -> Option<&str> {
        self.nics()
            .find(|(entry, nic)| entry.phase == Phase::Present && nic.user().is_some())
            .map(|(_, nic)| nic.netdev.as_str())
    }

    /// The back-end of the card that a forward names.
    pub fn user_netdev_of(&self, id: &str) -> Result<&str, ChangeError> {
        let Some((entry, nic)) = self.nics().find(|(entry, _)| entry.id.as_str() == id) else {
            return Err(self.no_such(DeviceKind::Nic, id));
        };
        if nic.user().is_none() {
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

    /// The forwards that a client has requested.
    pub fn requested_forwards(&self) -> impl Iterator<Item = &Bound> {
        self.forwards.iter().filter(|bound| !bound.is_probe())
    }

    /// A forward as `status` shows it.
    pub fn published(&self, bound: &Bound) -> Published {
        let nic = self.nics().find(|(_, nic)| nic.netdev == bound.netdev);
        Published { forward: bound.forward, nic: nic.map(|(entry, _)| entry.id.to_string()) }
    }

    /// The error for an unknown device, with a similar id as a suggestion.
    pub fn no_such(&self, kind: DeviceKind, id: &str) -> ChangeError {
        let alike = |entry: &Entry| strsim::damerau_levenshtein(entry.id.as_str(), id);
        let all: Vec<&Entry> = self.devices().filter(|entry| kind.fits(entry)).collect();
        let near = all.iter().min_by_key(|entry| alike(entry)).filter(|entry| alike(entry) <= ALIKE);
        let error = ChangeError::no_such(kind.label(), id);
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
    pub fn check_unused(&self, identity: Option<FileId>, shown: &str) -> Result<(), ChangeError> {
        let Some(user) = identity.and_then(|identity| self.user_of_image(identity)) else { return Ok(()) };
        let message = format!("{shown} is in use already, by '{user}'");
        Err(ChangeError::new(ErrorKind::AlreadyThere { id: user.to_string() }, message))
    }

    /// The forward that a new one would conflict with.
    pub fn conflicting_forward(&self, forward: &Forward) -> Option<&Forward> {
        self.forwards.iter().map(|bound| &bound.forward).find(|other| other.conflicts(forward))
    }
}
