//! Long operations: replies report the progress, the last one the result.

use std::pin::Pin;

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;

use crate::control::error::WireError;
use crate::vm::{ChangeError, Progress};

/// The content of a reply.
pub(super) enum Step<T> {
    /// Progress.
    Progress(Progress),
    /// The result.
    Done(T),
}

struct Following<T> {
    work: Pin<Box<dyn Future<Output = Result<T, ChangeError>> + Send>>,
    progress: watch::Receiver<Progress>,
}

/// The replies of `work` that is under way: it continues even if the client stops reading.
pub(super) fn follow<T: Send + 'static, R: 'static>(
    work: impl Future<Output = Result<T, ChangeError>> + Send + 'static,
    progress: watch::Receiver<Progress>,
    reply: fn(Step<T>) -> R,
) -> BoxStream<'static, Result<R, WireError>> {
    let following = Following { work: Box::pin(work), progress };
    stream::unfold(Some(following), move |following| async move {
        let (step, following) = following?.next().await;
        Some((step.map(reply).map_err(WireError::from), following))
    })
    .boxed()
}

impl<T> Following<T> {
    async fn next(mut self) -> (Result<Step<T>, ChangeError>, Option<Self>) {
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
                (Ok(Step::Progress(now)), Some(self))
            }
            Some(ended) => (ended.map(Step::Done), None),
        }
    }
}
