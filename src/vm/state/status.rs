//! The status of a VM: a copy of the inventory and of the facts from the start.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::spec::Forward;

use super::facts::Facts;
use super::inventory::{Entry, NicFacts, cards_first};
use super::origin::Origin;
use super::run_state::RunState;

/// A forward and the network card that it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The forward; its host port is not 0.
    pub forward: Forward,
    /// The card's id; `None` = unknown.
    pub nic: Option<String>,
}

/// A copy of everything that is known of a VM.
#[derive(Debug, Clone)]
pub struct Status {
    /// Where it comes from.
    pub origin: Arc<Origin>,
    /// The facts that were decided or detected at its start.
    pub facts: Arc<Facts>,
    /// Its run state.
    pub run_state: RunState,
    /// A shutdown is under way.
    pub stopping: bool,
    /// The reason of the run state, where it is not obvious.
    pub reason: Option<String>,
    /// When QEMU was started.
    pub started: Instant,
    /// All devices.
    pub devices: Vec<Entry>,
    /// All forwards, in a fixed order.
    pub forwards: Vec<Published>,
    /// Every slot and the device in it.
    pub slots: Vec<(String, Option<String>)>,
    /// The number of slots.
    pub slots_total: usize,
    /// Slots in use.
    pub slots_used: usize,
}

impl Status {
    /// Time since QEMU's start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The network cards, the one from the start first.
    pub fn nics(&self) -> impl Iterator<Item = (&Entry, &NicFacts)> {
        cards_first(self.devices.iter())
    }
}

/// The last status, valid until the next change: a repeated query need not wait for the owner.
#[derive(Clone, Default)]
pub(in crate::vm) struct CachedStatus(Arc<Mutex<Option<Arc<Status>>>>);

impl CachedStatus {
    /// The status, if it is still valid.
    pub(in crate::vm) fn get(&self) -> Option<Arc<Status>> {
        self.lock().clone()
    }

    /// Caches a status.
    pub(in crate::vm) fn set(&self, status: Arc<Status>) {
        *self.lock() = Some(status);
    }

    /// Something has changed: the cached status is not valid any more.
    pub(in crate::vm) fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Status>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
