//! Network cards. QEMU does not report all of their facts; the journal has the rest.

use crate::qemu::ids;
use crate::qmp::hmp::{NetworkLine, network, user_networks};
use crate::spec::{DeviceId, MacAddress, Networking, VmSpec};

use super::Whose;
use super::answers::Answers;
use crate::vm::state::inventory::NicFacts;
use crate::vm::state::journal::Cards;

/// What is known of network back-ends, from QEMU and from the journal.
pub(super) struct Networks<'a> {
    lines: Vec<NetworkLine>,
    /// Back-ends with user networking.
    user: Vec<&'a str>,
    cards: Option<&'a Cards>,
    /// The description from which vmrun started the VM.
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
            // in wrapped VMs vmrun handles only user networking
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

    /// Adds what the journal has on the card with this id in the inventory.
    pub(super) fn complete(&self, id: &str, nic: &mut NicFacts) {
        if let Some(card) = self.cards.and_then(|cards| cards.get(id)) {
            card.complete(nic);
        }
        if let (None, Some(Networking::Tap(name))) = (&nic.interface, &nic.network) {
            nic.interface = Some(name.to_string());
        }
    }

    /// User networking: from the description, where vmrun has made it, else from QEMU, which does not report all of it.
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
