//! The guest agent (`qemu-ga`): one command at a time over a virtio-serial port's socket.
//!
//! There is no greeting and there are no ids. What ties an answer to its command is `guest-sync-delimited`: its answer
//! has a byte 0xFF before it and returns the number that was sent. It is repeated whenever an answer may still be on
//! its way: at the start, and after a command that was cancelled or timed out. The guest is not trusted at all.

use std::io;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::lines::{LineError, Lines};
use super::message::{Message, Refusal};
use super::transcript::{Direction, Transcript};
use crate::qemu::Command;

/// Longest answer, in bytes. `guest-exec-status` holds up to 16 MiB of stdout and as much of stderr, in base64.
pub const LONGEST_ANSWER: usize = 48 << 20;

/// How long a command may take unless the caller says otherwise. Freezing a busy file system takes longest.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// When to ask again whether the agent is there, doubled each time: a request that came before the agent had opened
/// its port may be lost, and one that was not will be answered once more.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Resets the agent's parser, should half a command be in it.
const RESET: u8 = 0xFF;

/// Why an agent's command has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The agent answered with an error.
    #[error("the guest agent refused {command}: {desc}")]
    Refused {
        /// The agent's error class, e.g. `GenericError`, `CommandNotFound`.
        class: String,
        /// The agent's own words.
        desc: String,
        /// The command's name.
        command: String,
    },
    /// No answer in time: there is no agent, or it is busy.
    #[error("the guest agent did not answer {command} within {after:?}")]
    Timeout {
        /// The command's name.
        command: String,
        /// How long was waited.
        after: Duration,
    },
    /// QEMU closed the connection.
    #[error("the connection to the guest agent has ended")]
    Disconnected,
    /// The answer is not what was expected.
    #[error("cannot make sense of the guest agent's answer to {command}: {why}")]
    Decode {
        /// The command's name.
        command: String,
        /// What does not fit.
        why: String,
    },
    /// The answer is over the limit.
    #[error("the guest agent's answer has more than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Reading or writing failed.
    #[error("cannot speak with the guest agent")]
    Io(#[source] io::Error),
}

impl From<LineError> for AgentError {
    fn from(error: LineError) -> Self {
        match error {
            LineError::TooLong => Self::TooLong { limit: LONGEST_ANSWER },
            LineError::CutOff => Self::Disconnected,
            LineError::Io(error) => Self::from(error),
        }
    }
}

impl From<io::Error> for AgentError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Disconnected,
            _ => Self::Io(error),
        }
    }
}

/// A connection to a guest agent, which need not be there yet. Every method is safe to cancel.
#[derive(Debug)]
pub struct Agent {
    lines: Lines<OwnedReadHalf>,
    write: OwnedWriteHalf,
    transcript: Option<Transcript>,
    /// Nothing is on its way, in either direction.
    in_step: bool,
}

impl Agent {
    /// Takes over the host's end of the agent's port.
    pub fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self { lines: Lines::new(read, LONGEST_ANSWER), write, transcript: None, in_step: false }
    }

    /// Records what is said.
    pub fn with_transcript(mut self, transcript: Option<Transcript>) -> Self {
        self.transcript = transcript;
        self
    }

    /// Waits until the agent answers, and drops whatever answers to earlier commands are on their way.
    ///
    /// # Errors
    /// `Timeout` if it does not answer within `after`; it may later.
    pub async fn sync(&mut self, after: Duration) -> Result<(), AgentError> {
        self.in_step = false;
        timeout(after, self.find_step())
            .await
            .unwrap_or_else(|_| Err(timed_out("guest-sync-delimited", after)))?;
        self.in_step = true;
        Ok(())
    }

    /// Runs a command, after a `sync` if one is due.
    ///
    /// # Errors
    /// The agent refused it, did not answer within 30 s, or is gone.
    pub async fn run(&mut self, command: &Command) -> Result<Value, AgentError> {
        self.run_within(command, COMMAND_TIMEOUT).await
    }

    /// As `run`, with another deadline.
    ///
    /// # Errors
    /// As `run`.
    pub async fn run_within(&mut self, command: &Command, after: Duration) -> Result<Value, AgentError> {
        let late = |_| Err(timed_out(&command.execute, after));
        timeout(after, self.exchange(command)).await.unwrap_or_else(late)
    }

    /// Sends a command that has no answer if it works: `guest-shutdown`, `guest-suspend-*`. Gives up waiting for an
    /// error after `grace`, or when the connection ends.
    ///
    /// # Errors
    /// The agent refused it, or (before it was sent) is not there.
    pub async fn tell(&mut self, command: &Command, grace: Duration) -> Result<(), AgentError> {
        if !self.in_step {
            self.sync(grace).await?;
        }
        match self.run_within(command, grace).await {
            Ok(_) | Err(AgentError::Timeout { .. } | AgentError::Disconnected) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn exchange(&mut self, command: &Command) -> Result<Value, AgentError> {
        if !self.in_step {
            self.find_step().await?;
        }
        self.in_step = false;
        self.send(&[], command).await?;
        let result = loop {
            let line = self.line().await?;
            match Message::parse(line) {
                Some(Message::Reply { result, .. }) => break result,
                Some(_) => {}
                None if line.is_empty() => {}
                None => return Err(garbage(&command.execute)),
            }
        };
        self.in_step = true;
        result.map_err(|Refusal { class, desc }| AgentError::Refused {
            class,
            desc,
            command: command.execute.clone(),
        })
    }

    /// Asks for a number until the agent says the last one asked for.
    async fn find_step(&mut self) -> Result<(), AgentError> {
        let mut retry = FIRST_RETRY;
        loop {
            // Positive and exact in any JSON implementation.
            let number = i64::from(rand::random::<u32>());
            let sync = Command::new("guest-sync-delimited", json!({ "id": number }));
            // Not under the retry's clock: a write cut in half would have to be followed by another at once.
            self.send(&[RESET], &sync).await?;
            match timeout(retry, self.find_number(number)).await {
                Ok(found) => return found,
                Err(_) => retry *= 2,
            }
        }
    }

    async fn find_number(&mut self, number: i64) -> Result<(), AgentError> {
        loop {
            let line = match self.line().await {
                Err(AgentError::TooLong { .. }) => continue,
                line => line?,
            };
            // What is before the byte is the rest of an answer that was cut off.
            let Some(delimiter) = line.iter().rposition(|&byte| byte == RESET) else { continue };
            match Message::parse(&line[delimiter + 1..]) {
                Some(Message::Reply { result: Ok(value), .. }) if value.as_i64() == Some(number) => {
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    async fn line(&mut self) -> Result<&[u8], AgentError> {
        // A guest that floods must not keep the others from their turn, nor a deadline from being noticed.
        tokio::task::consume_budget().await;
        let line = self.lines.next().await?.ok_or(AgentError::Disconnected)?;
        if let Some(transcript) = &self.transcript {
            transcript.record(Direction::In, line);
        }
        Ok(line)
    }

    async fn send(&mut self, before: &[u8], command: &Command) -> Result<(), AgentError> {
        let json = serde_json::to_vec(command).map_err(|error| AgentError::Decode {
            command: command.execute.clone(),
            why: error.to_string(),
        })?;
        if let Some(transcript) = &self.transcript {
            transcript.record(Direction::Out, &json);
        }
        self.write.write_all(&[before, &json, b"\n"].concat()).await?;
        Ok(())
    }
}

fn timed_out(command: &str, after: Duration) -> AgentError {
    AgentError::Timeout { command: command.to_owned(), after }
}

/// An answer in its type.
///
/// # Errors
/// `Decode`: it does not fit.
pub fn decoded<T: DeserializeOwned>(command: &str, answer: Value) -> Result<T, AgentError> {
    serde_json::from_value(answer)
        .map_err(|error| AgentError::Decode { command: command.to_owned(), why: error.to_string() })
}

fn garbage(command: &str) -> AgentError {
    AgentError::Decode { command: command.to_owned(), why: "not a JSON object".to_owned() }
}
