//! Changes that must not overlap: for each thing one after the other, in the order in which they came.

use std::collections::{HashMap, VecDeque};

use crate::vm::owner::{Completion, Owner};

/// Those that wait, by what they are of. There is an entry as long as one is under way.
#[derive(Default)]
pub(in crate::vm) struct Turns(HashMap<String, VecDeque<Completion>>);

/// Begins a change of a thing, once those before it have ended. It must say when it has ended itself.
pub(in crate::vm) fn begin(owner: &mut Owner, of: &str, change: impl FnOnce(&mut Owner) + Send + 'static) {
    match owner.turns.0.get_mut(of) {
        Some(waiting) => waiting.push_back(Box::new(change)),
        None => {
            owner.turns.0.insert(of.to_owned(), VecDeque::new());
            change(owner);
        }
    }
}

/// The change that was under way has ended: the next begins.
pub(in crate::vm) fn end(owner: &mut Owner, of: &str) {
    match owner.turns.0.get_mut(of).map(VecDeque::pop_front) {
        Some(Some(next)) => next(owner),
        Some(None) => drop(owner.turns.0.remove(of)),
        None => {}
    }
}
