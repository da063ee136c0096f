//! Failures of the program: message, hint, exit code. Only this file maps errors to exit codes.

use serde_json::json;

use crate::control::client::{ClientError, WireError};
use crate::control::find::FindError;
use crate::machine;
use crate::vm::{ChangeError, ErrorChain, StartError};

use super::output::tell;
use super::visible;

/// Failed for another reason.
const FAILED: u8 = 1;
/// Invalid usage.
const USAGE: u8 = 2;
/// No such VM, or it is not running.
const NOT_RUNNING: u8 = 3;
/// Refused by QEMU, by the guest, or by the VM's present state.
const REFUSED: u8 = 4;
/// Timed out.
const TIMED_OUT: u8 = 5;
/// The guest panicked during a wait; the same as of `vmrun qemu`.
const PANICKED: u8 = 10;

/// The failure of a command.
#[derive(Debug)]
pub struct Failure {
    /// The kind, for programs, e.g. `no-free-slot`.
    pub code: String,
    /// The message.
    pub message: String,
    /// What the user can do about it.
    pub hint: Option<String>,
    /// The program's exit code.
    pub exit_code: u8,
}

impl Failure {
    /// A failure without a better category.
    pub(super) fn other(message: impl ToString) -> Self {
        Self { code: "failed".to_owned(), message: message.to_string(), hint: None, exit_code: FAILED }
    }

    /// An argument is invalid.
    pub(super) fn usage(message: impl ToString) -> Self {
        Self { code: "usage".to_owned(), message: message.to_string(), hint: None, exit_code: USAGE }
    }

    /// There is no such VM.
    pub(super) fn not_running(message: impl ToString) -> Self {
        let code = "not-running".to_owned();
        Self { code, message: message.to_string(), hint: None, exit_code: NOT_RUNNING }
    }

    /// The guest cannot do it.
    pub(super) fn refused(message: impl ToString) -> Self {
        Self { code: "refused".to_owned(), message: message.to_string(), hint: None, exit_code: REFUSED }
    }

    /// It did not happen before the deadline.
    pub(super) fn timed_out(message: impl ToString) -> Self {
        Self { code: "timed-out".to_owned(), message: message.to_string(), hint: None, exit_code: TIMED_OUT }
    }

    /// The same with a hint.
    pub(super) fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// The same with a further hint.
    pub(super) fn and_hint(self, more: String) -> Self {
        let hint = self.hint.iter().cloned().chain([more]).collect::<Vec<_>>().join("; ");
        self.hint(Some(hint))
    }

    /// Prints it on stderr.
    pub(super) fn print(&self, as_json: bool) {
        if as_json {
            let error = json!({ "code": self.code, "message": self.message, "hint": self.hint });
            return tell(&visible::json(&json!({ "error": error }).to_string()));
        }
        tell(&format!("vmrun: {}", visible::message(&self.message)));
        if let Some(hint) = &self.hint {
            tell(&format!("hint: {}", visible::message(hint)));
        }
    }
}

impl Failure {
    /// A refusal in this process, without the protocol.
    pub(super) fn from_change(error: ChangeError) -> Self {
        WireError::from(error).into()
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        let exit_code = match error.name() {
            "NotRunning" => NOT_RUNNING,
            "InvalidArgument" => USAGE,
            "TimedOut" => TIMED_OUT,
            "GuestPanicked" => PANICKED,
            "NoSuchThing" | "AlreadyThere" | "NoFreeSlot" | "NotNow" | "NotSupported" | "RefusedByQemu"
            | "RefusedByGuest" | "NoGuestAgent" => REFUSED,
            _ => FAILED,
        };
        let message = match (error.text("message"), error.name()) {
            (Some(message), _) => message.to_owned(),
            (None, "InvalidParameter") => {
                format!(
                    "the VM's supervisor does not understand the parameter '{}'",
                    error.text("parameter").unwrap_or("?")
                )
            }
            (None, "MethodNotFound") => {
                "the VM's supervisor is of another version and does not know this command".to_owned()
            }
            (None, _) => error.error.clone(),
        };
        Self { code: kebab(error.name()), message, hint: error.text("hint").map(str::to_owned), exit_code }
    }
}

/// `NoFreeSlot` as `no-free-slot`.
fn kebab(name: &str) -> String {
    let mut word = String::new();
    for (position, letter) in name.chars().enumerate() {
        if letter.is_ascii_uppercase() && position > 0 {
            word.push('-');
        }
        word.push(letter.to_ascii_lowercase());
    }
    word
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Remote(error) => error.into(),
            ClientError::Gone | ClientError::Connect(_) => {
                Self { code: "not-running".to_owned(), message, hint: None, exit_code: NOT_RUNNING }
            }
            ClientError::NotAnswering(silence) => {
                let code = "not-answering".to_owned();
                Self { code, message, hint: silence.hint(), exit_code: TIMED_OUT }
            }
            ClientError::SupervisorDied(name) => {
                let hint = format!("`vmrun ctl --vm {name} status` shows what it has now");
                Self { code: "supervisor-died".to_owned(), ..Self::other(message) }.hint(Some(hint))
            }
            ClientError::Unreadable(_) => Self { code: "other-version".to_owned(), ..Self::other(message) },
            ClientError::Protocol(_) => Self::other(message),
        }
    }
}

impl From<FindError> for Failure {
    fn from(error: FindError) -> Self {
        let hint = error.hint();
        let message = error.with_causes();
        let (code, exit_code) = match error {
            FindError::None | FindError::NoSuch { .. } | FindError::Stale(_) | FindError::Orphan(_) => {
                ("not-running", NOT_RUNNING)
            }
            FindError::Several(_) => ("several-running", USAGE),
            FindError::Directory(_) | FindError::List(_) => ("failed", FAILED),
            FindError::Client(error) => return Self::from(error),
        };
        Self { code: code.to_owned(), message, hint, exit_code }
    }
}

impl From<machine::Error> for Failure {
    fn from(error: machine::Error) -> Self {
        let (message, hint) = (error.to_string(), error.hint());
        match error {
            machine::Error::Start(error) => (*error).into(),
            machine::Error::Find(error) => error.into(),
            machine::Error::NotWarm { why, console } => {
                let failure = Self::from(*why);
                Self { message: format!("no template was made: {}{console}", failure.message), ..failure }
            }
            machine::Error::Call(error) => error.into(),
            machine::Error::Invalid(_) | machine::Error::Path(_) => Self::usage(message).hint(hint),
            // as with a file that cannot be put there
            machine::Error::GuestFolder { .. } => {
                Self { exit_code: REFUSED, code: "refused-by-guest".to_owned(), ..Self::other(message) }
            }
            machine::Error::NotReleased { .. } => Self::timed_out(message).hint(hint),
            machine::Error::TemplateCache(_)
            | machine::Error::File { .. }
            | machine::Error::GuestTar { .. }
            | machine::Error::Damaged { .. } => Self::other(message).hint(hint),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let hint = error.hint();
        let usage = error.is_usage();
        let message = error.with_causes();
        let failure = if usage { Self::usage(message) } else { Self::other(message) };
        failure.hint(hint)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::other(error)
    }
}
