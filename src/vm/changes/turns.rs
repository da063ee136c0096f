//! Changes that must not overlap: for each thing they run one after the other, in order.

use std::collections::{HashMap, VecDeque};

use crate::vm::owner::{Completion, Owner};

/// The waiting changes of each thing. An entry exists while one is under way.
#[derive(Default)]
pub(in crate::vm) struct Turns(HashMap<String, VecDeque<Completion>>);

/// Starts a change of a thing once those before it have ended. The change must call [`end`] when it has ended.
pub(in crate::vm) fn begin(owner: &mut Owner, of: &str, change: impl FnOnce(&mut Owner) + Send + 'static) {
    match owner.turns.0.get_mut(of) {
        Some(waiting) => waiting.push_back(Box::new(change)),
        None => {
            owner.turns.0.insert(of.to_owned(), VecDeque::new());
            change(owner);
        }
    }
}

/// The current change has ended: starts the next.
pub(in crate::vm) fn end(owner: &mut Owner, of: &str) {
    match owner.turns.0.get_mut(of).map(VecDeque::pop_front) {
        Some(Some(next)) => next(owner),
        Some(None) => drop(owner.turns.0.remove(of)),
        None => {}
    }
}
