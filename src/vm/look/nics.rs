//! Network cards. QEMU does not tell all of them, so the journal helps.

use crate::qemu::ids;
use crate::qmp::hmp::{NetworkLine, network, user_networks};
use crate::spec::{DeviceId, MacAddress, Networking, VmSpec};

use super::Whose;
use super::answers::Answers;
use crate::vm::state::inventory::NicFacts;
use crate::vm::state::journal::Cards;

/// What is known of network back-ends: from QEMU, and from the journal.
pub(super) struct Networks<'a> {
    lines: Vec<NetworkLine>,
    /// Back-ends with user networking.
    user: Vec<&'a str>,
    cards: Option<&'a Cards>,
    /// What vmrun has started the VM from.
    spec: Option<&'a VmSpec>,
}

impl<'a> Networks<'a> {
    pub(super) fn new(answers: &'a Answers, whose: Whose<'a>) -> Self {
        let user = user_networks(answers.usernet());
        match whose {
            Whose::Ours { spec, pending } => {
                let lines = network(answers.network());
                Self { lines, user, cards: Some(&pending.cards), spec: Some(spec) }
            }
            // of others' networks user networking only is vmrun's business
            Whose::Wrapped { cards, .. } => {
                let mut lines = network(answers.network());
                lines.retain(|line| line.kind == "user");
                Self { lines, user, cards, spec: None }
            }
        }
    }

    /// The facts of a card on this back-end.
    pub(super) fn nic(&self, id: &str, netdev: &str, mac: Option<MacAddress>) -> NicFacts {
        NicFacts {
            network: self.network(id, netdev),
            interface: None,
            mac,
            netdev: netdev.to_owned(),
            link_up: true,
            foreign: netdev != ids::netdev(id),
        }
    }

    /// Adds what the journal knows of the card with this id in the inventory.
    pub(super) fn complete(&self, id: &str, nic: &mut NicFacts) {
        if let Some(card) = self.cards.and_then(|cards| cards.get(id)) {
            card.complete(nic);
        }
        if let (None, Some(Networking::Tap(name))) = (&nic.interface, &nic.network) {
            nic.interface = Some(name.to_string());
        }
    }

    /// User networking: as it was said, where vmrun has made it, else what QEMU tells of it, which is not all.
    fn user(&self, id: &str, netdev: &str) -> Networking {
        let cold = self.spec.and_then(|spec| {
            let mut networks = spec.networks();
            networks
                .find(|(card, _)| card.map_or(ids::NIC, DeviceId::as_str) == id)
                .map(|(_, network)| network)
        });
        let said = cold.or_else(|| self.cards?.get(id)?.network.as_ref());
        let said = said.filter(|network| network.is_user() && netdev == ids::netdev(id));
        let line = || self.lines.iter().find(|line| line.id == netdev);
        said.cloned().unwrap_or_else(|| Networking::User(line().map(NetworkLine::user).unwrap_or_default()))
    }

    fn network(&self, id: &str, netdev: &str) -> Option<Networking> {
        if self.user.contains(&netdev) {
            return Some(self.user(id, netdev));
        }
        let line = self.lines.iter().find(|line| line.id == netdev)?;
        match (line.kind.as_str(), line.option("br"), line.option("ifname")) {
            ("user", ..) => Some(self.user(id, netdev)),
            (_, Some(bridge), _) => bridge.parse().ok().map(Networking::Bridge),
            (_, _, Some(interface)) => interface.parse().ok().map(Networking::Tap),
            _ => None,
        }
    }
}
