//! `snapshot-list`.

use crate::control::permits::Use;
use crate::control::{translate, wire};
use crate::vm::{Change, ChangeError, Done, SnapshotChange};

use super::method::{ChangeMethod, method};

method! {
    /// Lists the snapshots.
    ListSnapshots { ; } -> SnapshotList, repeatable
}

wire::replies! {
    /// Reply of `ListSnapshots`.
    SnapshotList { snapshots: Vec<wire::Snapshot>; }
}

impl ChangeMethod for ListSnapshots {
    // a query, not a change
    const NEEDS: Use = Use::Short;

    fn change(self) -> Result<Change, ChangeError> {
        Ok(Change::Snapshot(SnapshotChange::List))
    }

    fn reply(done: Done) -> Result<SnapshotList, ChangeError> {
        Ok(SnapshotList { snapshots: done.snapshots()?.iter().map(translate::snapshot).collect() })
    }
}
