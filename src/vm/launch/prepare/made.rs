//! What a start has made on the host, to remove it if the start fails.

use std::path::PathBuf;

use crate::host::dirs::{StateDir, StateMade, remove_ephemeral};
use crate::host::made::MadeFile;

/// What did not exist before, in the order in which it was made.
#[derive(Debug, Default)]
pub(in crate::vm) struct Made {
    files: Vec<MadeFile>,
    state: Option<StateMade>,
    ephemeral: Option<PathBuf>,
}

impl Made {
    /// Records files that were made.
    pub(super) fn files(&mut self, made: impl IntoIterator<Item = MadeFile>) {
        self.files.extend(made);
    }

    /// Records that vmrun is about to put files into a state directory.
    pub(super) fn state(&mut self, state: StateMade) {
        self.state = Some(state);
    }

    /// Records a state directory that is removed as a whole.
    pub(super) fn ephemeral(&mut self, state: &StateDir) {
        self.ephemeral = Some(state.path().to_owned());
    }

    /// Removes all of it. The state directory must be closed.
    pub(in crate::vm) fn undo(self) {
        self.files.iter().rev().for_each(MadeFile::remove);
        if let Some(state) = self.state {
            state.take_back();
        }
        if let Some(Ok(Some(state))) = self.ephemeral.as_deref().map(StateDir::existing) {
            remove_ephemeral(&state);
        }
    }
}
