//! A device: one description for `-device` and for `device_add`.

use std::ffi::OsString;

use serde_json::{Map, Value, json};

use super::Command;

/// A front-end device of the guest. Its properties have the types that QEMU declares: JSON is strictly typed here.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// QEMU's name of the model.
    pub driver: String,
    /// Its id, by which events and `device_del` name it.
    pub id: String,
    /// The bus it sits on; none lets QEMU choose the first that fits.
    pub bus: Option<String>,
    /// Other properties.
    pub properties: Map<String, Value>,
}

impl Device {
    /// A device without properties on whatever bus fits.
    pub fn new(driver: impl Into<String>, id: impl Into<String>) -> Self {
        Self { driver: driver.into(), id: id.into(), bus: None, properties: Map::new() }
    }

    /// The same device on this bus (or, with none, on whatever fits).
    pub fn on<'a>(mut self, bus: impl Into<Option<&'a str>>) -> Self {
        self.bus = bus.into().map(str::to_owned);
        self
    }

    /// The same device with one more property.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.properties.insert(name.to_owned(), value.into());
        self
    }

    fn description(&self) -> Value {
        let mut map = self.properties.clone();
        map.insert("driver".to_owned(), self.driver.clone().into());
        map.insert("id".to_owned(), self.id.clone().into());
        if let Some(bus) = &self.bus {
            map.insert("bus".to_owned(), bus.clone().into());
        }
        Value::Object(map)
    }

    /// `-device {…}`.
    pub fn argument(&self) -> [OsString; 2] {
        ["-device".into(), self.description().to_string().into()]
    }

    /// `-device DRIVER,…`: in the option syntax, where it matters that QEMU makes it before what is in JSON. A comma in a value is
    /// doubled, which is all that QEMU's parser of options knows.
    pub fn words(&self) -> [OsString; 2] {
        let word = |value: &Value| match value {
            Value::String(text) => Some(text.replace(',', ",,")),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(true) => Some("on".to_owned()),
            Value::Bool(false) => Some("off".to_owned()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        let mut text = format!("{},id={}", self.driver, self.id);
        let bus = self.bus.clone().map(|bus| ("bus".to_owned(), Value::String(bus)));
        for (name, value) in bus.iter().map(|(name, value)| (name, value)).chain(&self.properties) {
            let Some(value) = word(value) else { return self.argument() };
            text = format!("{text},{name}={value}");
        }
        ["-device".into(), text.into()]
    }

    /// `device_add`.
    pub fn hot_plug(&self) -> Command {
        Command::new("device_add", self.description())
    }

    /// `device_del`. Its success means that the request was sent; the end is the event DEVICE_DELETED with this id in `device`.
    pub fn unplug(&self) -> Command {
        unplug(&self.id)
    }
}

/// `device_del` of a device of which only the id is known.
pub fn unplug(id: &str) -> Command {
    Command::new("device_del", json!({ "id": id }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cold_and_hot_say_the_same() {
        let device =
            Device::new("virtio-blk-pci", "data").on("slot1").with("drive", "data").with("bootindex", 1);
        let [option, cold] = device.argument();
        assert_eq!(option, "-device");
        let cold: Value = serde_json::from_str(cold.to_str().unwrap()).unwrap();
        assert_eq!(cold, Value::Object(device.hot_plug().arguments));
        assert_eq!(
            cold,
            json!({"driver": "virtio-blk-pci", "id": "data", "bus": "slot1", "drive": "data", "bootindex": 1})
        );
        assert_eq!(device.unplug().arguments["id"], "data");
        let odd = device.with("serial", "S,drive=x").with("share-rw", true);
        assert_eq!(
            odd.words()[1],
            "virtio-blk-pci,id=data,bus=slot1,bootindex=1,drive=data,serial=S,,drive=x,share-rw=on"
        );
    }
}
