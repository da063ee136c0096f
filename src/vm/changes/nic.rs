//! `nic-add`: makes a back-end, then the card on it.

use std::os::fd::OwnedFd;

use serde_json::json;

use crate::host::programs::SearchPath;
use crate::host::tap::{self, HostPaths, Tap, TapError};
use crate::qemu::io::{self, Card};
use crate::qemu::{Command, Netdev, ids, plan};
use crate::spec::{DeviceId, MacAddress, NetClash, Networking, NicModel, NicSpec};

use super::{answer, plug};
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::owner::{Owner, Reply};
use crate::vm::state::inventory::{Kind, NicFacts};
use crate::vm::state::plugged::Plugged;

/// What was prepared on the host.
struct Ready {
    mac: MacAddress,
    tap: Option<Tap>,
}

/// Plugs a network card.
pub(super) fn add(owner: &mut Owner, nic: NicSpec, reply: Reply) {
    if let Err(error) = check(owner, &nic) {
        return answer(reply, Err(error));
    }
    let driver = io::card_driver(&owner.machine, nic.model);
    let id = match plug::reserve(owner, nic.id.clone(), "nic", &driver, Kind::Other) {
        Ok(id) => id,
        Err(error) => return answer(reply, Err(error)),
    };
    // a missing slot is reported before a tap device is opened
    let bus = match plug::take_slot(owner, id.as_str()) {
        Ok(bus) => bus,
        Err(error) => return plug::abandon(owner, &id, reply, error),
    };
    let (state, card) = (std::sync::Arc::clone(&owner.state), id.clone());
    let (network, wanted) = (nic.network.clone(), nic.mac);
    owner.spawn_blocking(
        move || {
            let tap = open(&network)?;
            // last, since it writes a file: a refused request leaves nothing behind
            let mac = wanted.map_or_else(|| state.mac_of(&card).map_err(ChangeError::host), Ok)?;
            Ok(Ready { mac, tap })
        },
        move |owner, ready| match ready {
            Ok(ready) => hand_over(owner, id, nic, ready, bus, reply),
            Err(error) => plug::abandon(owner, &id, reply, error),
        },
    );
}

fn check(owner: &Owner, nic: &NicSpec) -> Result<(), ChangeError> {
    if nic.model != NicModel::Virtio && !owner.machine.has_pci() {
        let message = format!("a {} machine takes virtio network cards only", owner.machine.kind());
        return Err(ChangeError::unsupported(message));
    }
    nic.mac.map_or(Ok(()), |mac| check_unused(owner, mac))?;
    settled(owner, &nic.network).map(drop)
}

/// The network with its defaults filled in: a user network that overlaps none of the other cards'.
fn settled(owner: &Owner, network: &Networking) -> Result<Networking, ChangeError> {
    let Networking::User(user) = network else { return Ok(network.clone()) };
    user.clone().settled(&owner.inventory.subnets()).map(Networking::User).map_err(|clash| match &clash {
        NetClash::Overlap { other, .. } => {
            let kind = ErrorKind::AlreadyThere { id: other.clone() };
            ChangeError::new(kind, clash.to_string())
                .hint("choose another network, or leave out `net=`: one that is free is found then")
        }
        NetClash::NoneFree | NetClash::Unfit(_) => ChangeError::invalid("network", clash),
    })
}

/// Two cards with one address would answer for each other.
fn check_unused(owner: &Owner, mac: MacAddress) -> Result<(), ChangeError> {
    let Some((user, _)) = owner.inventory.nics().find(|(_, nic)| nic.mac == Some(mac)) else { return Ok(()) };
    let message = format!("MAC address {mac} is in use already, by '{}'", user.id);
    Err(ChangeError::new(ErrorKind::AlreadyThere { id: user.id.to_string() }, message))
}

/// Opens what QEMU cannot open itself: its sandbox forbids helpers and gaining privileges.
fn open(network: &Networking) -> Result<Option<Tap>, ChangeError> {
    let error = ChangeError::hinted(TapError::hint);
    match network {
        Networking::Tap(name) => tap::open(name, &HostPaths::default()).map(Some).map_err(error),
        Networking::Bridge(name) => {
            tap::open_on_bridge(name, &SearchPath::from_env(), &HostPaths::default()).map(Some).map_err(error)
        }
        Networking::User(_) | Networking::None => Ok(None),
    }
}

/// Second part: the host is prepared; passes the open device, if any, to QEMU.
fn hand_over(owner: &mut Owner, id: DeviceId, nic: NicSpec, ready: Ready, bus: Option<String>, reply: Reply) {
    // another card may have taken the address or the network in the meantime
    let network = check_unused(owner, ready.mac).and_then(|()| settled(owner, &nic.network));
    let network = match network {
        Ok(network) => network,
        Err(error) => return plug::abandon(owner, &id, reply, error),
    };
    let (interface, descriptor) = ready.tap.map(|tap| (tap.interface, tap.descriptor)).unzip();
    let mut facts = NicFacts::new(id.as_str(), network, ready.mac);
    facts.interface = interface;
    let netdev = facts.netdev.clone();
    let user = facts.user().cloned().unwrap_or_default();
    if let Err(error) = owner.journal.card(id.as_str(), &facts) {
        return plug::abandon(owner, &id, reply, error);
    }
    if let Some(entry) = owner.inventory.device_mut(id.as_str()) {
        entry.kind = Kind::Nic(facts);
    }
    let card = (ready.mac, nic.model);
    let Some(descriptor) = descriptor else {
        return go(owner, id, card, &Netdev::user(&netdev, &user), bus, reply);
    };
    let given = give(owner, &netdev, descriptor);
    owner.spawn(given, move |owner, result| match result {
        Ok(()) => go(owner, id, card, &Netdev::tap_descriptor(&netdev, &netdev), bus, reply),
        Err(error) => {
            owner.journal.card_gone(id.as_str());
            plug::abandon(owner, &id, reply, error);
        }
    });
}

/// Passes a descriptor to QEMU under the back-end's name.
fn give(
    owner: &Owner,
    name: &str,
    descriptor: OwnedFd,
) -> impl Future<Output = Result<(), ChangeError>> + Send + 'static {
    let given = owner.session.pass(name, descriptor);
    async move { Ok(given.await.map(drop)?) }
}

/// Third part: QEMU makes the back-end and the card.
fn go(
    owner: &mut Owner,
    id: DeviceId,
    (mac, model): (MacAddress, NicModel),
    backend: &Netdev,
    bus: Option<String>,
    reply: Reply,
) {
    let card = Card { id: id.as_str(), mac, model };
    let steps = plan::add_nic(&owner.machine, &card, backend, bus.as_deref());
    let commands = Plugged::commands(&steps);
    owner.run_plan(steps, move |owner, result| {
        match result {
            Ok(_) => {
                owner.plugged.add(id.as_str(), commands);
                plug::committed(owner, &id, reply);
            }
            Err(error) => {
                owner.inventory.remove(id.as_str());
                owner.journal.card_gone(id.as_str());
                // closes a descriptor that did not become a back-end; without one, QEMU's error is ignored
                let close = Command::new("closefd", json!({ "fdname": ids::netdev(id.as_str()) }));
                owner.command(&close, |_, _| {});
                answer(reply, Err(error));
            }
        }
    });
}
