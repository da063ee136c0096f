//! What `status` tells: a copy of the books and of what was decided at the start.

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
    /// The card's id; none = it is not known.
    pub nic: Option<String>,
}

/// A copy of everything that is known of a VM.
#[derive(Debug, Clone)]
pub struct Status {
    /// Where it comes from.
    pub origin: Arc<Origin>,
    /// What was decided or found at the start.
    pub facts: Arc<Facts>,
    /// What it does.
    pub run_state: RunState,
    /// A shutdown is under way.
    pub stopping: bool,
    /// Why it is in this state, where that is not obvious.
    pub reason: Option<String>,
    /// When QEMU was started.
    pub started: Instant,
    /// All devices.
    pub devices: Vec<Entry>,
    /// All forwards, in a fixed order.
    pub forwards: Vec<Published>,
    /// Every slot and what is in it.
    pub slots: Vec<(String, Option<String>)>,
    /// Slots that can be used.
    pub slots_total: usize,
    /// Slots in use.
    pub slots_used: usize,
}

impl Status {
    /// Since QEMU's start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The network cards, the one from the start first.
    pub fn nics(&self) -> impl Iterator<Item = (&Entry, &NicFacts)> {
        cards_first(self.devices.iter())
    }
}

/// The status that the owner told last, for as long as nothing has happened since: who asks again need not wait for the owner.
#[derive(Clone, Default)]
pub(in crate::vm) struct CachedStatus(Arc<Mutex<Option<Arc<Status>>>>);

impl CachedStatus {
    /// What was told and still holds.
    pub(in crate::vm) fn get(&self) -> Option<Arc<Status>> {
        self.lock().clone()
    }

    /// Holds from now on.
    pub(in crate::vm) fn set(&self, status: Arc<Status>) {
        *self.lock() = Some(status);
    }

    /// Something has happened.
    pub(in crate::vm) fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Status>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
