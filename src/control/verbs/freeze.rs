//! `freeze`.

use std::time::Duration;

use futures_util::stream::BoxStream;

use crate::control::error::WireError;
use crate::control::parameters::absolute;
use crate::control::translate::milliseconds;
use crate::control::wire;
use crate::vm::{self, Handle, Outcome, Progress};

use super::method::{Stream, StreamMethod, method};
use super::progress::{ProgressReply, follow};
use super::save::outcome_of_saved;

method! {
    /// Freezes the VM into a template, and ends it, unless it keeps running.
    Freeze { folder: String; keep_running: bool, until_unused: bool } -> FreezeReply
}

wire::replies! {
    /// Replies of `Freeze`: the progress, and last how the VM ended; or, if it keeps running, how long its guest was paused.
    FreezeReply { ; done_bytes: u64, total_bytes: u64, outcome: Outcome, paused_ms: u64 }
}

/// What became of a VM that was frozen.
pub(super) enum Frozen {
    Ended(Outcome),
    /// Its guest was paused so long.
    KeepsRunning(Duration),
}

impl ProgressReply for FreezeReply {
    type Result = Frozen;

    fn progress(now: Progress) -> Self {
        let (done, total) = (now.done_bytes, now.total_bytes);
        Self { done_bytes: Some(done), total_bytes: Some(total), outcome: None, paused_ms: None }
    }

    fn done(result: Option<Frozen>) -> Self {
        let (outcome, paused) = match result {
            Some(Frozen::Ended(outcome)) => (Some(outcome), None),
            Some(Frozen::KeepsRunning(paused)) => (None, Some(paused)),
            None => (None, None),
        };
        Self { done_bytes: None, total_bytes: None, outcome, paused_ms: paused.map(milliseconds) }
    }
}

impl Stream for Freeze {}

impl StreamMethod for Freeze {
    fn start(self, vm: &Handle) -> Result<BoxStream<'static, Result<FreezeReply, WireError>>, WireError> {
        let folder = absolute("folder", &self.folder)?;
        let keep_running = self.keep_running.unwrap_or(false);
        let until_unused = self.until_unused.unwrap_or(false);
        let vm = vm.clone();
        Ok(follow(move |progress| async move {
            let frozen = vm.freeze(vm::Freeze { folder, keep_running, until_unused, progress }).await;
            match frozen {
                Ok(done) if keep_running => done.frozen().map(Frozen::KeepsRunning).map(Some),
                frozen => outcome_of_saved(&vm, frozen).await.map(Frozen::Ended).map(Some),
            }
        }))
    }
}
