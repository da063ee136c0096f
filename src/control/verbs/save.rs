//! `save`.

use futures_util::stream::BoxStream;
use tokio::sync::watch;

use crate::control::error::WireError;
use crate::control::parameters::absolute;
use crate::control::wire;
use crate::vm::{Change, ChangeError, Ending, ErrorKind, Handle, Outcome, Progress};

use super::method::{Stream, StreamMethod, method};
use super::progress::{Step, follow};

method! {
    /// Saves the whole VM to a file, and ends it.
    Save { file: String; } -> SaveReply
}

wire::replies! {
    /// Replies of `Save`: the progress, and last the VM's outcome.
    SaveReply { ; done_bytes: u64, total_bytes: u64, outcome: Outcome }
}

impl Stream for Save {}

impl StreamMethod for Save {
    fn start(self, vm: &Handle) -> Result<BoxStream<'static, Result<SaveReply, WireError>>, WireError> {
        let file = absolute("file", &self.file)?;
        let (progress, followed) = watch::channel(Progress::default());
        let vm = vm.clone();
        let saved = async move {
            let error = match vm.change(Change::Save { file, progress }).await {
                Ok(_) => ChangeError::not_running(),
                // QEMU may have died after the file was complete
                Err(error) if error.kind == ErrorKind::NotRunning => error,
                Err(error) => return Err(error),
            };
            vm.ended().await.filter(|outcome| outcome.ending == Ending::Saved).ok_or(error)
        };
        Ok(follow(saved, followed, |step| match step {
            Step::Progress(Progress { done_bytes, total_bytes }) => {
                SaveReply { done_bytes: Some(done_bytes), total_bytes: Some(total_bytes), outcome: None }
            }
            Step::Done(outcome) => SaveReply { done_bytes: None, total_bytes: None, outcome: Some(outcome) },
        }))
    }
}
