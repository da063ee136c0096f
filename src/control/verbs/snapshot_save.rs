//! `snapshot-save`.

use futures_util::stream::BoxStream;

use crate::control::error::WireError;
use crate::control::parameters::parse;
use crate::control::{translate, wire};
use crate::vm::{Change, Handle, SnapshotChange};

use super::method::{Stream, StreamMethod, method};
use super::progress::{follow, progress_reply};

method! {
    /// Saves memory, devices and disks in a snapshot.
    SaveSnapshot { name: String; overwrite: bool } -> SaveSnapshotReply
}

progress_reply! {
    /// Replies of `SaveSnapshot`: the progress, and last the snapshot.
    SaveSnapshotReply { snapshot: wire::Snapshot }
}

impl Stream for SaveSnapshot {}

impl StreamMethod for SaveSnapshot {
    fn start(
        self,
        vm: &Handle,
    ) -> Result<BoxStream<'static, Result<SaveSnapshotReply, WireError>>, WireError> {
        let name = parse("name", &self.name)?;
        let overwrite = self.overwrite.unwrap_or(false);
        let vm = vm.clone();
        Ok(follow(move |progress| async move {
            let change = SnapshotChange::Save { name, overwrite, progress };
            let made = vm.change(Change::Snapshot(change)).await?.snapshot()?;
            Ok(Some(translate::snapshot(&made)))
        }))
    }
}
