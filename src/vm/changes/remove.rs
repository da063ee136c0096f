//! Removals. `device_del` succeeds when the *request* was sent: the device is gone with DEVICE_DELETED, not before.
//!
//! Some devices are removed without an event: QEMU 7.2 never sends it for a `qemu-xhci`, since the event comes when the last
//! reference to the device is dropped, and that controller keeps one to itself. So QEMU is also polled, at growing intervals.

use std::time::Duration;

use serde_json::{Value, json};

use crate::qemu::{plan, query};

use super::{answer, forward, plug};
use crate::vm::change::Done;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::owner::{Owner, Removal, Reply};
use crate::vm::state::inventory::{DeviceKind, Entry, Kind, Phase};
use crate::vm::state::run_state::RunState;

/// How long to wait in a VM that does not run: what needs no guest is removed at once.
const WITHOUT_GUEST: Duration = Duration::from_secs(1);

/// When QEMU is first polled for a device that was removed without an event; much later than a guest usually takes.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// The longest interval between two polls, for a guest that does not answer at all. QEMU has no event for a slot that can be asked
/// again, and none for some removed devices; it is polled only while a removal is pending.
const MAX_BETWEEN_LOOKS: Duration = Duration::from_secs(30);

/// Interval between two requests to a guest that is busy with the slot.
const BETWEEN_REQUESTS: Duration = Duration::from_millis(250);

/// Requests the removal of a device and waits for it.
pub(super) fn start(owner: &mut Owner, kind: DeviceKind, id: &str, wait: Duration, reply: Reply) {
    if let Err(error) = check(owner, kind, id) {
        return answer(reply, Err(error));
    }
    if let Err(error) = owner.journal.removing(id) {
        return answer(reply, Err(error));
    }
    let ticket = owner.ticket();
    let asked_before = owner.removals.contains_key(id);
    owner.removals.entry(id.to_owned()).or_default().push(Removal { ticket, reply });
    if let Some(entry) = owner.inventory.device_mut(id) {
        entry.phase = Phase::Removing;
    }
    if !asked_before && owner.asking.insert(id.to_owned()) {
        ask_guest(owner, id.to_owned(), BETWEEN_REQUESTS);
    }
    let wait = if owner.inventory.run_state == RunState::Running { wait } else { wait.min(WITHOUT_GUEST) };
    let name = id.to_owned();
    owner.spawn(tokio::time::sleep(wait), move |owner, ()| give_up(owner, &name, ticket));
}

/// Sends the request. QEMU refuses it permanently for a built-in device, and temporarily while the guest is about to plug or unplug
/// something in that slot (native PCIe hot-plug: five seconds, in which the power indicator blinks) or has been asked already.
/// QEMU's error text does not distinguish the two in all versions; the device's own property does.
fn ask_guest(owner: &mut Owner, id: String, next: Duration) {
    owner.run_plan(plan::remove_device(&id), move |owner, result| match result {
        Ok(_) => {
            owner.asking.remove(&id);
            look_later(owner, id, FIRST_LOOK);
        }
        // removed in the meantime
        Err(error) if is_not_found(&error) => {
            owner.asking.remove(&id);
            look(owner, id, FIRST_LOOK);
        }
        Err(error @ ChangeError { kind: ErrorKind::RefusedByQemu { .. }, .. }) => {
            owner.command(&plan::is_hotpluggable(&id), move |owner, answer| match answer {
                Ok(Value::Bool(true)) => ask_again_later(owner, id, next),
                Ok(Value::Bool(false)) => {
                    let error =
                        ChangeError::unsupported(format!("'{id}' is built into the machine and stays"));
                    let hint = "only what was added while the VM runs, or sits on USB or SCSI, can go";
                    fail(owner, &id, &error.hint(hint));
                }
                // removed in the meantime
                Err(refused) if refused.is_class("DeviceNotFound") => {
                    owner.asking.remove(&id);
                    look(owner, id, FIRST_LOOK);
                }
                _ => fail(owner, &id, &error),
            });
        }
        Err(error) => fail(owner, &id, &error),
    });
}

/// Polls frequently while a client waits, then at growing intervals: the request stays pending.
fn ask_again_later(owner: &mut Owner, id: String, wait: Duration) {
    owner.spawn(tokio::time::sleep(wait), move |owner, ()| {
        if owner.inventory.device(&id).is_none_or(|entry| entry.phase != Phase::Removing) {
            owner.asking.remove(&id);
            return;
        }
        let is_awaited = owner.removals.contains_key(&id);
        let next = if is_awaited { BETWEEN_REQUESTS } else { (wait * 2).min(MAX_BETWEEN_LOOKS) };
        ask_guest(owner, id, next);
    });
}

fn is_not_found(error: &ChangeError) -> bool {
    matches!(&error.kind, ErrorKind::RefusedByQemu { class } if class == "DeviceNotFound")
}

/// Checks for a device that may be removed without an event. A device with a back-end needs the event: QEMU uses the back-end until
/// then.
fn look_later(owner: &mut Owner, id: String, wait: Duration) {
    if owner
        .inventory
        .device(&id)
        .is_some_and(|entry| entry.phase == Phase::Removing && !entry.kind.has_backend())
    {
        owner.spawn(tokio::time::sleep(wait), move |owner, ()| look(owner, id, wait));
    }
}

fn look(owner: &mut Owner, id: String, waited: Duration) {
    owner.command(&query::peripherals(), move |owner, answer| {
        let is_listed = |list: &Value| {
            list.as_array().is_none_or(|devices| devices.iter().any(|device| device["name"] == *id))
        };
        let removing = owner
            .inventory
            .device(&id)
            .is_some_and(|entry| entry.phase == Phase::Removing && !entry.kind.has_backend());
        match answer {
            Ok(list) if removing && !is_listed(&list) => gone(owner, &id),
            _ => look_later(owner, id, (waited * 2).min(MAX_BETWEEN_LOOKS)),
        }
    });
}

fn check(owner: &Owner, kind: DeviceKind, id: &str) -> Result<(), ChangeError> {
    let entry = owner.inventory.device(id);
    let entry = entry.filter(|entry| kind.fits(entry)).ok_or_else(|| owner.inventory.no_such(kind, id))?;
    if owner.inventory.anonymous.contains_key(id) {
        let error =
            ChangeError::unsupported(format!("'{id}' was given no id, by which QEMU could remove it"));
        return Err(error.hint("give it one on QEMU's command line: `-device …,id=ID`"));
    }
    match (&entry.kind, entry.phase) {
        (Kind::Controller, _) if in_use(owner, entry) => Err(ChangeError::new(
            ErrorKind::NotNow { state: "in-use".to_owned() },
            format!("controller '{id}' has devices"),
        )
        .hint("remove them first")),
        (_, Phase::Adding) => Err(ChangeError::new(
            ErrorKind::NotNow { state: "adding".to_owned() },
            format!("'{id}' is just being added"),
        )),
        (Kind::Disk(facts), _) if facts.removable => {
            Err(ChangeError::unsupported(format!("'{id}' is a CD-ROM drive, which stays"))
                .hint("`media-eject` takes its medium out"))
        }
        _ => Ok(()),
    }
}

fn in_use(owner: &Owner, controller: &Entry) -> bool {
    let is_this = |kind: &plan::Controller| kind.is_named(controller.id.as_str());
    owner.inventory.devices().any(|entry| entry.kind.controller().as_ref().is_some_and(is_this))
}

/// DEVICE_DELETED: the device has left the machine. Closes its image or network, then removes it from the inventory.
pub(in super::super) fn deleted(owner: &mut Owner, id: &str) {
    let Some(entry) = owner.inventory.device(id) else { return };
    let name = id.to_owned();
    match &entry.kind {
        _ if !entry.kind.has_backend() => gone(owner, &name),
        Kind::Nic(nic) => owner.run_plan(plan::remove_netdev(&nic.netdev), move |owner, result| {
            if let Err(error) = result {
                log::warn!("the network of '{name}' could not be closed: {error}");
            }
            gone(owner, &name);
        }),
        Kind::Disk(facts) if facts.options.has_iothread() => {
            plug::close_image(owner, name.clone(), move |owner, _| {
                plug::end_thread(owner, name.clone(), move |owner| gone(owner, &name));
            });
        }
        _ => plug::close_image(owner, name.clone(), move |owner, _| gone(owner, &name)),
    }
}

fn gone(owner: &mut Owner, id: &str) {
    owner.asking.remove(id);
    let Some(entry) = owner.inventory.remove(id) else { return };
    log::info!("device '{id}' is gone");
    if let Kind::Nic(nic) = entry.kind {
        forward::gone_with(owner, &nic.netdev);
        owner.journal.card_gone(id);
    }
    owner.journal.finished(id);
    owner.plugged.remove(id);
    owner.bus.publish("VMRUN_DEVICE_REMOVED", json!({ "id": id }));
    for removal in owner.removals.remove(id).unwrap_or_default() {
        answer(removal.reply, Ok(Done::Removed));
    }
}

/// DEVICE_UNPLUG_GUEST_ERROR: the guest refused; the device stays.
pub(in super::super) fn refused(owner: &mut Owner, id: &str) {
    let kind = ErrorKind::RefusedByGuest { id: id.to_owned() };
    let error = ChangeError::new(kind, format!("the guest refused to release '{id}'"));
    let is_disk = owner.inventory.device(id).is_some_and(|entry| DeviceKind::Disk.fits(entry));
    let hint = match is_disk {
        true => "it is in use in the guest: unmount it there first",
        false => "it is in use in the guest",
    };
    fail(owner, id, &error.hint(hint));
}

fn fail(owner: &mut Owner, id: &str, error: &ChangeError) {
    owner.asking.remove(id);
    if let Some(entry) = owner.inventory.device_mut(id) {
        entry.phase = Phase::Present;
    }
    owner.journal.finished(id);
    for removal in owner.removals.remove(id).unwrap_or_default() {
        answer(removal.reply, Err(error.clone()));
    }
}

/// The deadline of one client has passed; the request to the guest stays pending.
fn give_up(owner: &mut Owner, id: &str, ticket: u64) {
    let Some(waiting) = owner.removals.get_mut(id) else { return };
    let Some(position) = waiting.iter().position(|removal| removal.ticket == ticket) else { return };
    let removal = waiting.swap_remove(position);
    if waiting.is_empty() {
        // the next removal sends a new request to the guest
        owner.removals.remove(id);
    }
    answer(removal.reply, Ok(Done::RemovalPending));
}
