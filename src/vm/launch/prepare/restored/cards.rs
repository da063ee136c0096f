//! The network cards of a saved VM. That they exist, and what the guest sees of them, is hardware from the file. The command line
//! decides what they are connected to.

use crate::qemu::replug::What;
use crate::qemu::{Machine, ids, quote};
use crate::spec::{DeviceId, Networking, Nic, NicModel, NicSpec, Request, Subnet, UserNet, VmSpec};

use super::super::check_forwards;
use super::devices;
use super::refused;
use crate::vm::changes::saving::Saved;
use crate::vm::start_error::StartError;
use crate::vm::state::journal::{Card, Cards};
use crate::vm::state::plugged::Record;

/// Whether there is a card is decided by the file; its network by the command line.
pub(super) fn network(saved: Networking, asked: Option<&Networking>) -> Result<Networking, StartError> {
    use Networking::{Bridge, None, Tap, User};
    let Some(asked) = asked else {
        return match saved {
            None | User(_) => Ok(saved),
            Bridge(_) | Tap(_) => Err(refused(
                "the saved VM's network card was on a network of the host, which a file does not decide"
                    .to_owned(),
                format!("say which it gets now: --networking {}", quote::word(saved.to_string().as_ref())),
            )),
        };
    };
    match (saved, asked) {
        (None, None) => Ok(None),
        (None, asked) => {
            Err(StartError::usage(format!("--networking {asked}: the saved VM has no network card")))
        }
        (saved, None) => Err(StartError::Usage {
            message: "--networking none: the saved VM has a network card".to_owned(),
            hint: Some(format!("`vmrun ctl link down` pulls its cable; it was on '{saved}'")),
        }),
        // the guest's driver may rely on features of a tap device in the host's kernel (`vnet_hdr`), and QEMU refuses to load the
        // state without them
        (saved @ (Bridge(_) | Tap(_)), User(_)) => Err(refused(
            format!(
                "the saved VM's network card was on '{saved}', and QEMU cannot move such a card to user networking"
            ),
            "--networking tap,NAME or bridge,NAME; `vmrun ctl nic-add user` plugs a card on user networking afterwards",
        )),
        // QEMU has the state of a user network in the stream, and loads it into nothing else
        (saved @ User(_), Bridge(_) | Tap(_)) => Err(refused(
            format!(
                "the saved VM's network card was on '{saved}', and QEMU cannot move such a card to '{asked}'"
            ),
            format!("leave out `--networking`; `vmrun ctl nic-add {asked}` plugs a card there afterwards"),
        )),
        // the guest has an address in its network, so the network stays unless another is given
        (saved @ User(_), asked) if *asked == Networking::default() => Ok(saved),
        (Bridge(_) | Tap(_) | User(_), asked) => Ok(asked.clone()),
    }
}

/// The same for the further cards, which `--nic` names by their ids.
pub(super) fn further(saved: Vec<Nic>, asked: &[NicSpec]) -> Result<Vec<Nic>, StartError> {
    let mut asked: Vec<(DeviceId, &NicSpec)> = asked
        .iter()
        .map(|nic| match &nic.id {
            Some(id) => Ok((id.clone(), nic)),
            None => Err(StartError::Usage {
                message: format!("--nic {nic}: which card of the saved VM is meant?"),
                hint: Some("name it: `--nic …,id=ID`".to_owned()),
            }),
        })
        .collect::<Result<_, _>>()?;
    let mut nics = Vec::new();
    for nic in saved {
        let said = asked.iter().position(|(id, _)| *id == nic.id).map(|at| asked.remove(at).1);
        if let Some(said) = said {
            let other_mac = said.mac.is_some_and(|mac| mac != nic.mac);
            if other_mac || (said.model != nic.model && said.model != NicModel::default()) {
                let message = format!(
                    "--nic {said}: the saved VM's card has the address {} and is a {}",
                    nic.mac, nic.model
                );
                return Err(StartError::usage(message));
            }
        }
        let id = nic.id.clone();
        let network =
            network(nic.network.clone(), said.map(|said| &said.network)).map_err(|error| match error {
                StartError::Restore(error) if said.is_none() => {
                    let shown = quote::word(format!("{},id={id}", nic.network).as_ref());
                    StartError::Restore(error.hint(format!("say which it gets now: --nic {shown}")))
                }
                error => error,
            })?;
        nics.push(Nic { network, ..nic });
    }
    match asked.first() {
        Some((_, nic)) => Err(StartError::Usage {
            message: format!("--nic {nic}: the saved VM has no such card"),
            hint: Some("it can have it when it runs again: `vmrun ctl nic-add`".to_owned()),
        }),
        None => Ok(nics),
    }
}

/// Checks the cards' networks against those of plugged cards and against `--publish`.
pub(super) fn check(saved: &Saved, spec: &VmSpec, request: &Request) -> Result<(), StartError> {
    check_forwards(request, spec.networks().any(|(_, network)| network.is_user()))?;
    let hot = devices::read(&saved.record, &Machine::of(spec))?;
    let hot = hot.iter().filter_map(|plug| match &plug.what {
        What::Nic { user, .. } => Some((plug.id.as_str(), user)),
        _ => None,
    });
    let cold = spec
        .networks()
        .filter_map(|(id, network)| Some((id.map_or(ids::NIC, DeviceId::as_str), network.user()?)));
    let mut taken: Vec<(String, Subnet)> = Vec::new();
    for (id, user) in cold.chain(hot) {
        // each has its network: no default is picked
        let said = UserNet { net: Some(user.subnet()), ..user.clone() };
        said.settled(&taken).map_err(|clash| StartError::usage(format!("network card '{id}': {clash}")))?;
        taken.push((id.to_owned(), user.subnet()));
    }
    Ok(())
}

/// The cards whose cable is pulled, with the networks that the command line decides.
pub(super) fn cables(saved: &Cards, record: &Record, spec: &VmSpec) -> Cards {
    let machine = Machine::of(spec);
    let plugged = devices::read(record, &machine).unwrap_or_default();
    let cold = |id: &str| {
        let mut networks = spec.networks();
        networks
            .find(|(card, _)| card.map_or(ids::NIC, DeviceId::as_str) == id)
            .map(|(_, network)| network.clone())
    };
    let hot = |id: &str| {
        plugged.iter().find(|plug| plug.id.as_str() == id).and_then(|plug| match &plug.what {
            What::Nic { user, .. } => Some(Networking::User(user.clone())),
            _ => None,
        })
    };
    let card = |(id, card): (&String, &Card)| {
        let network = cold(id).or_else(|| hot(id))?;
        Some((id.clone(), Card { network: Some(network), interface: None, link_up: card.link_up }))
    };
    saved.iter().filter_map(card).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_the_command_lines() {
        let tap: Networking = "tap,t0".parse().unwrap();
        let bridge: Networking = "bridge,br0".parse().unwrap();
        assert_eq!(network(Networking::default(), None).unwrap(), Networking::default());
        assert_eq!(network(Networking::None, None).unwrap(), Networking::None);
        assert!(network(Networking::None, Some(&Networking::default())).is_err());
        assert_eq!(network(bridge.clone(), Some(&tap)).unwrap(), tap);
        let error = network(bridge.clone(), Some(&Networking::default())).unwrap_err();
        assert!(error.to_string().contains("cannot move such a card to user networking"), "{error:?}");
        let error = network(bridge, None).unwrap_err();
        assert!(error.hint().unwrap().contains("bridge,br0"), "{error:?}");
        network(Networking::None, Some(&tap)).unwrap_err();
        let error = network(Networking::default(), Some(&tap)).unwrap_err();
        assert!(error.hint().unwrap().contains("nic-add tap,t0"), "{error:?}");
        network(tap, Some(&Networking::None)).unwrap_err();
    }

    #[test]
    fn a_network_stays_unless_another_is_said() {
        let saved: Networking = "user,net=10.0.7.0/24".parse().unwrap();
        assert_eq!(network(saved.clone(), Some(&Networking::default())).unwrap(), saved);
        let other: Networking = "user,net=10.0.8.0/24".parse().unwrap();
        assert_eq!(network(saved, Some(&other)).unwrap(), other);
    }

    #[test]
    fn further_cards_are_named_by_their_ids() {
        let nic = |id: &str, network: &str| Nic {
            id: id.parse().unwrap(),
            network: network.parse().unwrap(),
            mac: "52:54:00:00:00:07".parse().unwrap(),
            model: NicModel::E1000,
        };
        let saved = || vec![nic("a", "user,net=10.0.3.0/24"), nic("b", "tap,t0")];
        let further = |asked: &[&str]| {
            let asked: Vec<NicSpec> = asked.iter().map(|text| text.parse().unwrap()).collect();
            further(saved(), &asked)
        };
        let error = further(&[]).unwrap_err();
        assert!(error.hint().unwrap().contains("--nic 'tap,t0,id=b'"), "{error:?}");
        let found = further(&["tap,t1,id=b,model=e1000"]).unwrap();
        assert_eq!((&found[0], found[1].network.to_string()), (&saved()[0], "tap,t1".to_owned()));
        for wrong in [
            &["tap,t1"][..],
            &["tap,t1,id=c"],
            &["tap,t1,id=b", "user,id=c"],
            &["user,id=b"],
            &["tap,t1,id=b,model=e1000e"],
        ] {
            further(wrong).unwrap_err();
        }
    }
}
