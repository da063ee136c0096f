//! The network card that a VM has from the start, as the books have it.

use crate::qemu::{Machine, ids, models};
use crate::spec::{Networking, VmSpec};

use super::inventory::{Entry, Kind, NicFacts, Phase};

/// The card's entry; none without a network.
pub(in crate::vm) fn cold(machine: &Machine, spec: &VmSpec) -> Option<Entry> {
    if spec.networking == Networking::None {
        return None;
    }
    Some(Entry {
        id: ids::NIC.parse().ok()?,
        driver: machine.virtio(models::VIRTIO_NIC),
        slot: None,
        phase: Phase::Present,
        taken: None,
        kind: Kind::Nic(NicFacts::new(ids::NIC, spec.networking.clone(), spec.mac)),
    })
}
