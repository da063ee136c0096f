//! One line from QEMU → what it is. Lenient: what is unknown is left out, what is missing is empty.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::event::{Event, Timestamp};

/// What QEMU says of itself when a client connects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Greeting {
    /// QEMU's version: major, minor, micro.
    pub version: (u64, u64, u64),
    /// The distribution's package, e.g. `Debian 1:7.2+dfsg-7`; may be empty.
    pub package: String,
    /// What the monitor offers, e.g. `oob`.
    pub capabilities: Vec<String>,
}

/// A message from QEMU, or from the guest agent.
#[derive(Debug)]
pub(super) enum Message {
    Greeting(Greeting),
    Reply {
        id: Option<u64>,
        result: Result<Value, Refusal>,
    },
    Event(Event),
    /// A JSON object of another kind.
    Unknown,
}

/// An error as it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) class: String,
    pub(super) desc: String,
}

/// The keys that tell messages apart. Everything else is skipped without being stored.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    timestamp: Value,
    #[serde(default, rename = "return", deserialize_with = "present")]
    returned: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    error: Option<Value>,
    #[serde(default)]
    id: Value,
    #[serde(default, rename = "QMP", deserialize_with = "present")]
    greeting: Option<Value>,
}

/// Tells `"return": null` from no `return` at all.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Message {
    /// `None` if the line is no JSON object.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        // A derived struct would also take an array.
        if line.first() != Some(&b'{') {
            return None;
        }
        let envelope = match serde_json::from_slice::<Envelope>(line) {
            Ok(envelope) => envelope,
            // QEMU escapes what is not ASCII; should a string come in another encoding, its bytes do not matter.
            Err(_) if std::str::from_utf8(line).is_err() => {
                serde_json::from_str(&String::from_utf8_lossy(line)).ok()?
            }
            Err(_) => return None,
        };
        Some(envelope.into())
    }
}

impl From<Envelope> for Message {
    fn from(envelope: Envelope) -> Self {
        // what is no number is no id of ours, which is not the same as none
        let id = (!envelope.id.is_null()).then(|| envelope.id.as_u64().unwrap_or(u64::MAX));
        match envelope {
            Envelope { event: Some(name), data, timestamp, .. } => {
                let data = match data {
                    Value::Object(map) => map,
                    _ => serde_json::Map::new(),
                };
                Self::Event(Event::new(name, data, Timestamp::from(&timestamp)))
            }
            Envelope { error: Some(error), .. } => Self::Reply { id, result: Err(Refusal::from(&error)) },
            Envelope { returned: Some(value), .. } => Self::Reply { id, result: Ok(value) },
            Envelope { greeting: Some(greeting), .. } => Self::Greeting(Greeting::from(&greeting)),
            _ => Self::Unknown,
        }
    }
}

impl From<&Value> for Refusal {
    fn from(error: &Value) -> Self {
        let text = |key: &str| error[key].as_str().map(str::to_owned);
        Self {
            class: text("class").unwrap_or_else(|| "GenericError".to_owned()),
            desc: text("desc").unwrap_or_else(|| error.to_string()),
        }
    }
}

impl From<&Value> for Greeting {
    fn from(greeting: &Value) -> Self {
        let version = &greeting["version"];
        let number = |key: &str| version["qemu"][key].as_u64().unwrap_or_default();
        let capabilities = greeting["capabilities"].as_array().map(Vec::as_slice).unwrap_or_default();
        Self {
            version: (number("major"), number("minor"), number("micro")),
            package: version["package"].as_str().unwrap_or_default().to_owned(),
            capabilities: capabilities.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tells_messages_apart() {
        let parse = |text: &str| Message::parse(text.as_bytes());
        let null = parse(r#"{"return": null, "id": 7}"#);
        assert!(matches!(null, Some(Message::Reply { id: Some(7), result: Ok(Value::Null) })));
        let foreign = parse(r#"{"return": 1, "id": "x"}"#);
        assert!(matches!(foreign, Some(Message::Reply { id: Some(u64::MAX), .. })));
        let event = parse(r#"{"event": "NEW_ONE", "data": 5, "timestamp": "then", "more": [1]}"#);
        assert!(
            matches!(event, Some(Message::Event(event)) if event.name == "NEW_ONE" && event.data.is_empty())
        );
        let odd = parse(r#"{"error": "oops"}"#);
        assert!(
            matches!(odd, Some(Message::Reply { id: None, result: Err(refusal) }) if refusal.desc == "\"oops\"")
        );
        assert!(matches!(parse(r#"{"hello": 1}"#), Some(Message::Unknown)));
        for garbage in ["", "[]", "[1,2,3,4,5,6,7]", "null", "{", "{}x", "\"QMP\"", r#"{"event": 1}"#] {
            assert!(parse(garbage).is_none(), "{garbage}");
        }
    }

    #[test]
    fn takes_strings_that_are_not_utf8() {
        let message = Message::parse(b"{\"return\": \"caf\xe9\"}");
        assert!(
            matches!(message, Some(Message::Reply { result: Ok(Value::String(text)), .. }) if text == "caf\u{fffd}")
        );
    }

    #[test]
    fn reads_the_greeting_of_7_2() {
        let line = br#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian 1:7.2"}, "capabilities": ["oob"]}}"#;
        let Some(Message::Greeting(greeting)) = Message::parse(line) else { panic!() };
        assert_eq!(greeting.version, (7, 2, 22));
        assert_eq!(greeting.package, "Debian 1:7.2");
        assert_eq!(greeting.capabilities, ["oob"]);
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>, text in r#"\{"(QMP|event|error|return|id|data)": [ -~]{0,40}\}"#) {
            let _ = Message::parse(&bytes);
            let _ = Message::parse(text.as_bytes());
        }
    }
}
