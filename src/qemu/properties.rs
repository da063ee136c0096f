//! Which properties a driver has, and of which types: from the text of `-device DRIVER,help` or the answer to `device-list-properties`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use thiserror::Error;

use super::typed::{TypedError, typed};

/// How alike a name must be to be suggested (Jaro-Winkler).
const ALIKE: f64 = 0.8;

/// The properties of one driver and QEMU's names of their types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    driver: String,
    types: BTreeMap<String, String>,
}

/// Why properties as typed are not a driver's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PropertyError {
    /// The driver has no such property.
    #[error("{driver} has no property '{name}'{}", suggestion.as_deref().map(|s| format!(" (did you mean '{s}'?)")).unwrap_or_default())]
    Unknown {
        /// The driver.
        driver: String,
        /// What was typed.
        name: String,
        /// A property whose name is nearly that.
        suggestion: Option<String>,
    },
    /// The value does not fit its type.
    #[error("property '{name}'")]
    Value {
        /// The property.
        name: String,
        /// What is wrong with the value.
        #[source]
        error: TypedError,
    },
}

impl Properties {
    /// From the text of `-device DRIVER,help`: lines `  serial=<str>           - …`.
    pub fn from_help(driver: &str, help: &str) -> Self {
        let types = help.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("  ")?.split_once("=<")?;
            // a type may have brackets of its own: `link<iothread>`
            let end = rest.find("> ").or_else(|| rest.strip_suffix('>').map(str::len))?;
            Some((name.trim().to_owned(), rest[..end].to_owned()))
        });
        Self::new(driver, types)
    }

    /// From what `device-list-properties` returned: `[{"name": …, "type": …}, …]`.
    pub fn from_qmp(driver: &str, answer: &Value) -> Self {
        let types = answer.as_array().into_iter().flatten().filter_map(|property| {
            let text = |key: &str| Some(property.get(key)?.as_str()?.to_owned());
            Some((text("name")?, text("type")?))
        });
        Self::new(driver, types)
    }

    fn new(driver: &str, all: impl Iterator<Item = (String, String)>) -> Self {
        // not collected: that would sort them first, which is 6 KiB of program
        let mut types = BTreeMap::new();
        types.extend(all);
        Self { driver: driver.to_owned(), types }
    }

    /// Whether nothing was found: no such driver, or a text that is not the help.
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    /// QEMU's name of a property's type.
    pub fn kind(&self, name: &str) -> Option<&str> {
        match name {
            // of every device, and never listed
            "bus" => Some("str"),
            // declared int32, read as `SLOT[.FUNCTION]` in hexadecimal when it is a text
            "addr" if self.types.contains_key(name) => Some("str"),
            _ => self.types.get(name).map(String::as_str),
        }
    }

    /// Properties as typed, with JSON types.
    pub fn typed(&self, properties: &[(String, String)]) -> Result<Map<String, Value>, PropertyError> {
        let mut all = Map::new();
        for (name, value) in properties {
            let kind = self.kind(name).ok_or_else(|| self.unknown(name))?;
            let value =
                typed(value, kind).map_err(|error| PropertyError::Value { name: name.clone(), error })?;
            all.insert(name.clone(), value);
        }
        Ok(all)
    }

    fn unknown(&self, name: &str) -> PropertyError {
        let likeness = |other: &String| strsim::jaro_winkler(name, other);
        let nearest = self.types.keys().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        PropertyError::Unknown {
            driver: self.driver.clone(),
            name: name.to_owned(),
            suggestion: nearest.filter(|nearest| likeness(nearest) >= ALIKE).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// From QEMU 7.2.
    const HELP: &str = "\
virtio-blk-pci options:
  addr=<int32>           - Slot and optional function number, example: 06.0 or 06 (default: -1)
  bootindex=<int32>
  disable-legacy=<OnOffAuto> - on/off/auto (default: \"auto\")
  event_idx=<bool>       - on/off (default: true)
  iothread=<link<iothread>>
  logical_block_size=<size> - A power of two between 512 B and 2 MiB (default: 0)
  queue-size=<uint16>    -  (default: 256)
  serial=<str>
";

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn reads_the_help() {
        let properties = Properties::from_help("virtio-blk-pci", HELP);
        assert_eq!(properties.kind("iothread"), Some("link<iothread>"));
        assert_eq!(properties.kind("queue-size"), Some("uint16"));
        let given =
            [("serial", "5"), ("queue-size", "128"), ("event_idx", "off"), ("addr", "06.0"), ("bus", "b")];
        assert_eq!(
            Value::Object(properties.typed(&pairs(&given)).unwrap()),
            json!({"serial": "5", "queue-size": 128, "event_idx": false, "addr": "06.0", "bus": "b"})
        );
    }

    #[test]
    fn reads_the_answer() {
        let answer = json!([{"name": "serial", "type": "str"}, {"name": "hostbus", "type": "uint32", "default-value": 0}, 5]);
        let properties = Properties::from_qmp("usb-host", &answer);
        assert_eq!(properties.kind("hostbus"), Some("uint32"));
        assert!(!properties.is_empty());
        assert!(Properties::from_help("x", "qemu: Device 'x' not found").is_empty());
    }

    #[test]
    fn suggests_the_nearest() {
        let properties = Properties::from_help("virtio-blk-pci", HELP);
        let refusal = |name| properties.typed(&pairs(&[(name, "1")])).unwrap_err().to_string();
        assert_eq!(
            refusal("bootidx"),
            "virtio-blk-pci has no property 'bootidx' (did you mean 'bootindex'?)"
        );
        assert_eq!(refusal("zzz"), "virtio-blk-pci has no property 'zzz'");
        let error = properties.typed(&pairs(&[("queue-size", "many")])).unwrap_err();
        assert_eq!(error.to_string(), "property 'queue-size'");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "'many' is not a number");
    }
}
