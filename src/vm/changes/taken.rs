//! Whether the guest uses a device that was plugged. QEMU's success means only that the device is in its slot: a guest whose kernel
//! has no PCI hot-plug (Debian's for riscv64), or no driver for the device, never uses it. A driver enables a device's memory and
//! I/O regions before it uses it, and QEMU reports that.
//!
//! QEMU has no event for it. So it is polled for a minute after the plug, at growing intervals, and after that only when something
//! happens that may have changed it ([`look_again`]) or a client asks for the status ([`status_asked`]): an idle VM causes no
//! polling.

use std::time::Duration;

use tokio::time::Instant;

use crate::qemu::machine::Family;
use crate::qemu::pci;

use crate::vm::change::Done;
use crate::vm::changes::answer;
use crate::vm::error::ChangeError;
use crate::vm::owner::{Owner, Reply};
use crate::vm::state::inventory::{Inventory, Phase};
use crate::vm::state::run_state::RunState;
use crate::vm::state::taken::{carrier, plugged};

/// The first interval between two polls, and the longest while a client waits.
const FIRST_LOOK: Duration = Duration::from_millis(50);

/// How long a device is polled that the guest does not use: a driver that will come is loaded by then.
const LOOKS_FOR: Duration = Duration::from_secs(60);

/// The shortest interval between two polls caused by clients that ask for the status.
const BETWEEN_CLIENTS: Duration = Duration::from_secs(1);

/// How long a client waits for a guest on a machine whose guests may have no hot-plug; the others take 0.1 to 0.4 s.
const CLIENT_WAITS: Duration = Duration::from_secs(3);

/// The polls that are under way.
#[derive(Default)]
pub(in crate::vm) struct Looks {
    /// Polls of an earlier round stop: each event that may change the result starts a new round.
    round: u64,
    /// When a client last caused a round.
    for_client: Option<Instant>,
}

/// One device that is polled.
struct Look {
    id: String,
    round: u64,
    /// The interval before this poll.
    wait: Duration,
    /// When the polling ends.
    until: Instant,
    /// The client that waits for the result, if any, and its deadline.
    waiting: Option<(Reply, Instant)>,
}

/// Polls a device that was plugged, and replies with it: on a machine where guests often have no hot-plug, once the result is
/// known; otherwise at once.
pub(in crate::vm) fn reply_when_known(owner: &mut Owner, id: &str, reply: Reply) {
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

/// Polls a device until the guest uses it, or for [`LOOKS_FOR`].
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

/// Something has happened after which the guest may use a device that it ignored: a reset, an agent that starts, a guest that
/// resumes.
pub(in crate::vm) fn look_again(owner: &mut Owner) {
    owner.looks.round += 1;
    let plugged = plugged(&owner.inventory, &owner.machine);
    for id in plugged {
        if owner.inventory.device(&id).is_some_and(|entry| entry.taken != Some(true)) {
            follow(owner, &id);
        }
    }
}

/// A client asked for the status: polls the devices that the guest did not use, for the next status. The client does not wait, as
/// QEMU may hang. True if there is such a device, so that this status must not be cached.
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

/// Polls devices that were plugged under an earlier supervisor and were not in use at the takeover.
pub(in crate::vm) fn follow_all(owner: &mut Owner) {
    for id in untaken(&owner.inventory) {
        follow(owner, &id);
    }
}

fn done(owner: &Owner, id: &str, reply: Reply) {
    // it may have been unplugged since, by the guest itself
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
            log::info!("the guest uses '{id}' now");
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
                    // the last one is at the deadline
                    let wait = (wait * 2).min(until - now);
                    look_later(owner, Look { id, round, wait, until, waiting: None });
                }
            }
        }
    });
}
