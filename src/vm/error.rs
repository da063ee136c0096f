//! Errors of changes.

use thiserror::Error;

use crate::qmp::{CommandError, SessionError};

/// Why a change of a running VM was refused or failed. The message is complete without its source.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct ChangeError {
    /// The kind of failure; decides the protocol's error and the exit code.
    pub kind: ErrorKind,
    /// One sentence: what failed and why.
    pub message: String,
    /// What the user can do about it.
    pub hint: Option<String>,
}

/// The kinds of failure of a change, one for each error of the control protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// The VM has ended, or QEMU does not answer any more.
    NotRunning,
    /// A parameter is invalid.
    InvalidArgument {
        /// Its name.
        parameter: Option<String>,
    },
    /// There is no device (forward, file …) of this id.
    NoSuchThing {
        /// The id.
        id: String,
    },
    /// The id, file or forward is in use.
    AlreadyThere {
        /// The id.
        id: String,
    },
    /// No slot is free.
    NoFreeSlot,
    /// Not possible in the present state.
    NotNow {
        /// The state.
        state: String,
    },
    /// This machine does not support it.
    NotSupported,
    /// QEMU refused.
    RefusedByQemu {
        /// QMP's error class.
        class: String,
    },
    /// The guest refused.
    RefusedByGuest {
        /// The device.
        id: String,
    },
    /// No guest agent answers.
    NoGuestAgent,
    /// The guest's kernel panicked during a wait.
    GuestPanicked,
    /// It did not happen before the deadline.
    TimedOut,
    /// Something on the host prevents it.
    HostProblem,
}

impl ChangeError {
    /// An error without a hint.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// The same error with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A parameter is invalid.
    pub fn invalid(parameter: &str, why: impl Into<Box<dyn std::error::Error>>) -> Self {
        Self::new(
            ErrorKind::InvalidArgument { parameter: Some(parameter.to_owned()) },
            why.into().as_ref().with_causes(),
        )
    }

    /// Something on the host prevents it.
    pub fn host(why: impl Into<Box<dyn std::error::Error>>) -> Self {
        Self::new(ErrorKind::HostProblem, why.into().as_ref().with_causes())
    }

    /// An error of the host layer, with its hint.
    pub fn hinted<E: std::error::Error + 'static>(hint: fn(&E) -> Option<String>) -> impl Fn(E) -> Self {
        move |error| {
            let hint = hint(&error);
            Self { hint, ..Self::host(error) }
        }
    }

    /// The machine does not support it.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotSupported, message)
    }

    /// There is no such device or forward.
    pub fn no_such(what: &str, id: impl ToString) -> Self {
        let id = id.to_string();
        let message = format!("this VM has no {what} '{id}'");
        Self::new(ErrorKind::NoSuchThing { id }, message)
    }

    /// QEMU runs, but its monitor cannot be used.
    pub(super) fn unreachable(why: &SessionError) -> Self {
        Self::new(
            ErrorKind::NotRunning,
            format!("vmrun cannot use QEMU's monitor any more: {}", why.with_causes()),
        )
        .hint("`vmrun ctl shutdown` ends it")
    }

    /// The VM has ended.
    pub fn not_running() -> Self {
        Self::new(ErrorKind::NotRunning, "the VM has ended")
    }
}

/// The message of an error with those of all its sources.
pub trait ErrorChain {
    /// All messages, joined with `: `.
    fn with_causes(&self) -> String;
}

impl<E: std::error::Error + ?Sized> ErrorChain for E {
    fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

impl From<CommandError> for ChangeError {
    fn from(error: CommandError) -> Self {
        let message = error.to_string();
        match error {
            CommandError::Refused { class, .. } => Self::new(ErrorKind::RefusedByQemu { class }, message),
            CommandError::Disconnected => Self::not_running(),
            CommandError::Timeout { .. } => Self::new(ErrorKind::TimedOut, message)
                .hint("QEMU is stopped or overloaded; what was sent may still happen"),
            _ => Self::new(ErrorKind::RefusedByQemu { class: "GenericError".to_owned() }, message),
        }
    }
}
