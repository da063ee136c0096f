//! The account of slots. QEMU's own refusal cannot be relied on: before the guest runs, a second device on a busy root port is accepted in silence.

use thiserror::Error;

use super::{Machine, PlugTarget};
use crate::spec::VmSpec;

/// Root ports that fit: eight functions in each of eight slots of the root bus.
pub const MAX_SLOTS: u8 = 64;
/// What `pci.0` is taken to have room for: 32 slots less the board's own and the cold-plugged.
const PCI_ROOM: usize = 20;
/// The channel subsystem has room for 65,536 devices; a list of them all would be of no use.
const CCW_ROOM: usize = 200;

/// Nothing more can be plugged in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoSlot {
    /// All are taken.
    #[error("all {total} hot-plug slots are in use")]
    Full {
        /// How many there are.
        total: usize,
    },
    /// The VM was started without any.
    #[error("the VM has no hot-plug slots")]
    NoneSpare,
    /// The machine takes nothing while it runs.
    #[error("this type of machine cannot take devices while it runs")]
    NotPluggable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    name: String,
    device: Option<String>,
}

/// Which slot holds which device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    target: PlugTarget,
    slots: Vec<Slot>,
}

impl Slots {
    /// The slots of a VM as it starts: all free but those that a device of the description names as its bus.
    pub fn of(machine: &Machine, spec: &VmSpec) -> Self {
        let target = machine.plug_target();
        let names = match target {
            PlugTarget::Slots => machine.slot_names(spec),
            PlugTarget::Bus(bus) => vec![bus.to_owned(); PCI_ROOM],
            PlugTarget::Direct => vec!["ccw".to_owned(); CCW_ROOM],
            PlugTarget::None => Vec::new(),
        };
        let slots = names.into_iter().map(|name| Slot { name, device: None }).collect();
        let mut account = Self { target, slots };
        if target == PlugTarget::Slots {
            for device in &spec.devices {
                if let Some(bus) = device.properties.get("bus").and_then(|bus| bus.as_str()) {
                    account.restore(bus, device.id.as_str());
                }
            }
        }
        account
    }

    /// The slots of a machine that was looked at: the names of the buses, and what is in them.
    pub fn found(target: PlugTarget, slots: impl IntoIterator<Item = (String, Option<String>)>) -> Self {
        let slots = slots.into_iter().map(|(name, device)| Slot { name, device }).collect();
        Self { target, slots }
    }

    /// Takes a slot for a device. The answer is the `bus` to plug it into; none means that no bus may be named.
    pub fn take(&mut self, device: &str) -> Result<Option<String>, NoSlot> {
        let total = self.total();
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.device.is_none()) else {
            return Err(match self.target {
                PlugTarget::None => NoSlot::NotPluggable,
                _ if total == 0 => NoSlot::NoneSpare,
                _ => NoSlot::Full { total },
            });
        };
        slot.device = Some(device.to_owned());
        Ok((self.target != PlugTarget::Direct).then(|| slot.name.clone()))
    }

    /// Gives back the slot of a device, if it has one.
    pub fn release(&mut self, device: &str) {
        for slot in self.slots.iter_mut().filter(|slot| slot.device.as_deref() == Some(device)) {
            slot.device = None;
        }
    }

    /// Notes that a free slot of this name holds this device: what was found when a VM was re-adopted. An unknown name is no slot, and ignored.
    pub fn restore(&mut self, slot: &str, device: &str) {
        if let Some(free) = self.slots.iter_mut().find(|other| other.name == slot && other.device.is_none()) {
            free.device = Some(device.to_owned());
        }
    }

    /// The slot's name that holds a device.
    pub fn slot_of(&self, device: &str) -> Option<&str> {
        self.iter().find(|(_, held)| *held == Some(device)).map(|(name, _)| name)
    }

    /// How many are taken.
    pub fn used(&self) -> usize {
        self.slots.iter().filter(|slot| slot.device.is_some()).count()
    }

    /// How many are left.
    pub fn free(&self) -> usize {
        self.total() - self.used()
    }

    /// How many there are; nominal where the machine has no such ports.
    pub fn total(&self) -> usize {
        self.slots.len()
    }

    /// Every slot with what it holds, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.slots.iter().map(|slot| (slot.name.as_str(), slot.device.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::qemu::testing::{extra_device, spec};
    use crate::spec::Arch;

    fn slots(spec: &VmSpec) -> Slots {
        Slots::of(&Machine::of(spec), spec)
    }

    #[test]
    fn each_device_has_its_own() {
        let mut account = slots(&VmSpec { hotplug_slots: 2, ..spec() });
        assert_eq!(account.take("a"), Ok(Some("slot1".to_owned())));
        assert_eq!(account.take("b"), Ok(Some("slot2".to_owned())));
        assert_eq!(account.take("c"), Err(NoSlot::Full { total: 2 }));
        account.release("a");
        assert_eq!(account.take("c"), Ok(Some("slot1".to_owned())));
        assert_eq!(account.slot_of("c"), Some("slot1"));
    }

    #[test]
    fn a_cold_device_can_sit_in_one() {
        let account = slots(&VmSpec { devices: vec![extra_device("edu", "e", "slot1")], ..spec() });
        assert_eq!((account.used(), account.slot_of("e")), (1, Some("slot1")));
    }

    #[test]
    fn machines_differ() {
        let of = |machine: &str| slots(&VmSpec { machine: Some(machine.to_owned()), ..spec() });
        assert_eq!(of("pc").take("a"), Ok(Some("pci.0".to_owned())));
        assert_eq!(of("microvm").take("a"), Err(NoSlot::NotPluggable));
        assert_eq!(slots(&VmSpec { arch: Arch::S390x, ..spec() }).take("a"), Ok(None));
        assert_eq!(slots(&VmSpec { hotplug_slots: 0, ..spec() }).take("a"), Err(NoSlot::NoneSpare));
    }

    proptest! {
        /// Whatever comes and goes, no slot holds two devices and the numbers add up.
        #[test]
        fn adds_up(moves in prop::collection::vec((any::<bool>(), 0u8..6), 0..60)) {
            let mut account = slots(&VmSpec { hotplug_slots: 4, ..spec() });
            let mut held = std::collections::BTreeSet::new();
            for (plug, number) in moves {
                let device = format!("d{number}");
                if !plug {
                    account.release(&device);
                    held.remove(&device);
                } else if !held.contains(&device) && account.take(&device).is_ok() {
                    held.insert(device);
                }
                prop_assert_eq!(account.used(), held.len());
                prop_assert_eq!(account.used() + account.free(), account.total());
                prop_assert!(held.iter().all(|device| account.slot_of(device).is_some()));
            }
        }
    }
}
