//! The inputs of commands in the guest that get theirs piece by piece.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::vm::error::ChangeError;
use crate::vm::handle::Handle;

/// How many pieces may wait for a command that does not read: further ones wait at their clients.
const WAITING_PIECES: usize = 2;

/// The inputs by their handles. Clones share them.
#[derive(Debug, Clone, Default)]
pub(in crate::vm) struct Inputs(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    last: i64,
    senders: HashMap<i64, mpsc::Sender<Vec<u8>>>,
}

/// The reading end of an input. It is closed when this is dropped.
pub(super) struct Input {
    inputs: Inputs,
    /// Its handle, for [`Handle::write_input`].
    pub(super) handle: i64,
    /// Its pieces; they end with [`Handle::end_input`].
    pub(super) pieces: mpsc::Receiver<Vec<u8>>,
}

impl Inputs {
    /// Opens one.
    pub(super) fn open(&self) -> Input {
        let (sender, pieces) = mpsc::channel(WAITING_PIECES);
        let handle = self.with(|open| {
            open.last += 1;
            open.senders.insert(open.last, sender);
            open.last
        });
        Input { inputs: self.clone(), handle, pieces }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Open) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.inputs.with(|open| drop(open.senders.remove(&self.handle)));
    }
}

impl Handle {
    /// Writes the next piece of a command's input; waits until the command has read enough of those before.
    ///
    /// # Errors
    /// `NoSuchThing`: the command has ended, or its input has.
    pub async fn write_input(&self, handle: i64, bytes: Vec<u8>) -> Result<(), ChangeError> {
        let no_such = || ChangeError::no_such("input of a running command", handle);
        let sender = self.inputs.with(|open| open.senders.get(&handle).cloned()).ok_or_else(no_such)?;
        sender.send(bytes).await.map_err(|_| no_such())
    }

    /// Ends a command's input.
    ///
    /// # Errors
    /// `NoSuchThing`: the command has ended, or its input has.
    pub fn end_input(&self, handle: i64) -> Result<(), ChangeError> {
        let removed = self.inputs.with(|open| open.senders.remove(&handle));
        removed.map(drop).ok_or_else(|| ChangeError::no_such("input of a running command", handle))
    }
}
