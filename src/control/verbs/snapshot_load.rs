//! `snapshot-load`.

use crate::control::parameters::parse;
use crate::control::translate;
use crate::control::wire::SnapshotReply;
use crate::vm::{Change, ChangeError, Done, SnapshotChange};

use super::method::{ChangeMethod, method};

method! {
    /// Loads a snapshot.
    LoadSnapshot { name: String; } -> SnapshotReply
}

impl ChangeMethod for LoadSnapshot {
    fn change(self) -> Result<Change, ChangeError> {
        Ok(Change::Snapshot(SnapshotChange::Load(parse("name", &self.name)?)))
    }

    fn reply(done: Done) -> Result<SnapshotReply, ChangeError> {
        Ok(SnapshotReply { snapshot: translate::snapshot(&done.snapshot()?) })
    }
}
