//! `save`.

use futures_util::stream::BoxStream;

use crate::control::error::WireError;
use crate::control::parameters::absolute;
use crate::vm::{Change, ChangeError, Done, Ending, ErrorKind, Handle, Outcome};

use super::method::{Stream, StreamMethod, method};
use super::progress::{follow, progress_reply};

method! {
    /// Saves the VM to a file, and ends it.
    Save { file: String; } -> SaveReply
}

progress_reply! {
    /// Replies of `Save`: the progress, and last the VM's outcome.
    SaveReply { outcome: Outcome }
}

impl Stream for Save {}

impl StreamMethod for Save {
    fn start(self, vm: &Handle) -> Result<BoxStream<'static, Result<SaveReply, WireError>>, WireError> {
        let file = absolute("file", &self.file)?;
        let vm = vm.clone();
        Ok(follow(|progress| async move {
            let saved = vm.change(Change::Save { file, progress }).await;
            outcome_of_saved(&vm, saved).await.map(Some)
        }))
    }
}

/// The outcome of a VM that ends after it was saved; an error if it was not saved.
pub(super) async fn outcome_of_saved(
    vm: &Handle,
    saved: Result<Done, ChangeError>,
) -> Result<Outcome, ChangeError> {
    let error = match saved {
        Ok(_) => ChangeError::not_running(),
        // QEMU may have died after the last byte was written: the outcome says whether it was saved
        Err(error) if error.kind == ErrorKind::NotRunning => error,
        Err(error) => return Err(error),
    };
    vm.ended().await.filter(|outcome| outcome.ending == Ending::Saved).ok_or(error)
}
