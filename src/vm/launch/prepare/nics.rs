//! The network cards of a request: each gets an id, a network that overlaps none of the others', and a stable address.

use std::path::Path;

use crate::host::dirs::{RunDir, StateDir};
use crate::qemu::ids;
use crate::spec::{DeviceId, MacAddress, Networking, Nic, NicSpec, Request, Subnet, UserNet};

use super::addresses;
use crate::vm::start_error::StartError;

/// The cards, with ids and networks.
#[derive(Debug, Clone)]
pub(super) struct Cards {
    /// From `--networking`.
    pub(super) networking: Networking,
    /// From `--nic`.
    nics: Vec<(DeviceId, NicSpec)>,
}

impl Cards {
    /// Fills in the defaults, and refuses combinations that are impossible.
    pub(super) fn of(request: &Request) -> Result<Self, StartError> {
        let mut networking = request.networking.clone().unwrap_or_default();
        let mut nics = with_ids(request)?;
        check_apart(&networking, &nics)?;
        let of_nics = nics.iter_mut().map(|(id, nic)| (id.to_string(), &mut nic.network));
        let first = std::iter::once((ids::NIC.to_owned(), &mut networking));
        settle(first.chain(of_nics).filter_map(|(id, network)| match network {
            Networking::User(user) => Some((id, user)),
            _ => None,
        }))?;
        Ok(Self { networking, nics })
    }

    /// Whether there is user networking; only it has forwards.
    pub(super) fn have_user_networking(&self) -> bool {
        self.networking.is_user() || self.nics.iter().any(|(_, nic)| nic.network.is_user())
    }

    /// The further cards with their addresses. `base`: the state directory whose addresses an ephemeral run uses.
    pub(super) fn with_addresses(
        &self,
        run: &RunDir,
        state: &StateDir,
        base: Option<&Path>,
    ) -> Result<Vec<Nic>, StartError> {
        self.nics
            .iter()
            .map(|(id, nic)| {
                let mac = match nic.mac {
                    Some(mac) => addresses::note(run, &nic.network, mac).map(|()| mac),
                    None => {
                        let borrowed = base.and_then(|base| StateDir::mac_of_at(base, id));
                        addresses::choose(run, &nic.network, borrowed, || state.mac_of(id))
                    }
                }?;
                Ok(card(id, nic, mac))
            })
            .collect()
    }

    /// The same for a dry run: nothing is made or written down.
    pub(super) fn dry(&self, state: &Path) -> Vec<Nic> {
        let card = |(id, nic): &(DeviceId, NicSpec)| {
            let mac = nic.mac.or_else(|| StateDir::mac_of_at(state, id)).unwrap_or_else(addresses::random);
            card(id, nic, mac)
        };
        self.nics.iter().map(card).collect()
    }
}

fn card(id: &DeviceId, nic: &NicSpec, mac: MacAddress) -> Nic {
    Nic { id: id.clone(), network: nic.network.clone(), mac, model: nic.model }
}

/// Refuses one address for two cards: both would answer for it.
pub(super) fn check_addresses(first: Option<MacAddress>, nics: &[Nic]) -> Result<(), StartError> {
    let all = first.map(|mac| (ids::NIC, mac)).into_iter();
    let all: Vec<_> = all.chain(nics.iter().map(|nic| (nic.id.as_str(), nic.mac))).collect();
    for (position, (id, mac)) in all.iter().enumerate() {
        if let Some((other, _)) = all[..position].iter().find(|(_, other)| other == mac) {
            return Err(StartError::usage(format!(
                "network cards '{other}' and '{id}' both have the MAC address {mac}"
            )));
        }
    }
    Ok(())
}

/// `nic1` for the first card without an id and so on, skipping ids that the user chose.
fn with_ids(request: &Request) -> Result<Vec<(DeviceId, NicSpec)>, StartError> {
    let disks = request.disks.iter().chain([&request.image_options]).filter_map(|disk| disk.id.as_ref());
    let devices = request.devices.iter().filter_map(|device| device.id.as_ref());
    let nics = request.nics.iter().filter_map(|nic| nic.id.as_ref());
    let mut taken: Vec<String> = disks.chain(devices).chain(nics).map(ToString::to_string).collect();
    let mut named = Vec::new();
    for nic in &request.nics {
        let id = match &nic.id {
            Some(id) => id.clone(),
            None => {
                let free = (1..=taken.len() + 1).map(|number| format!("nic{number}"));
                let free = free.into_iter().find(|id| !taken.contains(id)).unwrap_or_default();
                free.parse().map_err(|error| StartError::usage(format!("--nic {nic}: {error}")))?
            }
        };
        taken.push(id.to_string());
        named.push((id, nic.clone()));
    }
    Ok(named)
}

/// A tap device has one user.
fn check_apart(first: &Networking, nics: &[(DeviceId, NicSpec)]) -> Result<(), StartError> {
    let networks: Vec<_> = std::iter::once(first).chain(nics.iter().map(|(_, nic)| &nic.network)).collect();
    for (position, network) in networks.iter().enumerate() {
        if let Networking::Tap(name) = network
            && networks[..position].contains(network)
        {
            return Err(StartError::usage(format!(
                "tap device '{name}' is given to two network cards: it can have one"
            )));
        }
    }
    Ok(())
}

/// Explicit networks come first, whatever their order: defaults must not overlap them.
fn settle<'a>(cards: impl Iterator<Item = (String, &'a mut UserNet)>) -> Result<(), StartError> {
    let mut cards: Vec<_> = cards.collect();
    let mut taken: Vec<(String, Subnet)> = Vec::new();
    for says in [true, false] {
        for (id, user) in cards.iter_mut().filter(|(_, user)| user.net.is_some() == says) {
            if taken.iter().any(|(other, _)| other == id) {
                continue;
            }
            **user = user
                .clone()
                .settled(&taken)
                .map_err(|clash| StartError::usage(format!("network card '{id}': {clash}")))?;
            taken.push((id.clone(), user.subnet()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cards(networking: &str, nics: &[&str]) -> Result<Vec<String>, String> {
        let request = Request {
            networking: Some(networking.parse().unwrap()),
            nics: nics.iter().map(|nic| nic.parse().unwrap()).collect(),
            ..Request::default()
        };
        let cards = Cards::of(&request).map_err(|error| error.to_string())?;
        let nics = cards.nics.iter().map(|(id, nic)| format!("{id} {}", nic.network));
        Ok(std::iter::once(cards.networking.to_string()).chain(nics).collect())
    }

    #[test]
    fn each_card_has_an_id_and_a_network_of_its_own() {
        for (networking, nics, expected) in [
            ("user", vec!["user"], vec!["user", "nic1 user,net=10.0.3.0/24"]),
            ("none", vec!["user"], vec!["none", "nic1 user"]),
            (
                "user",
                vec!["user,net=10.0.2.0/24", "user,id=nic1"],
                vec!["user,net=10.0.3.0/24", "nic2 user,net=10.0.2.0/24", "nic1 user,net=10.0.4.0/24"],
            ),
            ("user,net=10.0.3.0/24", vec!["user"], vec!["user,net=10.0.3.0/24", "nic1 user"]),
            ("tap,t0", vec!["tap,t1", "bridge,br0"], vec!["tap,t0", "nic1 tap,t1", "nic2 bridge,br0"]),
        ] {
            assert_eq!(cards(networking, &nics).unwrap(), expected, "{networking} {nics:?}");
        }
    }

    #[test]
    fn what_cannot_be_together_is_refused() {
        for (networking, nics, why) in [
            (
                "user",
                vec!["user,net=10.0.3.0/24", "user,net=10.0.0.0/16"],
                "'nic2': net=10.0.0.0/16 overlaps",
            ),
            (
                "user,net=10.0.3.0/24",
                vec!["user,net=10.0.3.0/25"],
                "overlaps 10.0.3.0/24, the network of card 'nic0'",
            ),
            ("user", vec!["user,dns=10.0.2.3"], "'nic1': dns=10.0.2.3 is not in the network, 10.0.3.0/24"),
            ("user,net=10.0.0.0/8", vec!["user"], "no network from 10.0.2.0/24"),
            ("tap,t0", vec!["tap,t0"], "tap device 't0'"),
        ] {
            let error = cards(networking, &nics).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let mac = MacAddress::from_random([1; 6]);
        let nic =
            Nic { id: "a".parse().unwrap(), network: Networking::default(), mac, model: Default::default() };
        check_addresses(None, std::slice::from_ref(&nic)).unwrap();
        assert!(check_addresses(Some(mac), &[nic]).unwrap_err().to_string().contains("'nic0' and 'a'"));
    }
}
