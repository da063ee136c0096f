//! Dispatches a method call and makes its reply.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::vm::{ChangeError, Handle};

use super::error::WireError;
use super::frame::Frame;
use super::permits::Use;
use super::verbs::{self, Entry, Replies, Run, Uploads};
use super::{DESCRIPTION, INTERFACE, SERVICE_DESCRIPTION, SERVICE_INTERFACE};

/// A method call with unparsed parameters.
#[derive(Debug, Deserialize)]
pub(super) struct RawCall {
    method: String,
    #[serde(default)]
    parameters: Option<Value>,
    /// The client takes many replies. Null is no, as if it were not there.
    #[serde(default, deserialize_with = "or_false")]
    more: bool,
    /// The client takes no reply.
    #[serde(default, deserialize_with = "or_false")]
    pub(super) oneway: bool,
}

fn or_false<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The reply to a call.
pub(super) enum Answer {
    /// One reply.
    One(Result<Frame, WireError>),
    /// Replies until the stream ends; the last one closes the call.
    Stream(Replies),
}

/// The state of one connection.
#[derive(Default)]
pub(super) struct ConnectionState {
    uploads: Uploads,
}

/// The method that a call names.
enum Target<'a> {
    /// One of `io.vmrun.Machine`.
    Machine(&'static Entry),
    /// One of Varlink's own interface.
    Service(&'a str),
    /// An unknown one.
    Nothing(WireError),
}

impl RawCall {
    fn target(&self) -> Target<'_> {
        match self.method.rsplit_once('.') {
            Some((INTERFACE, method)) => match verbs::find(method) {
                Some(entry) => Target::Machine(entry),
                None => Target::Nothing(WireError::method_not_found(INTERFACE, method)),
            },
            Some((SERVICE_INTERFACE, method)) => Target::Service(method),
            Some((interface, _)) => Target::Nothing(WireError::no_interface(interface)),
            None => Target::Nothing(WireError::no_interface(&self.method)),
        }
    }

    /// For the log: no words of the client, which may be long.
    pub(super) fn name(&self) -> &str {
        match self.target() {
            Target::Machine(entry) => entry.name,
            Target::Service(_) => SERVICE_INTERFACE,
            Target::Nothing(_) => "a method that is not served",
        }
    }

    /// What the call uses its connection for.
    pub(super) fn needs(&self) -> Use {
        match self.target() {
            Target::Machine(entry) => entry.needs,
            Target::Service(_) | Target::Nothing(_) => Use::Short,
        }
    }
}

/// Executes one call.
pub(super) async fn dispatch(call: &RawCall, vm: &Handle, connection: &mut ConnectionState) -> Answer {
    let parameters = call.parameters.clone().unwrap_or(Value::Null);
    let answer = match call.target() {
        Target::Machine(entry) => match &entry.run {
            Run::Change(change, reply) => make_change(change(parameters), *reply, vm).await,
            Run::Once(run) => run(parameters, vm, &mut connection.uploads).await,
            Run::Stream(start, _) if call.more => match start(parameters, vm) {
                Ok(replies) => return Answer::Stream(replies),
                Err(error) => Err(error),
            },
            Run::Stream(_, once) => once(parameters, vm, &mut connection.uploads).await,
        },
        Target::Service(method) => service(method, &parameters),
        Target::Nothing(error) => Err(error),
    };
    match answer {
        Err(error) => Answer::One(Err(explained(error, vm).await)),
        answer => Answer::One(answer),
    }
}

async fn make_change(
    change: Result<crate::vm::Change, WireError>,
    reply: fn(crate::vm::Done) -> Result<Frame, WireError>,
    vm: &Handle,
) -> Result<Frame, WireError> {
    reply(vm.change(change?).await?)
}

/// Adds the outcome to an error that says only that the VM has ended.
pub(super) async fn explained(error: WireError, vm: &Handle) -> WireError {
    if error != ChangeError::not_running().into() {
        return if vm.has_ended() { error.with_outcome(vm.ended().await) } else { error };
    }
    match vm.ended_soon().await {
        Some(outcome) => WireError::ended(&outcome),
        None => error,
    }
}

/// Varlink's own methods.
fn service(method: &str, parameters: &Value) -> Result<Frame, WireError> {
    match method {
        "GetInfo" => Frame::of(&json!({
            "vendor": "vmrun",
            "product": "vmrun",
            "version": env!("CARGO_PKG_VERSION"),
            "url": "https://github.com/vmrun/vmrun",
            "interfaces": [SERVICE_INTERFACE, INTERFACE],
        })),
        "GetInterfaceDescription" => match parameters["interface"].as_str() {
            Some(INTERFACE) => Frame::of(&json!({ "description": DESCRIPTION })),
            Some(SERVICE_INTERFACE) => Frame::of(&json!({ "description": SERVICE_DESCRIPTION })),
            Some(other) => Err(WireError::no_interface(other)),
            None => Err(WireError::service("InvalidParameter", "parameter", "interface")),
        },
        _ => Err(WireError::method_not_found(SERVICE_INTERFACE, method)),
    }
}
