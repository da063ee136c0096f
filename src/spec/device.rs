//! A device as typed: `DRIVER[,PROP=VALUE…]`.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::id::{DeviceId, IdError};
use super::options::{self, OptionError};

/// `--device` and `device-add`: a QEMU driver with properties as text.
/// A literal comma in a value is typed twice, as in QEMU's own syntax. `id=ID` is taken out of the properties.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// QEMU's name of the device model; letters, digits and `-._+` only.
    pub driver: String,
    /// The id, if one was given.
    pub id: Option<DeviceId>,
    /// Other properties in the order typed; each name at most once. A property without `=` means `on`.
    pub properties: Vec<(String, String)>,
}

/// Several times what QEMU's largest devices have; each is held against all others.
const MAX_PROPERTIES: usize = 1000;

/// Why a text does not describe a device.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// No driver.
    #[error("a device needs a driver: DRIVER[,PROP=VALUE…]")]
    Empty,
    /// JSON, which QEMU's own `-device` takes.
    #[error("a device is given as DRIVER[,PROP=VALUE…], not as JSON")]
    Json,
    /// A property where the driver should be.
    #[error("the driver must come first, before '{0}'")]
    DriverFirst(String),
    /// Not the name of a driver.
    #[error("driver '{}' is not a name (letters, digits, '-', '.', '_' and '+')", .0.escape_debug())]
    Driver(String),
    /// Not the name of a property.
    #[error("property '{}' is not a name (letters, digits, '-', '.' and '_')", .0.escape_debug())]
    Property(String),
    /// A property is there twice.
    #[error("property '{0}' is given twice")]
    Duplicate(String),
    /// More than any device has.
    #[error("a device has at most {MAX_PROPERTIES} properties")]
    TooMany,
    /// Not a list of options.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// `id` is not an id.
    #[error(transparent)]
    Id(#[from] IdError),
}

impl DeviceSpec {
    /// A driver without id and properties, if it is the name of one.
    pub fn new(driver: &str) -> Result<Self, DeviceError> {
        if driver.is_empty() {
            return Err(DeviceError::Empty);
        }
        if !is_name(driver, "-._+") {
            return Err(DeviceError::Driver(driver.to_owned()));
        }
        Ok(Self { driver: driver.to_owned(), id: None, properties: Vec::new() })
    }

    /// The same with one more property.
    ///
    /// # Errors
    /// Its name is not one, or is there already.
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, DeviceError> {
        self.set(name, Some(value))?;
        Ok(self)
    }

    fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), DeviceError> {
        if !is_name(name, "-._") {
            return Err(DeviceError::Property(name.to_owned()));
        }
        let taken = name == "driver" || self.properties.iter().any(|(other, _)| other == name);
        if taken || (name == "id" && self.id.is_some()) {
            return Err(DeviceError::Duplicate(name.to_owned()));
        }
        if name == "id" {
            self.id = Some(options::text(name, value.map(OsStr::new))?.parse()?);
        } else if self.properties.len() == MAX_PROPERTIES {
            return Err(DeviceError::TooMany);
        } else {
            self.properties.push((name.to_owned(), value.unwrap_or("on").to_owned()));
        }
        Ok(())
    }
}

fn is_name(text: &str, punctuation: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || punctuation.contains(c))
}

impl FromStr for DeviceSpec {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        if text.trim_start().starts_with('{') {
            return Err(DeviceError::Json);
        }
        let elements = options::split_text(text);
        let mut elements = elements.iter().map(|element| match element.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (element.as_str(), None),
        });
        let mut device = match elements.next() {
            Some(("driver", Some(driver)) | (driver, None)) => Self::new(driver)?,
            Some((name, Some(value))) => return Err(DeviceError::DriverFirst(format!("{name}={value}"))),
            None => return Err(DeviceError::Empty),
        };
        for (name, value) in elements {
            if name.is_empty() && value.is_none() {
                return Err(OptionError::Empty.into());
            }
            device.set(name, value)?;
        }
        Ok(device)
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.driver.clone();
        let id = self.id.as_ref().map(|id| ("id", id.as_str()));
        let properties = self.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in id.into_iter().chain(properties) {
            text.push_str(&format!(",{name}={}", value.replace(',', ",,")));
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_properties_in_their_order() {
        let device: DeviceSpec =
            "virtio-rng-pci,max-bytes=1024,id=rng0,disable-legacy,x.y=a,,b=c".parse().unwrap();
        assert_eq!(device.driver, "virtio-rng-pci");
        assert_eq!(device.id, Some("rng0".parse().unwrap()));
        let properties = [("max-bytes", "1024"), ("disable-legacy", "on"), ("x.y", "a,b=c")];
        assert_eq!(device.properties, properties.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(device.to_string(), "virtio-rng-pci,id=rng0,max-bytes=1024,disable-legacy=on,x.y=a,,b=c");
        assert_eq!("driver=usb-kbd".parse(), DeviceSpec::new("usb-kbd"));
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, message) in [
            ("", "a device needs a driver: DRIVER[,PROP=VALUE…]"),
            ("driver=", "a device needs a driver: DRIVER[,PROP=VALUE…]"),
            (" {\"driver\":\"x\"}", "a device is given as DRIVER[,PROP=VALUE…], not as JSON"),
            ("id=a,usb-kbd", "the driver must come first, before 'id=a'"),
            ("usb kbd", "driver 'usb kbd' is not a name (letters, digits, '-', '.', '_' and '+')"),
            ("usb-kbd\n", "driver 'usb-kbd\\n' is not a name (letters, digits, '-', '.', '_' and '+')"),
            ("a,,b", "driver 'a,b' is not a name (letters, digits, '-', '.', '_' and '+')"),
            ("a,b c=1", "property 'b c' is not a name (letters, digits, '-', '.' and '_')"),
            ("a,=1", "property '' is not a name (letters, digits, '-', '.' and '_')"),
            ("a,b=1,b=2", "property 'b' is given twice"),
            ("a,id=b,id=c", "property 'id' is given twice"),
            ("a,driver=b", "property 'driver' is given twice"),
            ("a,", "an option is empty (one comma too many? a literal comma is typed twice)"),
            ("a,id", "option 'id' needs a value: id=…"),
            ("a,id=", "an id may not be empty"),
            ("a,id=1", "id '1' must start with a letter"),
        ] {
            assert_eq!(text.parse::<DeviceSpec>().unwrap_err().to_string(), message, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(
            driver in "[a-zA-Z0-9._+-]{1,12}",
            id in prop::option::of("[a-z][a-z0-9._-]{0,25}"),
            properties in prop::collection::btree_map("x[a-z0-9._-]{0,9}", any::<String>(), 0..4),
        ) {
            let id = id.map(|id| id.parse().unwrap());
            let device = DeviceSpec { driver, id, properties: properties.into_iter().collect() };
            prop_assert_eq!(device.to_string().parse(), Ok(device));
        }

        #[test]
        fn no_text_panics(text in any::<String>(), near in "(a|=|,|id|driver|\\{){0,9}") {
            let _ = text.parse::<DeviceSpec>();
            let _ = near.parse::<DeviceSpec>();
        }
    }
}
