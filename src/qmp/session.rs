//! One connection to QEMU's monitor.
//!
//! ```text
//!   run, submit ──► pending commands (by id), bytes to write ──► writer task ──► socket
//!                     ▲ answers                                                       │
//!                     └───────────────────── reader task ◄────────────────────────────┘
//!                                                 └──► event queue ──► EventReceiver
//! ```
//! Callers may be cancelled at any point: only the writer task writes, only the reader task reads.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::UnixStream;

pub use super::error::{CommandError, SessionError};
pub use super::limits::{COMMAND_TIMEOUT, GREETING_TIMEOUT, Limits};
pub use super::message::Greeting;
pub use super::pending::Pending;
pub use super::queue::{Delivery, EventReceiver};

use super::lines::Lines;
use super::pending_commands::PendingCommands;
use super::queue;
use super::tasks::{Reader, write_all};
use super::transcript::Transcript;
use crate::qemu::Command;

/// How a session should behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long to wait for the greeting, and again for the end of negotiation.
    pub greeting_timeout: Duration,
    /// How long a command may take, unless its `Pending` says otherwise.
    pub command_timeout: Duration,
    /// Where to record what is said.
    pub transcript: Option<Transcript>,
    /// Bounds of memory.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            greeting_timeout: GREETING_TIMEOUT,
            command_timeout: COMMAND_TIMEOUT,
            transcript: None,
            limits: Limits::default(),
        }
    }
}

/// A session that is ready for commands.
#[derive(Debug)]
pub struct Connected {
    /// For commands.
    pub session: Session,
    /// For events, those before the greeting included.
    pub events: EventReceiver,
    /// What QEMU said of itself.
    pub greeting: Greeting,
}

/// A handle on a session; clones speak over the same connection, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct Session(Arc<Handle>);

/// Closes the connection when the last clone is dropped.
pub(super) struct Handle {
    commands: Arc<PendingCommands>,
    command_timeout: Duration,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.commands.hang_up.notify_one();
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Session").field("end", &self.commands.end()).finish_non_exhaustive()
    }
}

impl Session {
    /// Reads the greeting, leaves negotiation mode (without out-of-band execution) and starts the session's two tasks.
    /// Needs a tokio runtime with time and I/O, as everything here does.
    ///
    /// # Errors
    /// No greeting in time, no monitor at the other end, or it went away.
    pub async fn connect(stream: UnixStream, options: Options) -> Result<Connected, SessionError> {
        let Options { greeting_timeout, command_timeout, transcript, limits } = options;
        let (read, write) = stream.into_split();
        let (sender, events) = queue::channel(limits.clone());
        let lines = Lines::new(read, limits.line);
        let commands = Arc::new(PendingCommands::new(limits));
        let mut reader =
            Reader { lines, commands: commands.clone(), events: sender, transcript: transcript.clone() };
        let greeting = tokio::time::timeout(greeting_timeout, reader.greeting())
            .await
            .map_err(|_| SessionError::NoGreeting { after: greeting_timeout })??;

        tokio::spawn(reader.run());
        tokio::spawn(write_all(write, commands.clone(), transcript));
        let session = Self(Arc::new(Handle { commands, command_timeout }));
        let negotiated = session.submit_raw("qmp_capabilities", None).within(greeting_timeout).await;
        match (negotiated, session.end()) {
            (Ok(_), _) => Ok(Connected { session, events, greeting }),
            (Err(CommandError::Disconnected), Some(why)) => Err(why),
            (Err(CommandError::Refused { desc, .. }), _) => Err(SessionError::Negotiation { why: desc }),
            (Err(error), _) => Err(SessionError::Negotiation { why: error.to_string() }),
        }
    }

    /// Runs a command and gives what it returned.
    ///
    /// # Errors
    /// QEMU refused it, did not answer in time, or is gone.
    pub async fn run(&self, command: &Command) -> Result<Value, CommandError> {
        self.submit(command).await
    }

    /// Runs a command of crate `qapi`. Only for commands whose answers do not change between versions of QEMU: the
    /// crate's types refuse what they do not know.
    ///
    /// # Errors
    /// As `run`; `Decode` if the answer does not fit its type.
    pub async fn execute<C: qapi::qmp::QmpCommand>(&self, command: C) -> Result<C::Ok, CommandError> {
        let answer = self.queue(&[(C::NAME, Some(&command))], None).remove(0).await?;
        decoded(C::NAME, answer)
    }

    /// Queues a command without waiting; commands are written in the order of these calls.
    pub fn submit(&self, command: &Command) -> Pending {
        self.queue(&[request(command)], None).remove(0)
    }

    /// Queues commands without waiting, to be written in one go. If they do not all fit, none is sent.
    pub fn submit_all(&self, commands: &[Command]) -> Vec<Pending> {
        self.queue(&commands.iter().map(request).collect::<Vec<_>>(), None)
    }

    /// Queues a command whose arguments are passed on as they are, right or wrong.
    pub fn submit_raw(&self, execute: &str, arguments: Option<Value>) -> Pending {
        self.queue(&[(execute, arguments)], None).remove(0)
    }

    /// Queues `getfd`, which makes a descriptor known to QEMU under a name; `fd:NAME` uses it, `closefd` gives it up.
    /// What is queued after it is written only once QEMU has answered: it takes the last descriptor that came.
    pub fn pass(&self, name: &str, descriptor: OwnedFd) -> Pending {
        let arguments = Some(json!({ "fdname": name }));
        self.queue(&[("getfd", arguments)], Some(descriptor)).remove(0)
    }

    /// Runs a command of the human monitor and gives the text it printed. An error is such a text too: see `hmp`.
    ///
    /// # Errors
    /// As `run`.
    pub async fn hmp(&self, line: &str) -> Result<String, CommandError> {
        self.text(&Command::hmp(line)).await
    }

    /// Runs a command whose answer is a text.
    ///
    /// # Errors
    /// As [`Self::run`], and for an answer that is none.
    pub async fn text(&self, command: &Command) -> Result<String, CommandError> {
        match self.run(command).await? {
            Value::String(text) => Ok(text),
            other => Err(CommandError::Decode {
                command: command.execute.clone(),
                why: format!("not a text: {other}"),
            }),
        }
    }

    /// Ends the session now. Commands that were not written yet are not sent.
    pub fn close(&self) {
        self.0.commands.shut();
        self.0.commands.hang_up.notify_one();
    }

    /// Resolves when the session has ended, for whatever reason. Safe to cancel.
    pub async fn closed(&self) {
        self.0.commands.ended().await;
    }

    /// Why the session ended, once it has.
    pub fn end(&self) -> Option<SessionError> {
        self.0.commands.end()
    }

    /// How many commands QEMU has not answered, abandoned ones included.
    pub fn outstanding(&self) -> usize {
        self.0.commands.outstanding()
    }

    fn queue<A: Serialize>(
        &self,
        commands: &[(&str, Option<A>)],
        descriptor: Option<OwnedFd>,
    ) -> Vec<Pending> {
        let replies = self.0.commands.submit(commands, descriptor);
        let pending = |((name, _), reply): (&(&str, _), _)| {
            Pending::new(name, reply, self.0.command_timeout, self.0.clone())
        };
        commands.iter().zip(replies).map(pending).collect()
    }
}

fn request(command: &Command) -> (&str, Option<&serde_json::Map<String, Value>>) {
    (&command.execute, (!command.arguments.is_empty()).then_some(&command.arguments))
}

/// An answer in its type.
///
/// # Errors
/// `Decode`: it does not fit.
pub fn decoded<T: DeserializeOwned>(command: &str, answer: Value) -> Result<T, CommandError> {
    serde_json::from_value(answer)
        .map_err(|error| CommandError::Decode { command: command.to_owned(), why: error.to_string() })
}
