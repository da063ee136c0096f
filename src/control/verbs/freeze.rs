//! `freeze`.

use futures_util::stream::BoxStream;
use tokio::sync::watch;

use crate::control::error::WireError;
use crate::control::parameters::absolute;
use crate::control::wire;
use crate::vm::{Change, ChangeError, Ending, ErrorKind, Handle, Outcome, Progress};

use super::method::{Stream, StreamMethod, method};
use super::progress::{Step, follow};

method! {
    /// Freezes the VM into a template, and ends it, unless it is to go on.
    Freeze { folder: String; keep_running: bool } -> FreezeReply
}

wire::replies! {
    /// Replies of `Freeze`: how far it is, and last how the VM ended, if it has.
    FreezeReply { ; done_bytes: u64, total_bytes: u64, outcome: Outcome }
}

impl Stream for Freeze {}

impl StreamMethod for Freeze {
    fn start(self, vm: &Handle) -> Result<BoxStream<'static, Result<FreezeReply, WireError>>, WireError> {
        let folder = absolute("folder", &self.folder)?;
        let keep_running = self.keep_running.unwrap_or(false);
        let (progress, followed) = watch::channel(Progress::default());
        let vm = vm.clone();
        let frozen = async move {
            let error = match vm.change(Change::Freeze { folder, keep_running, progress }).await {
                Ok(_) if keep_running => return Ok(None),
                Ok(_) => ChangeError::not_running(),
                // QEMU may have died when the template was whole already
                Err(error) if error.kind == ErrorKind::NotRunning => error,
                Err(error) => return Err(error),
            };
            vm.ended().await.filter(|outcome| outcome.ending == Ending::Saved).map(Some).ok_or(error)
        };
        Ok(follow(frozen, followed, |step| match step {
            Step::Progress(Progress { done_bytes, total_bytes }) => {
                FreezeReply { done_bytes: Some(done_bytes), total_bytes: Some(total_bytes), outcome: None }
            }
            Step::Done(outcome) => FreezeReply { done_bytes: None, total_bytes: None, outcome },
        }))
    }
}
