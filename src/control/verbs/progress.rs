//! Long operations: replies report the progress, the last one the result.

use std::pin::Pin;

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;

use crate::control::error::WireError;
use crate::vm::{ChangeError, Progress};

/// A reply of a long operation; see [`progress_reply`].
pub(super) trait ProgressReply: Send + 'static {
    type Result: Send + 'static;

    /// How far the operation is.
    fn progress(now: Progress) -> Self;

    /// The last reply.
    fn done(result: Option<Self::Result>) -> Self;
}

/// Declares the reply of a long operation: the number of bytes while it runs, and a last field for its result.
macro_rules! progress_reply {
    ($(#[$doc:meta])* $name:ident { $result:ident: $type:ty }) => {
        $crate::control::wire::replies! {
            $(#[$doc])*
            $name { ; done_bytes: u64, total_bytes: u64, $result: $type }
        }

        impl $crate::control::verbs::progress::ProgressReply for $name {
            type Result = $type;

            fn progress(now: $crate::vm::Progress) -> Self {
                Self { done_bytes: Some(now.done_bytes), total_bytes: Some(now.total_bytes), $result: None }
            }

            fn done($result: Option<$type>) -> Self {
                Self { done_bytes: None, total_bytes: None, $result }
            }
        }
    };
}
pub(super) use progress_reply;

struct Following<T> {
    work: Pin<Box<dyn Future<Output = Result<T, ChangeError>> + Send>>,
    progress: watch::Receiver<Progress>,
}

/// Runs the work that `start` returns, which reports its progress to the sender; the stream has its replies. A change of the VM
/// that the work has begun continues even if the client stops reading.
pub(super) fn follow<R, W>(
    start: impl FnOnce(watch::Sender<Progress>) -> W,
) -> BoxStream<'static, Result<R, WireError>>
where
    R: ProgressReply,
    W: Future<Output = Result<Option<R::Result>, ChangeError>> + Send + 'static,
{
    let (sender, progress) = watch::channel(Progress::default());
    let following = Following { work: Box::pin(start(sender)), progress };
    stream::unfold(Some(following), |following| async move {
        let (reply, following) = following?.next().await;
        Some((reply.map_err(WireError::from), following))
    })
    .boxed()
}

impl<T: Send + 'static> Following<Option<T>> {
    async fn next<R: ProgressReply<Result = T>>(mut self) -> (Result<R, ChangeError>, Option<Self>) {
        let moved = async {
            if self.progress.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::select! { biased;
            ended = &mut self.work => Some(ended),
            () = moved => None,
        };
        match ended {
            None => {
                let now = *self.progress.borrow_and_update();
                (Ok(R::progress(now)), Some(self))
            }
            Some(ended) => (ended.map(R::done), None),
        }
    }
}
