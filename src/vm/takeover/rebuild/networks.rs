//! Network cards of a VM that was taken over. QEMU does not tell all of them, so the journal helps.

use serde_json::json;

use crate::qemu::forward::forward_remove;
use crate::qemu::netdev::remove as remove_netdev;
use crate::qemu::{Command, ids};
use crate::qmp::hmp::{NetworkLine, network};
use crate::qmp::{CommandError, Session};
use crate::spec::{MacAddress, Networking};

use crate::vm::state::inventory::{Inventory, NicFacts};
use crate::vm::state::journal::{Cards, Pending};

/// What is known of network back-ends: from QEMU, and from the journal.
pub(super) struct Networks<'a> {
    lines: Vec<NetworkLine>,
    cards: &'a Cards,
}

impl<'a> Networks<'a> {
    pub(super) async fn query(session: &Session, cards: &'a Cards) -> Result<Self, CommandError> {
        Ok(Self { lines: network(&session.hmp("info network").await?), cards })
    }

    /// The facts of a card on this back-end.
    pub(super) fn nic(&self, id: &str, netdev: String, mac: Option<MacAddress>) -> NicFacts {
        let network = self.network(&netdev);
        let foreign = netdev != ids::netdev(id);
        let mut nic = NicFacts { network, interface: None, mac, netdev, link_up: true, foreign };
        if let Some(card) = self.cards.get(id) {
            card.complete(&mut nic);
        }
        if let (None, Some(Networking::Tap(name))) = (&nic.interface, &nic.network) {
            nic.interface = Some(name.to_string());
        }
        nic
    }

    fn network(&self, netdev: &str) -> Option<Networking> {
        let line = self.lines.iter().find(|line| line.id == netdev)?;
        match (line.kind.as_str(), line.option("br"), line.option("ifname")) {
            ("user", ..) => Some(Networking::User),
            (_, Some(bridge), _) => bridge.parse().ok().map(Networking::Bridge),
            (_, _, Some(interface)) => interface.parse().ok().map(Networking::Tap),
            _ => None,
        }
    }
}

/// The back-ends of cards that are not there (any more) are closed, and descriptors that became none.
pub(super) async fn take_back(
    session: &Session,
    pending: &Pending,
    present: &[String],
    inventory: &mut Inventory,
) {
    // the card from the start is in the journal only if it was being removed, or its cable was ever pulled
    for id in pending.cards.keys().chain(&pending.removing).filter(|id| !present.contains(*id)) {
        let netdev = ids::netdev(id);
        // where there is nothing to close, QEMU says so and nobody minds
        for command in [remove_netdev(&netdev), Command::new("closefd", json!({ "fdname": netdev }))] {
            let _ = session.run(&command).await;
        }
        inventory.forwards.retain(|bound| bound.netdev != netdev);
    }
}

/// The forwards of waits that ended with their supervisor are ended, too.
pub(super) async fn end_probes(session: &Session, inventory: &mut Inventory) {
    for bound in inventory.forwards.extract_if(.., |bound| bound.is_probe()) {
        // the next supervisor would try again
        let _ = session.run(&forward_remove(&bound.netdev, &bound.forward)).await;
    }
}
