//! The methods for snapshots, and for saving a whole VM: what takes long and is followed.

use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::qemu::snapshot::Snapshot;
use crate::spec::SnapshotName;
use crate::vm::{Change, ChangeError, Done, Ending, ErrorKind, Handle, Progress, SnapshotChange};

use super::dispatch::read;
use super::error::WireError;
use super::service::Answer;
use super::translate::{absolute, parse};
use super::wire;

/// `SaveSnapshot`: how far it is, and last the snapshot.
pub(super) fn save(parameters: Value, vm: &Handle) -> Result<Answer, WireError> {
    let wire::SaveSnapshot { name, overwrite } = read(parameters)?;
    let name: SnapshotName = parse("name", &name)?;
    let (progress, followed) = watch::channel(Progress::default());
    let change = SnapshotChange::Save { name, overwrite: overwrite.unwrap_or(false), progress };
    let vm = vm.clone();
    let done = Box::pin(async move { vm.change(Change::Snapshot(change)).await });
    let following = Following { done, progress: followed };
    Ok(Answer::Stream(Box::pin(stream::unfold(Some(following), |following| async move {
        Some(following?.next().await)
    }))))
}

/// `Save`: how far it is, and last how the VM ended.
pub(super) fn save_vm(parameters: Value, vm: &Handle) -> Result<Answer, WireError> {
    let wire::Save { file } = read(parameters)?;
    let file = absolute("file", &file)?;
    let (progress, followed) = watch::channel(Progress::default());
    let vm = vm.clone();
    let done = Box::pin(async move {
        let error = match vm.change(Change::Save { file, progress }).await {
            Ok(_) => ChangeError::not_running(),
            // QEMU may have died when the file was there already
            Err(error) if error.kind == ErrorKind::NotRunning => error,
            Err(error) => return Err(error),
        };
        let outcome = vm.ended().await.filter(|outcome| outcome.ending == Ending::Saved);
        outcome.map(Done::Ended).ok_or(error)
    });
    let following = Following { done, progress: followed };
    Ok(Answer::Stream(Box::pin(stream::unfold(Some(following), |following| async move {
        Some(following?.next().await)
    }))))
}

/// Something that is under way: it goes on even if nobody follows it any more.
struct Following<F> {
    done: F,
    progress: watch::Receiver<Progress>,
}

impl<F: Future<Output = Result<Done, ChangeError>> + Unpin> Following<F> {
    async fn next(mut self) -> (Result<Value, WireError>, Option<Self>) {
        let moved = async {
            if self.progress.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::select! { biased;
            ended = &mut self.done => Some(ended),
            () = moved => None,
        };
        match ended {
            None => {
                let now = *self.progress.borrow_and_update();
                (Ok(json!(progress(now))), Some(self))
            }
            Some(Ok(Done::Ended(outcome))) => (
                Ok(json!(wire::SaveReply { done_bytes: None, total_bytes: None, outcome: Some(outcome) })),
                None,
            ),
            Some(Ok(done)) => (Ok(json!(end(done))), None),
            Some(Err(error)) => (Err(error.into()), None),
        }
    }
}

fn progress(progress: Progress) -> wire::SaveSnapshotReply {
    let Progress { done_bytes, total_bytes } = progress;
    wire::SaveSnapshotReply { done_bytes: Some(done_bytes), total_bytes: Some(total_bytes), snapshot: None }
}

fn end(done: Done) -> wire::SaveSnapshotReply {
    let snapshot = match done {
        Done::Snapshot(snapshot) => Some(translated(&snapshot)),
        _ => None,
    };
    wire::SaveSnapshotReply { done_bytes: None, total_bytes: None, snapshot }
}

/// As it travels.
pub(super) fn translated(snapshot: &Snapshot) -> wire::Snapshot {
    wire::Snapshot {
        name: snapshot.name.clone(),
        id: snapshot.id.clone(),
        created_unix_ms: snapshot.created_unix_ms,
        vm_clock_ms: snapshot.vm_clock_ms,
        state_bytes: snapshot.state_bytes,
        disks: snapshot.disks.clone(),
        missing: snapshot.missing.clone(),
        loadable: snapshot.is_complete(),
    }
}
