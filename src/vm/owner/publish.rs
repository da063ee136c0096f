//! The state and the status that the owner publishes.

use std::sync::Arc;

use serde_json::json;

use super::Owner;
use super::boot::console_panic;
use crate::vm::bus::WatchedState;
use crate::vm::state::status::{Published, Status};

impl Owner {
    /// Publishes the state to watchers, if it has changed.
    pub(super) fn publish_state(&mut self) {
        let now = WatchedState {
            run_state: self.inventory.run_state,
            panicked: self.evidence.has_panicked(),
            stopping: self.ladder.is_some(),
            nothing_to_boot: self.nothing_to_boot,
            console_panic: self.console_panic.is_some(),
            guest_resets: self.resets.by_guest(),
        };
        let mut before = now;
        self.watched.send_if_modified(|watched| {
            before = std::mem::replace(watched, now);
            before != now
        });
        // the others have events of their own
        let of_state = |state: WatchedState| (state.run_state, state.panicked, state.stopping);
        if of_state(before) != of_state(now) {
            self.bus.publish("VMRUN_STATE", json!({ "state": now.run_state, "stopping": now.stopping }));
        }
    }

    pub(in crate::vm) fn status(&self) -> Status {
        let nothing_to_boot = || self.nothing_to_boot.map(|found| found.message().to_owned());
        let console_panic = || self.console_panic.as_deref().map(console_panic);
        let (slots, used, total) = self.slots();
        Status {
            origin: Arc::clone(&self.origin),
            facts: Arc::clone(&self.facts),
            run_state: self.inventory.run_state,
            stopping: self.ladder.is_some(),
            reason: self.inventory.reason.clone().or_else(nothing_to_boot).or_else(console_panic),
            started: self.started,
            devices: self.inventory.devices().cloned().collect(),
            forwards: self.forwards(),
            slots,
            slots_used: used,
            slots_total: total,
        }
    }

    /// Sorted, since QEMU lists them in another order after a takeover.
    fn forwards(&self) -> Vec<Published> {
        let published = self.inventory.requested_forwards().map(|bound| self.inventory.published(bound));
        let mut forwards: Vec<Published> = published.collect();
        forwards.sort_by_key(|Published { forward, .. }| {
            (forward.guest, forward.protocol.to_string(), forward.host)
        });
        forwards
    }

    fn slots(&self) -> (Vec<(String, Option<String>)>, usize, usize) {
        let slots = &self.inventory.slots;
        let list = slots.iter().map(|(name, device)| (name.to_owned(), device.map(str::to_owned))).collect();
        (list, slots.used(), slots.total())
    }
}
