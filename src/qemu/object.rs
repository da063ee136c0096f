//! Back-ends that are QOM objects: one description for `-object` and for `object-add`.

use std::ffi::OsString;

use serde_json::{Map, Value, json};

use super::Command;

/// An object, e.g. a source of random numbers or the guest's memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    kind: &'static str,
    id: String,
    properties: Map<String, Value>,
}

impl Object {
    /// An object without properties.
    pub fn new(kind: &'static str, id: impl Into<String>) -> Self {
        Self { kind, id: id.into(), properties: Map::new() }
    }

    /// The same object with one more property.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.properties.insert(name.to_owned(), value.into());
        self
    }

    fn description(&self) -> Value {
        let mut map = self.properties.clone();
        map.insert("qom-type".to_owned(), self.kind.into());
        map.insert("id".to_owned(), self.id.as_str().into());
        Value::Object(map)
    }

    /// `-object {…}`.
    pub fn argument(&self) -> [OsString; 2] {
        ["-object".into(), self.description().to_string().into()]
    }

    /// `object-add`.
    pub fn add(&self) -> Command {
        Command::new("object-add", self.description())
    }

    /// `object-del`.
    pub fn remove(&self) -> Command {
        remove(&self.id)
    }
}

/// `object-del` of an object of which only the id is known.
pub fn remove(id: &str) -> Command {
    Command::new("object-del", json!({ "id": id }))
}
