//! `snapshot-save`.

use futures_util::stream::BoxStream;
use tokio::sync::watch;

use crate::control::error::WireError;
use crate::control::parameters::parse;
use crate::control::{translate, wire};
use crate::vm::{Change, Handle, Progress, SnapshotChange};

use super::method::{Stream, StreamMethod, method};
use super::progress::{Step, follow};

method! {
    /// Saves memory, devices and disks in a snapshot.
    SaveSnapshot { name: String; overwrite: bool } -> SaveSnapshotReply
}

wire::replies! {
    /// Replies of `SaveSnapshot`: the progress, and last the snapshot.
    SaveSnapshotReply { ; done_bytes: u64, total_bytes: u64, snapshot: wire::Snapshot }
}

impl Stream for SaveSnapshot {}

impl StreamMethod for SaveSnapshot {
    fn start(
        self,
        vm: &Handle,
    ) -> Result<BoxStream<'static, Result<SaveSnapshotReply, WireError>>, WireError> {
        let name = parse("name", &self.name)?;
        let (progress, followed) = watch::channel(Progress::default());
        let change = SnapshotChange::Save { name, overwrite: self.overwrite.unwrap_or(false), progress };
        let vm = vm.clone();
        let saved = async move { vm.change(Change::Snapshot(change)).await?.snapshot() };
        Ok(follow(saved, followed, |step| match step {
            Step::Progress(Progress { done_bytes, total_bytes }) => SaveSnapshotReply {
                done_bytes: Some(done_bytes),
                total_bytes: Some(total_bytes),
                snapshot: None,
            },
            Step::Done(made) => {
                let snapshot = Some(translate::snapshot(&made));
                SaveSnapshotReply { done_bytes: None, total_bytes: None, snapshot }
            }
        }))
    }
}
