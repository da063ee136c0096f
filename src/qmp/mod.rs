//! QEMU's monitor protocol: sessions, events, the text of the human monitor, the guest agent.
//!
//! Nothing here knows what a VM is. The peer is not trusted with time or memory: lines, queues and waits are bounded.

pub mod agent;
pub mod event;
pub mod hmp;
pub mod qtree;
pub mod session;
pub mod transcript;

mod error;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod limits;
mod lines;
mod message;
mod pending;
mod pending_commands;
mod queue;
mod tasks;
#[cfg(test)]
mod tests;

pub use agent::{Agent, AgentError};
pub use event::{Event, View};
pub use session::{
    CommandError, Connected, Delivery, EventReceiver, Options, Pending, Session, SessionError, decoded,
};
pub use transcript::Transcript;
