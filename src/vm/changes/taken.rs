//! Whether the guest has taken what was plugged into it. QEMU's "done" means only that the device is in its slot: a guest whose kernel
//! has no PCI hot-plug (Debian's for riscv64), or no driver for it, never looks there. What tells is that a driver switches a
//! device's regions on before it uses it.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::qemu::Machine;
use crate::qemu::machine::Family;
use crate::qemu::pci;
use crate::qemu::plan::Controller;
use crate::spec::DiskBus;

use super::change::Done;
use crate::vm::changes::answer;
use crate::vm::error::ChangeError;
use crate::vm::owner::{Owner, Reply};
use crate::vm::state::inventory::{Entry, Inventory, Kind, Phase};
use crate::vm::state::run_state::RunState;

/// Between two looks while somebody waits, and until the first one.
const FIRST_LOOK: Duration = Duration::from_millis(50);

/// The longest time between two looks at a device that nobody takes: a reset, or a driver that is loaded, may change that.
const MAX_BETWEEN_LOOKS: Duration = Duration::from_secs(30);

/// How long a client waits for a guest on a machine whose guests may have no hot-plug; the others take 0.1 to 0.4 s.
const CLIENT_WAITS: Duration = Duration::from_secs(3);

/// Follows a device that was plugged, and answers with it: on a machine where guests without hot-plug are usual when it is known
/// what has become of it, else at once.
pub(in crate::vm) fn tell(owner: &mut Owner, id: &str, reply: Reply) {
    if !owner.machine.has_pci() {
        return done(owner, id, reply);
    }
    let waits = owner.machine.family() == Family::Virt && owner.inventory.run_state == RunState::Running;
    if waits {
        let until = Instant::now() + CLIENT_WAITS;
        return look_later(owner, id.to_owned(), FIRST_LOOK, Some((reply, until)));
    }
    follow(owner, id);
    done(owner, id, reply);
}

/// Follows a device until the guest has taken it.
pub(in crate::vm) fn follow(owner: &mut Owner, id: &str) {
    if owner.machine.has_pci() {
        look_later(owner, id.to_owned(), FIRST_LOOK, None);
    }
}

/// What was plugged at run time, by a supervisor of before as well.
fn plugged(inventory: &Inventory, machine: &Machine) -> Vec<String> {
    let is_plugged = |entry: &&Entry| {
        inventory.device(carrier(entry, machine)).is_some_and(|carrier| carrier.slot.is_some())
    };
    inventory.devices().filter(is_plugged).map(|entry| entry.id.to_string()).collect()
}

/// Says of all that was plugged whether the guest has taken it, by QEMU's answer to [`pci::query`].
pub(in crate::vm) fn fill(inventory: &mut Inventory, machine: &Machine, answer: &Value) {
    for id in plugged(inventory, machine) {
        if let Some(entry) = inventory.device_mut(&id) {
            entry.taken = pci::find(answer, carrier(entry, machine)).and_then(|found| found.enabled);
        }
    }
}

/// Follows what was plugged while another supervisor had the VM and what the guest had not taken when QEMU was looked at.
pub(in crate::vm) fn follow_all(owner: &mut Owner) {
    let waiting = owner.inventory.devices().filter(|entry| entry.taken == Some(false));
    let waiting: Vec<String> = waiting.map(|entry| entry.id.to_string()).collect();
    for id in waiting {
        follow(owner, &id);
    }
}

fn done(owner: &Owner, id: &str, reply: Reply) {
    // it may have been unplugged since, by the guest's own doing
    let entry = owner.inventory.device(id).cloned().ok_or_else(|| ChangeError::no_such("device", id));
    answer(reply, entry.map(Box::new).map(Done::Device));
}

fn look_later(owner: &mut Owner, id: String, wait: Duration, waiting: Option<(Reply, Instant)>) {
    owner.spawn(tokio::time::sleep(wait), move |owner, ()| look(owner, id, wait, waiting));
}

fn look(owner: &mut Owner, id: String, waited: Duration, waiting: Option<(Reply, Instant)>) {
    let Some(entry) = owner.inventory.device(&id).filter(|entry| entry.phase != Phase::Adding) else {
        return waiting.map(|(reply, _)| done(owner, &id, reply)).unwrap_or_default();
    };
    let carrier = carrier(entry, &owner.machine).to_owned();
    owner.command(&pci::query(), move |owner, reply| {
        let found =
            reply.ok().and_then(|answer| pci::find(&answer, &carrier)).and_then(|found| found.enabled);
        let Some(entry) = owner.inventory.device_mut(&id) else {
            return waiting.map(|(reply, _)| done(owner, &id, reply)).unwrap_or_default();
        };
        let newly = found == Some(true) && entry.taken == Some(false);
        entry.taken = found;
        if newly {
            log::info!("the guest has taken '{id}' now");
        }
        let is_over = found != Some(false);
        match waiting {
            Some((reply, until)) if !is_over && Instant::now() < until => {
                look_later(owner, id, FIRST_LOOK, Some((reply, until)));
            }
            waiting => {
                if let Some((reply, _)) = waiting {
                    done(owner, &id, reply);
                }
                if !is_over {
                    look_later(owner, id, (waited * 2).min(MAX_BETWEEN_LOOKS), None);
                }
            }
        }
    });
}

/// The PCI device that the guest must take to have this one: itself, or its controller.
fn carrier<'a>(entry: &'a Entry, machine: &Machine) -> &'a str {
    let ids = machine.ids();
    match &entry.kind {
        Kind::Usb { .. } => Controller::Usb.id(ids),
        Kind::Disk(facts) if facts.bus == DiskBus::Usb => Controller::Usb.id(ids),
        Kind::Disk(facts) if facts.bus == DiskBus::Scsi => Controller::Scsi.id(ids),
        _ => entry.id.as_str(),
    }
}
