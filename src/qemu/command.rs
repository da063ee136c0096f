//! One QMP command as data.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

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

    /// A command of the human monitor. Its QMP answer is a success either way; see `qmp::hmp` for the text.
    pub fn hmp(line: &str) -> Self {
        Self::new("human-monitor-command", json!({ "command-line": line }))
    }
}
