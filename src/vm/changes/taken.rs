//! Whether the guest has taken what was plugged into it. QEMU's "done" means only that the device is in its slot: a guest whose kernel
//! has no PCI hot-plug (Debian's for riscv64), or no driver for it, never looks there. What tells is that a driver switches a
//! device's regions on before it uses it.
//!
//! QEMU has no event for that. So it is asked for a minute after the plug, ever more rarely, and after that only when something
//! happens that may have changed it ([`look_again`]) or a client wants to know ([`status_asked`]): an idle VM wakes nobody.

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

/// How long a device is looked at that the guest does not take: a driver that is to come is loaded by then.
const LOOKS_FOR: Duration = Duration::from_secs(60);

/// The time between two looks for clients who ask for the status, at least.
const BETWEEN_CLIENTS: Duration = Duration::from_secs(1);

/// How long a client waits for a guest on a machine whose guests may have no hot-plug; the others take 0.1 to 0.4 s.
const CLIENT_WAITS: Duration = Duration::from_secs(3);

/// The looks that are under way.
#[derive(Default)]
pub(in crate::vm) struct Looks {
    /// Those of an earlier round end: each event that may change what is known begins a new one.
    round: u64,
    /// When a client has last caused one.
    for_client: Option<Instant>,
}

/// One device to be looked at, again and again.
struct Look {
    id: String,
    round: u64,
    /// The time since the look before.
    wait: Duration,
    /// When no more looks follow.
    until: Instant,
    /// The client to be answered by then, if one waits.
    waiting: Option<(Reply, Instant)>,
}

/// Follows a device that was plugged, and answers with it: on a machine where guests without hot-plug are usual when it is known
/// what has become of it, else at once.
pub(in crate::vm) fn tell(owner: &mut Owner, id: &str, reply: Reply) {
    if !owner.machine.has_pci() {
        return done(owner, id, reply);
    }
    let waits = owner.machine.family() == Family::Virt && owner.inventory.run_state == RunState::Running;
    if waits {
        let until = Instant::now() + CLIENT_WAITS;
        return begin(owner, id, Some((reply, until)));
    }
    follow(owner, id);
    done(owner, id, reply);
}

/// Follows a device until the guest has taken it, or for [`LOOKS_FOR`].
pub(in crate::vm) fn follow(owner: &mut Owner, id: &str) {
    if owner.machine.has_pci() {
        begin(owner, id, None);
    }
}

fn begin(owner: &mut Owner, id: &str, waiting: Option<(Reply, Instant)>) {
    let until = Instant::now() + LOOKS_FOR;
    let round = owner.looks.round;
    look_later(owner, Look { id: id.to_owned(), round, wait: FIRST_LOOK, until, waiting });
}

/// Something has happened after which the guest may take what it has left alone: a reset, an agent that comes up, a guest that runs again.
pub(in crate::vm) fn look_again(owner: &mut Owner) {
    owner.looks.round += 1;
    let plugged = plugged(&owner.inventory, &owner.machine);
    for id in plugged {
        if owner.inventory.device(&id).is_some_and(|entry| entry.taken != Some(true)) {
            follow(owner, &id);
        }
    }
}

/// A client asks for the status: what the guest had not taken is looked at once, for the next one who asks. Nobody waits for it, as
/// QEMU may stand still. True if there is such a device, so that this status must not be kept.
pub(in crate::vm) fn status_asked(owner: &mut Owner) -> bool {
    let waiting = untaken(&owner.inventory);
    let now = Instant::now();
    let is_due = owner.looks.for_client.is_none_or(|last| now >= last + BETWEEN_CLIENTS);
    if !waiting.is_empty() && is_due {
        owner.looks.for_client = Some(now);
        let round = owner.looks.round;
        for id in &waiting {
            look(owner, Look { id: id.clone(), round, wait: FIRST_LOOK, until: now, waiting: None });
        }
    }
    !waiting.is_empty()
}

fn untaken(inventory: &Inventory) -> Vec<String> {
    let untaken = inventory.devices().filter(|entry| entry.taken == Some(false));
    untaken.map(|entry| entry.id.to_string()).collect()
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
    for id in untaken(&owner.inventory) {
        follow(owner, &id);
    }
}

fn done(owner: &Owner, id: &str, reply: Reply) {
    // it may have been unplugged since, by the guest's own doing
    let entry = owner.inventory.device(id).cloned().ok_or_else(|| ChangeError::no_such("device", id));
    answer(reply, entry.map(Box::new).map(Done::Device));
}

fn look_later(owner: &mut Owner, next: Look) {
    owner.spawn(tokio::time::sleep(next.wait), move |owner, ()| look(owner, next));
}

fn look(owner: &mut Owner, look: Look) {
    let Look { id, round, wait, until, waiting } = look;
    if waiting.is_none() && round != owner.looks.round {
        return;
    }
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
        let now = Instant::now();
        match waiting {
            Some((reply, client_until)) if !is_over && now < client_until => {
                let waiting = Some((reply, client_until));
                look_later(owner, Look { id, round, wait: FIRST_LOOK, until, waiting });
            }
            waiting => {
                if let Some((reply, _)) = waiting {
                    done(owner, &id, reply);
                }
                if !is_over && now < until {
                    // the last one is at the end of the time
                    let wait = (wait * 2).min(until - now);
                    look_later(owner, Look { id, round, wait, until, waiting: None });
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
