//! `link up` and `link down`: the cable of a network card. QEMU does not report its state, so the inventory and the journal keep
//! it.

use serde_json::json;

use crate::qemu::netdev::set_link;

use super::answer;
use crate::vm::change::Done;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::owner::{Owner, Reply};
use crate::vm::state::inventory::{DeviceKind, NicFacts, Phase};

/// Plugs or pulls the cable of a card.
pub(super) fn set(owner: &mut Owner, nic: Option<String>, up: bool, reply: Reply) {
    let id = match meant(owner, nic) {
        Ok(id) => id,
        Err(error) => return answer(reply, Err(error)),
    };
    // a card without an id: its back-end has the same link
    let client = owner.inventory.qemu_name(&id).to_owned();
    if let Some(nic) = owner.inventory.device(&id).and_then(|entry| entry.kind.nic()) {
        let will_be = NicFacts { link_up: up, ..nic.clone() };
        if let Err(error) = owner.journal.card(&id, &will_be) {
            return answer(reply, Err(error));
        }
    }
    owner.command(&set_link(&client, up), move |owner, result| {
        if result.is_err() {
            as_it_is(owner, &id);
        }
        let result = result.map_err(|error| match error.is_class("DeviceNotFound") {
            // its removal was requested in the meantime
            true => ChangeError::no_such("network card", &id),
            false => error.into(),
        });
        let done = result.and_then(|_| {
            set_link_state(owner, &id, up);
            let entry = owner.inventory.device(&id).cloned();
            entry.map(Box::new).map(Done::Device).ok_or_else(|| ChangeError::no_such("network card", &id))
        });
        answer(reply, done);
    });
}

/// Records the state that a card still has: the change failed.
fn as_it_is(owner: &mut Owner, id: &str) {
    if let Some(nic) = owner.inventory.device(id).and_then(|entry| entry.kind.nic()).cloned() {
        owner.journal.card_is(id, &nic);
    }
}

/// The card that is meant; without an id, the only one.
fn meant(owner: &Owner, id: Option<String>) -> Result<String, ChangeError> {
    let inventory = &owner.inventory;
    let Some(id) = id else {
        let all: Vec<&str> = inventory.nics().map(|(entry, _)| entry.id.as_str()).collect();
        return match all.as_slice() {
            [only] => Ok((*only).to_owned()),
            [] => {
                Err(ChangeError::unsupported("the VM has no network card").hint("`nic-add user` plugs one"))
            }
            several => {
                let message = format!("the VM has several network cards: {}", several.join(", "));
                Err(ChangeError::invalid("nic", message).hint("say which"))
            }
        };
    };
    match inventory.device(&id) {
        Some(entry) if DeviceKind::Nic.fits(entry) && entry.phase == Phase::Adding => {
            let kind = ErrorKind::NotNow { state: "adding".to_owned() };
            Err(ChangeError::new(kind, format!("'{id}' is just being added")))
        }
        Some(entry) if DeviceKind::Nic.fits(entry) => Ok(id),
        _ => Err(inventory.no_such(DeviceKind::Nic, &id)),
    }
}

/// Records a link that QEMU has set, by the name of the card or of its back-end.
pub(super) fn set_link_state(owner: &mut Owner, name: &str, up: bool) {
    let id = owner.inventory.nics().find_map(|(entry, nic)| {
        (entry.id.as_str() == name || nic.netdev == name).then(|| entry.id.to_string())
    });
    let Some(id) = id else { return };
    let Some(nic) = owner.inventory.device_mut(&id).and_then(|entry| entry.kind.nic_mut()) else { return };
    if std::mem::replace(&mut nic.link_up, up) != up {
        let nic = nic.clone();
        owner.journal.card_is(&id, &nic);
        owner.bus.publish("VMRUN_LINK", json!({ "nic": id, "up": up }));
    }
}
