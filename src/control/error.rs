//! The protocol's errors: one for each kind of failure, with a message and a hint.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::vm::{ChangeError, Ending, ErrorKind, Outcome};

use super::{INTERFACE, SERVICE_INTERFACE};

/// An error reply: its full name and its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WireError {
    /// Full name, e.g. `io.vmrun.Machine.NoFreeSlot`.
    pub error: String,
    /// Parameters; all of vmrun's errors have `message` and `hint`.
    #[serde(default)]
    pub parameters: Map<String, Value>,
}

impl WireError {
    /// One of Varlink's own errors.
    pub(super) fn service(name: &str, parameter: &str, value: &str) -> Self {
        let mut parameters = Map::new();
        parameters.insert(parameter.to_owned(), value.into());
        Self { error: format!("{SERVICE_INTERFACE}.{name}"), parameters }
    }

    /// There is no such interface.
    pub(super) fn no_interface(interface: &str) -> Self {
        Self::service("InterfaceNotFound", "interface", interface)
    }

    /// There is no such method.
    pub(super) fn method_not_found(interface: &str, method: &str) -> Self {
        Self::service("MethodNotFound", "method", &format!("{interface}.{method}"))
    }

    /// A method that streams was called without `more`.
    pub(super) fn expected_more() -> Self {
        Self { error: format!("{SERVICE_INTERFACE}.ExpectedMore"), parameters: Map::new() }
    }

    /// The VM has ended, with its outcome.
    pub(crate) fn ended(outcome: &Outcome) -> Self {
        let kind = match outcome.ending {
            Ending::Panicked => ErrorKind::GuestPanicked,
            _ => ErrorKind::NotRunning,
        };
        let error = ChangeError::new(kind, format!("the VM has ended: {outcome}"));
        Self::from(error).with_outcome(Some(outcome.clone()))
    }

    /// The error of a VM that has ended, with its outcome.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Option<Outcome>) -> Self {
        if let (Some(outcome), "NotRunning" | "GuestPanicked") = (outcome, self.name()) {
            self.parameters.insert("outcome".to_owned(), json!(outcome));
        }
        self
    }

    /// The outcome, if the VM's end is the reason.
    pub fn outcome(&self) -> Option<Outcome> {
        serde_json::from_value(self.parameters.get("outcome")?.clone()).ok()
    }

    /// The name without its interface.
    pub fn name(&self) -> &str {
        self.error.rsplit('.').next().unwrap_or_default()
    }

    /// A parameter as text.
    pub fn text(&self, parameter: &str) -> Option<&str> {
        self.parameters.get(parameter).and_then(Value::as_str)
    }
}

impl From<ChangeError> for WireError {
    fn from(error: ChangeError) -> Self {
        let (name, mut parameters) = match error.kind {
            ErrorKind::NotRunning => ("NotRunning", json!({})),
            ErrorKind::InvalidArgument { parameter } => {
                ("InvalidArgument", json!({ "parameter": parameter }))
            }
            ErrorKind::NoSuchThing { id } => ("NoSuchThing", json!({ "id": id })),
            ErrorKind::AlreadyThere { id } => ("AlreadyThere", json!({ "id": id })),
            ErrorKind::NoFreeSlot => ("NoFreeSlot", json!({})),
            ErrorKind::NotNow { state } => ("NotNow", json!({ "state": state })),
            ErrorKind::NotSupported => ("NotSupported", json!({})),
            ErrorKind::RefusedByQemu { class } => ("RefusedByQemu", json!({ "class": class })),
            ErrorKind::RefusedByGuest { id } => ("RefusedByGuest", json!({ "id": id })),
            ErrorKind::NoGuestAgent => ("NoGuestAgent", json!({})),
            ErrorKind::GuestPanicked => ("GuestPanicked", json!({})),
            ErrorKind::TimedOut => ("TimedOut", json!({})),
            ErrorKind::HostProblem => ("HostProblem", json!({})),
        };
        parameters["message"] = json!(error.message);
        if let Some(hint) = error.hint {
            parameters["hint"] = json!(hint);
        }
        let mut parameters = match parameters {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        parameters.retain(|_, value| !value.is_null());
        Self { error: format!("{INTERFACE}.{name}"), parameters }
    }
}
