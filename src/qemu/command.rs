//! One QMP command as data.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use thiserror::Error;

/// A QMP command: what `execute` and `arguments` will say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The command's name.
    pub execute: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
}

impl Command {
    /// A command with arguments, e.g. `Command::new("device_del", json!({"id": "usb0"}))`.
    /// Anything but a JSON object counts as no arguments.
    pub fn new(execute: &str, arguments: Value) -> Self {
        let arguments = match arguments {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        Self { execute: execute.to_owned(), arguments }
    }

    /// A command of `qapi`, for QEMU or the guest agent.
    pub fn of<C: qapi::Command>(command: &C) -> Self {
        Self::new(C::NAME, serde_json::to_value(command).unwrap_or_default())
    }

    /// A command of the human monitor. Its QMP answer is a success either way; see `qmp::hmp` for the text.
    pub fn hmp(line: &str) -> Self {
        Self::new("human-monitor-command", json!({ "command-line": line }))
    }

    /// A command that a client has sent, without the client's own `id`.
    ///
    /// # Errors
    /// It is not what a QMP command looks like.
    pub fn from_members(mut members: Map<String, Value>) -> Result<Self, MalformedCommand> {
        let Some(Value::String(execute)) = members.remove("execute") else {
            return Err(MalformedCommand::NoExecute);
        };
        let arguments = match members.remove("arguments") {
            None => Map::new(),
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Err(MalformedCommand::Arguments),
        };
        match members.into_iter().next() {
            None => Ok(Self { execute, arguments }),
            Some((other, _)) => Err(MalformedCommand::Unexpected(other)),
        }
    }
}

/// Why a JSON object is no QMP command, in QEMU's words.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MalformedCommand {
    /// It does not say what to execute.
    #[error("QMP input lacks member 'execute'")]
    NoExecute,
    /// Its arguments are no object.
    #[error("QMP input member 'arguments' must be an object")]
    Arguments,
    /// It has a member that commands do not have.
    #[error("QMP input member '{0}' is unexpected")]
    Unexpected(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_a_name_and_arguments_and_nothing_else() {
        let command = |value: Value| match value {
            Value::Object(members) => Command::from_members(members),
            other => panic!("{other}"),
        };
        let good = json!({ "execute": "device_del", "arguments": { "id": "usb0" } });
        assert_eq!(command(good), Ok(Command::new("device_del", json!({ "id": "usb0" }))));
        assert_eq!(command(json!({ "execute": "stop" })), Ok(Command::new("stop", Value::Null)));
        assert_eq!(command(json!({ "execute": 1 })), Err(MalformedCommand::NoExecute));
        assert_eq!(command(json!({ "execute": "stop", "arguments": [] })), Err(MalformedCommand::Arguments));
        let other = MalformedCommand::Unexpected("control".to_owned());
        assert_eq!(command(json!({ "execute": "stop", "control": 1 })), Err(other));
    }
}
