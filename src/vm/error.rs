//! Why a change, or a start, did not happen.

use thiserror::Error;

use crate::qmp::{CommandError, SessionError};

use crate::vm::state::outcome::{Ending, Outcome};

/// Why a change of a running VM was refused or failed. The message never needs its source to be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct ChangeError {
    /// What kind of failure; decides the protocol's error and the exit code.
    pub kind: ErrorKind,
    /// One sentence: what failed and why.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Kinds of failure of a change, one for each error of the control protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// The VM has ended or QEMU no longer answers.
    NotRunning,
    /// A parameter makes no sense.
    InvalidArgument {
        /// Its name.
        parameter: Option<String>,
    },
    /// There is nothing of this id.
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
    /// Not in this state.
    NotNow {
        /// The state.
        state: String,
    },
    /// This machine cannot do it.
    NotSupported,
    /// QEMU said no.
    RefusedByQemu {
        /// QMP's error class.
        class: String,
    },
    /// The guest said no.
    RefusedByGuest {
        /// The device.
        id: String,
    },
    /// No guest agent answers.
    NoGuestAgent,
    /// The guest's kernel panicked while something else was waited for.
    GuestPanicked,
    /// It did not happen in time.
    TimedOut,
    /// Something on the host is in the way.
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

    /// A parameter makes no sense.
    pub fn invalid(parameter: &str, why: impl Into<Box<dyn std::error::Error>>) -> Self {
        Self::new(
            ErrorKind::InvalidArgument { parameter: Some(parameter.to_owned()) },
            why.into().as_ref().with_causes(),
        )
    }

    /// Something on the host is in the way.
    pub fn host(why: impl Into<Box<dyn std::error::Error>>) -> Self {
        Self::new(ErrorKind::HostProblem, why.into().as_ref().with_causes())
    }

    /// An error of the host layer, with what it hints at.
    pub fn hinted<E: std::error::Error + 'static>(hint: fn(&E) -> Option<String>) -> impl Fn(E) -> Self {
        move |error| {
            let hint = hint(&error);
            Self { hint, ..Self::host(error) }
        }
    }

    /// The machine cannot do it.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotSupported, message)
    }

    /// There is no such device or forward.
    pub fn no_such(what: &str, id: impl ToString) -> Self {
        let id = id.to_string();
        let message = format!("this VM has no {what} '{id}'");
        Self::new(ErrorKind::NoSuchThing { id }, message)
    }

    /// QEMU runs, and cannot be spoken with.
    pub(super) fn unreachable(why: &SessionError) -> Self {
        Self::new(
            ErrorKind::NotRunning,
            format!("vmrun cannot speak with QEMU any more: {}", why.with_causes()),
        )
        .hint("`vmrun ctl shutdown` ends it")
    }

    /// The VM has ended.
    pub fn not_running() -> Self {
        Self::new(ErrorKind::NotRunning, "the VM has ended")
    }

    /// The VM has ended like this.
    pub fn ended(outcome: &Outcome) -> Self {
        let kind = match outcome.ending {
            Ending::Panicked => ErrorKind::GuestPanicked,
            _ => ErrorKind::NotRunning,
        };
        Self::new(kind, format!("the VM has ended: {outcome}"))
    }
}

/// An error in words, with all its sources.
pub trait ErrorChain {
    /// In words.
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
