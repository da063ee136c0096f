//! `freeze`.

use futures_util::stream::BoxStream;

use crate::control::error::WireError;
use crate::control::parameters::absolute;
use crate::vm::{Change, Handle, Outcome};

use super::method::{Stream, StreamMethod, method};
use super::progress::{follow, progress_reply};
use super::save::outcome_of_saved;

method! {
    /// Freezes the VM into a template, and ends it, unless it keeps running.
    Freeze { folder: String; keep_running: bool } -> FreezeReply
}

progress_reply! {
    /// Replies of `Freeze`: the progress, and last how the VM ended, if it has.
    FreezeReply { outcome: Outcome }
}

impl Stream for Freeze {}

impl StreamMethod for Freeze {
    fn start(self, vm: &Handle) -> Result<BoxStream<'static, Result<FreezeReply, WireError>>, WireError> {
        let folder = absolute("folder", &self.folder)?;
        let keep_running = self.keep_running.unwrap_or(false);
        let vm = vm.clone();
        Ok(follow(move |progress| async move {
            let frozen = vm.change(Change::Freeze { folder, keep_running, progress }).await;
            match frozen {
                Ok(_) if keep_running => Ok(None),
                frozen => outcome_of_saved(&vm, frozen).await.map(Some),
            }
        }))
    }
}
