//! The books of one VM: what is plugged, forwarded, reserved. Only the owner task writes them;
//! every question that they can answer costs no round trip to QEMU.

mod entry;

use std::collections::BTreeMap;

use crate::qemu::Machine;
use crate::qemu::ids::{self, Ids};
use crate::qemu::media::{medium_node, medium_number};
use crate::qemu::slots::Slots;
use crate::spec::{DeviceId, FileId, Forward, Limits, Subnet};

use super::run_state::RunState;
use super::status::Published;
use crate::vm::error::{ChangeError, ErrorKind};
pub use entry::{Bound, DiskFacts, Entry, Kind, NicFacts, Phase};

/// How many letters of an id may be wrong for it to be recognised.
const ALIKE: usize = 1;

/// The network cards among devices: the one from the start, then the others in the order of their ids.
pub(in crate::vm) fn cards_first<'a>(
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
#[derive(Debug, Clone)]
pub struct Inventory {
    /// Which are kept for vmrun's own.
    ids: &'static Ids,
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

    /// The limits of the disks that have any.
    pub fn limits(&self) -> impl Iterator<Item = (&DeviceId, &Limits)> {
        self.devices().filter_map(|entry| match &entry.kind {
            Kind::Disk(facts) if facts.limits != Limits::default() => Some((&entry.id, &facts.limits)),
            _ => None,
        })
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

    /// Takes in what was found in QEMU and is not known yet; what is known stays as it is (but for the limits of disks), since it
    /// may be on its way in or out.
    /// `forwards_went`: forwards that were not found are gone.
    pub fn take_in(&mut self, found: Self, remove_missing_forwards: bool) {
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
        if remove_missing_forwards {
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
    pub fn present_ids(&self) -> Vec<DeviceId> {
        self.devices().filter(|entry| entry.phase == Phase::Present).map(|entry| entry.id.clone()).collect()
    }

    /// Takes in what was found in a VM that others change, too, without telling. `settled`: what was there when the look began; of
    /// that, what was not found is gone.
    pub fn renew(&mut self, found: Self, present: &[DeviceId]) {
        let is_gone = |entry: &Entry| {
            entry.phase == Phase::Present
                && present.contains(&entry.id)
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
    fn user_of_image(&self, identity: FileId) -> Option<&DeviceId> {
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

    /// The networks of the cards with user networking, by their ids.
    pub fn subnets(&self) -> Vec<(String, Subnet)> {
        self.nics().filter_map(|(entry, nic)| Some((entry.id.to_string(), nic.user()?.subnet()))).collect()
    }

    /// The back-end that a forward is hung on: of the first card with user networking that is to stay.
    pub fn user_netdev(&self) -> Option<&str> {
        self.nics()
            .find(|(entry, nic)| entry.phase == Phase::Present && nic.user().is_some())
            .map(|(_, nic)| nic.netdev.as_str())
    }

    /// The back-end of the card that is named for a forward.
    pub fn user_netdev_of(&self, id: &str) -> Result<&str, ChangeError> {
        let is_nic = |entry: &Entry| matches!(entry.kind, Kind::Nic(_));
        let Some((entry, nic)) = self.nics().find(|(entry, _)| entry.id.as_str() == id) else {
            return Err(self.no_such("network card", id, is_nic));
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

    /// The forwards that somebody has asked for.
    pub fn requested_forwards(&self) -> impl Iterator<Item = &Bound> {
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
    pub fn check_unused(&self, identity: Option<FileId>, shown: &str) -> Result<(), ChangeError> {
        let Some(user) = identity.and_then(|identity| self.user_of_image(identity)) else { return Ok(()) };
        let message = format!("{shown} is in use already, by '{user}'");
        Err(ChangeError::new(ErrorKind::AlreadyThere { id: user.to_string() }, message))
    }

    /// The forward that a new one would collide with.
    pub fn conflicting_forward(&self, forward: &Forward) -> Option<&Forward> {
        self.forwards.iter().map(|bound| &bound.forward).find(|other| other.conflicts(forward))
    }
}
