//! What `status` tells: a copy of the books and of what was decided at the start.

use std::sync::Arc;
use std::time::Duration;

use crate::spec::{Forward, VmSpec};

use super::facts::Facts;
use super::inventory::{Entry, NicFacts, cards_first};
use super::state::RunState;

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
    /// What it was made from.
    pub spec: Arc<VmSpec>,
    /// What was decided or found at the start.
    pub facts: Arc<Facts>,
    /// What it does.
    pub run_state: RunState,
    /// A shutdown is under way.
    pub stopping: bool,
    /// Why it is in this state, where that is not obvious.
    pub reason: Option<String>,
    /// Since QEMU's start.
    pub uptime: Duration,
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
    /// The network cards, the one from the start first.
    pub fn nics(&self) -> impl Iterator<Item = (&Entry, &NicFacts)> {
        cards_first(self.devices.iter())
    }
}
