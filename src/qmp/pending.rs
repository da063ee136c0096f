//! What a caller holds of a command that was sent.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use super::error::CommandError;
use super::pending_commands::Answer;
use super::session::Handle;

/// A command on its way to QEMU: a future of its answer. It is sent whether or not this is awaited; dropping it is
/// safe, the answer is then ignored when it comes.
#[must_use = "the answer says whether the command worked"]
pub struct Pending {
    command: String,
    reply: oneshot::Receiver<Answer>,
    submitted: Instant,
    after: Duration,
    deadline: Pin<Box<Sleep>>,
    /// Keeps the connection open while a caller waits for an answer.
    _handle: Arc<Handle>,
}

impl Pending {
    pub(super) fn new(
        command: &str,
        reply: oneshot::Receiver<Answer>,
        after: Duration,
        handle: Arc<Handle>,
    ) -> Self {
        let submitted = Instant::now();
        let deadline = Box::pin(tokio::time::sleep_until(later(submitted, after)));
        Self { command: command.to_owned(), reply, submitted, after, deadline, _handle: handle }
    }

    /// Another deadline than the session's, counted from when the command was submitted.
    pub fn within(mut self, after: Duration) -> Self {
        self.after = after;
        self.deadline.as_mut().reset(later(self.submitted, after));
        self
    }

    /// The command's name.
    pub fn command(&self) -> &str {
        &self.command
    }
}

/// `Duration::MAX` is a way to say "never".
fn later(start: Instant, after: Duration) -> Instant {
    const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    start + after.min(A_YEAR)
}

impl Future for Pending {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        if let Poll::Ready(answer) = Pin::new(&mut self.reply).poll(context) {
            return Poll::Ready(answer.unwrap_or(Err(CommandError::Disconnected)));
        }
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(Err(CommandError::Timeout { command: self.command.clone(), after: self.after }))
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pending").field("command", &self.command).finish_non_exhaustive()
    }
}
