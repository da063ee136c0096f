//! In which order the firmware tries what a VM starts with: QEMU's `bootindex`, the lowest first.

use super::ids;
use crate::spec::{Boot, BootClass, DeviceId, Networking, VmSpec};

/// The `bootindex` of each device; none = the firmware's own choice, after all that have one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct BootOrder {
    /// As many as there are disks.
    disks: Vec<Option<u32>>,
    /// Of the CD that an ISO is.
    pub(super) cd: Option<u32>,
    /// Of the first network card, with its id.
    pub(super) nic: Option<(String, u32)>,
}

#[derive(Clone, Copy)]
enum Item {
    Disk(usize),
    Cd,
    Nic,
}

impl BootOrder {
    /// The order of a VM: first what has a number (`boot=N`), by it, and then what is booted when nothing is said.
    pub(super) fn of(spec: &VmSpec) -> Self {
        let said: Vec<Option<u32>> = spec.disks.iter().map(|disk| disk.options.boot.map(u32::from)).collect();
        let mut next = said.iter().flatten().max().map_or(1, |last| last + 1);
        let mut order = Self { disks: said, ..Self::default() };
        for item in unsaid(spec) {
            let index = match item {
                Item::Disk(number) => match order.disks.get_mut(number) {
                    Some(index) => index,
                    None => continue,
                },
                Item::Cd => &mut order.cd,
                Item::Nic => {
                    if let Some(id) = first_card(spec) {
                        order.nic = Some((id.to_owned(), next));
                        next += 1;
                    }
                    continue;
                }
            };
            if index.is_none() {
                *index = Some(next);
                next += 1;
            }
        }
        order
    }

    /// The index of the `number`th disk, from 0.
    pub(super) fn disk(&self, number: usize) -> Option<u32> {
        self.disks.get(number).copied().flatten()
    }
}

/// The card that the network is booted from.
fn first_card(spec: &VmSpec) -> Option<&str> {
    spec.networks().next().map(|(id, _)| id.map_or(ids::NIC, DeviceId::as_str))
}

/// What is booted by `--boot`, and when nothing is said.
fn unsaid(spec: &VmSpec) -> Vec<Item> {
    let disks = (0..spec.disks.len()).map(Item::Disk);
    if !spec.boot_order.is_empty() {
        let of_class = |class: &BootClass| match class {
            BootClass::Net => vec![Item::Nic],
            BootClass::Disk => disks.clone().collect(),
            BootClass::Cdrom => vec![Item::Cd],
        };
        return spec.boot_order.classes().iter().flat_map(of_class).collect();
    }
    match spec.boot {
        Boot::Disk => vec![Item::Disk(0)],
        Boot::Iso { .. } => vec![Item::Cd, Item::Disk(0)],
        // further cards alone are not booted from unless that is said
        Boot::Firmware if spec.networking == Networking::None => disks.collect(),
        Boot::Firmware => disks.chain([Item::Nic]).collect(),
        Boot::Kernel { .. } | Boot::Squashfs { .. } => Vec::new(),
    }
}

/// The devices of a starting VM that have an index, by their ids.
pub fn taken(spec: &VmSpec) -> Vec<(String, u32)> {
    let order = BootOrder::of(spec);
    let disks = spec.disks.iter().zip(&order.disks).map(|(disk, index)| (disk.id.to_string(), *index));
    let cd = [(ids::BOOT_CD.to_owned(), order.cd)];
    let indices = disks.chain(cd).filter_map(|(id, index)| Some((id, index?)));
    indices.chain(order.nic.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::testing::{disk, spec};
    use crate::spec::{DiskBus, DiskOptions};

    fn order(boot: Boot, numbers: &[Option<u16>]) -> Vec<(String, u32)> {
        let named = |(number, boot): (usize, &Option<u16>)| crate::spec::Disk {
            options: DiskOptions { boot: *boot, ..DiskOptions::default() },
            ..disk(&format!("d{number}"), DiskBus::Virtio)
        };
        let disks = numbers.iter().enumerate().map(named).collect();
        let mut taken = taken(&VmSpec { boot, disks, ..spec() });
        taken.sort_by_key(|(_, index)| *index);
        taken
    }

    #[test]
    fn what_has_a_number_goes_first_and_the_rest_stays_as_it_was() {
        let iso = || Boot::Iso { path: "/i.iso".into() };
        let kernel = || Boot::Kernel { kernel: "/k".into(), initrd: None, cmdline: String::new() };
        for (boot, numbers, expected) in [
            (Boot::Disk, vec![None, None], vec![("d0", 1)]),
            (Boot::Disk, vec![None, Some(1)], vec![("d1", 1), ("d0", 2)]),
            (Boot::Disk, vec![Some(2), Some(1), None], vec![("d1", 1), ("d0", 2)]),
            (Boot::Disk, vec![Some(7)], vec![("d0", 7)]),
            (iso(), vec![None, None], vec![("cd0", 1), ("d0", 2)]),
            (iso(), vec![None, Some(3)], vec![("d1", 3), ("cd0", 4), ("d0", 5)]),
            (iso(), vec![Some(1)], vec![("d0", 1), ("cd0", 2)]),
            (Boot::Firmware, vec![None, None], vec![("d0", 1), ("d1", 2), ("nic0", 3)]),
            (Boot::Firmware, vec![None, Some(4)], vec![("d1", 4), ("d0", 5), ("nic0", 6)]),
            (kernel(), vec![None], vec![]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(id, index)| (id.to_owned(), index)).collect();
            assert_eq!(order(boot.clone(), &numbers), expected, "{boot:?} {numbers:?}");
        }
    }

    #[test]
    fn an_order_of_classes_is_that_of_their_devices() {
        let disks = || vec![disk("a", DiskBus::Virtio), disk("b", DiskBus::Virtio)];
        let iso = Boot::Iso { path: "/i.iso".into() };
        for (text, expected) in [
            ("net,disk", vec![("nic0", 1), ("a", 2), ("b", 3)]),
            ("disk,net", vec![("a", 1), ("b", 2), ("nic0", 3)]),
            ("cdrom,net", vec![("cd0", 1), ("nic0", 2)]),
        ] {
            let spec =
                VmSpec { boot_order: text.parse().unwrap(), disks: disks(), boot: iso.clone(), ..spec() };
            let mut taken = taken(&spec);
            taken.sort_by_key(|(_, index)| *index);
            let expected: Vec<_> = expected.into_iter().map(|(id, index)| (id.to_owned(), index)).collect();
            assert_eq!(taken, expected, "{text}");
        }
    }
}
