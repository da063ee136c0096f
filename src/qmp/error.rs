//! What can go wrong with a session, and with one command.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::lines::LineError;

/// Why a session could not begin, or why it ended.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// No greeting came: another client holds the monitor, or QEMU is stuck.
    #[error("QEMU's monitor did not greet within {after:?}")]
    NoGreeting {
        /// How long was waited.
        after: Duration,
    },
    /// `qmp_capabilities` failed.
    #[error("QEMU's monitor did not leave negotiation mode: {why}")]
    Negotiation {
        /// QEMU's description, or what happened instead of an answer.
        why: String,
    },
    /// QEMU closed the connection: as a rule it has ended.
    #[error("QEMU closed its monitor")]
    Ended,
    /// QEMU closed the connection in the middle of a message: as a rule it was killed.
    #[error("QEMU closed its monitor in the middle of a message")]
    CutOff,
    /// What came is no JSON object.
    #[error("QEMU's monitor sent what is no message: {excerpt:?}")]
    Garbage {
        /// The beginning of it.
        excerpt: String,
    },
    /// A message is over the limit.
    #[error("QEMU's monitor sent a message of more than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Reading failed.
    #[error("cannot read from QEMU's monitor")]
    Io(#[source] Arc<io::Error>),
    /// This side closed it.
    #[error("the session with QEMU's monitor was closed")]
    HungUp,
}

impl SessionError {
    /// QEMU did not end, as far as is known: it broke the protocol.
    pub fn is_breach(&self) -> bool {
        !matches!(self, Self::Ended | Self::CutOff | Self::HungUp)
    }

    pub(super) fn from_line(error: LineError, limit: usize) -> Self {
        match error {
            LineError::TooLong => Self::TooLong { limit },
            LineError::CutOff => Self::CutOff,
            // A QEMU that ends with unread commands in its socket resets the connection; what it had
            // sent before is read first.
            LineError::Io(error) if error.kind() == io::ErrorKind::ConnectionReset => Self::Ended,
            LineError::Io(error) => Self::Io(Arc::new(error)),
        }
    }

    pub(super) fn garbage(line: &[u8]) -> Self {
        /// Enough to recognise what it is.
        const EXCERPT: usize = 120;
        let end = line.len().min(EXCERPT);
        Self::Garbage { excerpt: String::from_utf8_lossy(&line[..end]).into_owned() }
    }
}

/// Why a command has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// QEMU answered with an error.
    #[error("QEMU refused {command}: {desc}")]
    Refused {
        /// QEMU's error class, e.g. `GenericError`, `DeviceNotFound`, `CommandNotFound`.
        class: String,
        /// QEMU's own words.
        desc: String,
        /// The command's name.
        command: String,
    },
    /// The session ended before the answer; see `Session::end` for why.
    #[error("the connection to QEMU's monitor has ended")]
    Disconnected,
    /// No answer in time. The command may still be carried out.
    #[error("QEMU did not answer {command} within {after:?}")]
    Timeout {
        /// The command's name.
        command: String,
        /// How long was waited.
        after: Duration,
    },
    /// The answer is not what was expected.
    #[error("cannot make sense of QEMU's answer to {command}: {why}")]
    Decode {
        /// The command's name.
        command: String,
        /// What does not fit.
        why: String,
    },
    /// The command is too long to send. Nothing was sent.
    #[error("{command} is too long for QEMU's monitor: more than {limit} bytes")]
    TooLong {
        /// The command's name.
        command: String,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Too many commands wait for QEMU already. Nothing was sent.
    #[error("too many commands wait for QEMU's monitor")]
    Busy,
}

impl CommandError {
    /// Whether QEMU's error has this class, e.g. `DeviceNotFound`.
    pub fn is_class(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { class, .. } if class == wanted)
    }
}
