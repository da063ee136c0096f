//! The inventory's entries of the network cards from the start.

use crate::qemu::{Machine, ids, io};
use crate::spec::{DeviceId, Networking, NicModel, VmSpec};

use super::inventory::{Entry, Kind, NicFacts, Phase};

/// The cards' entries.
pub(in crate::vm) fn cold(machine: &Machine, spec: &VmSpec) -> Vec<Entry> {
    let entry = |id: DeviceId, model, network: &Networking, mac| Entry {
        driver: io::card_driver(machine, model),
        slot: None,
        phase: Phase::Present,
        taken: None,
        kind: Kind::Nic(NicFacts::new(id.as_str(), network.clone(), mac)),
        id,
    };
    let id = ids::NIC.parse().ok().filter(|_| spec.networking != Networking::None);
    let first = id.map(|id| entry(id, NicModel::Virtio, &spec.networking, spec.mac));
    let more = spec.nics.iter().map(|nic| entry(nic.id.clone(), nic.model, &nic.network, nic.mac));
    first.into_iter().chain(more).collect()
}
