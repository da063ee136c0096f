//! Network cards. QEMU does not tell all of them, so the journal helps.

use crate::qemu::ids;
use crate::qmp::hmp::{NetworkLine, network, user_networks};
use crate::spec::{MacAddress, Networking};

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
}

impl<'a> Networks<'a> {
    pub(super) fn new(answers: &'a Answers, whose: Whose<'a>) -> Self {
        let user = user_networks(answers.usernet());
        match whose {
            Whose::Ours { pending, .. } => {
                Self { lines: network(answers.network()), user, cards: Some(&pending.cards) }
            }
            // of others' networks user networking only is vmrun's business
            Whose::Wrapped { cards, .. } => Self { lines: Vec::new(), user, cards },
        }
    }

    /// The facts of a card on this back-end.
    pub(super) fn nic(&self, id: &str, netdev: &str, mac: Option<MacAddress>) -> NicFacts {
        NicFacts {
            network: self.network(netdev),
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

    fn network(&self, netdev: &str) -> Option<Networking> {
        if self.user.contains(&netdev) {
            return Some(Networking::User);
        }
        let line = self.lines.iter().find(|line| line.id == netdev)?;
        match (line.kind.as_str(), line.option("br"), line.option("ifname")) {
            ("user", ..) => Some(Networking::User),
            (_, Some(bridge), _) => bridge.parse().ok().map(Networking::Bridge),
            (_, _, Some(interface)) => interface.parse().ok().map(Networking::Tap),
            _ => None,
        }
    }
}
