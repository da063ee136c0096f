//! The events of a VM.

use std::fmt;

use crate::control::client::Replies;
use crate::control::verbs;

use super::Error;

/// The events of a VM, in order. If they are not read in time, the oldest are lost, and their number is reported.
pub struct Events {
    pub(super) replies: Replies<verbs::Events>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// An item of [`Events`].
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// An event.
    Event(verbs::Event),
    /// So many events were lost before the next one, since they were not read in time.
    Lost(u64),
}

impl Events {
    /// The next item; `None` when the VM has ended.
    pub async fn next(&mut self) -> Result<Option<Heard>, Error> {
        loop {
            let Some(reply) = self.replies.next().await? else { return Ok(None) };
            match (reply.event, reply.lost) {
                (Some(event), _) => return Ok(Some(Heard::Event(event))),
                (None, Some(lost)) => return Ok(Some(Heard::Lost(lost))),
                (None, None) => {}
            }
        }
    }
}
