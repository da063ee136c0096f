//! `--boot`: what the firmware tries, in this order: `net,disk,cdrom`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::words::{UnknownWord, word_type};

/// Devices that can be booted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BootClass {
    /// The first network card (PXE).
    Net,
    /// The disks, in their order.
    Disk,
    /// The CD that an ISO is.
    Cdrom,
}

word_type!(BootClass, "boot device", { Net = "net" | "network", Disk = "disk", Cdrom = "cdrom" | "cd" });

/// An order of those; empty = vmrun's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BootOrder(Vec<BootClass>);

/// Why a text is not an order.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum BootOrderError {
    /// No such device.
    #[error(transparent)]
    Unknown(#[from] UnknownWord),
    /// The same twice.
    #[error("'{0}' is given twice in the boot order")]
    Twice(BootClass),
}

impl BootOrder {
    /// What is tried, in this order.
    pub fn classes(&self) -> &[BootClass] {
        &self.0
    }

    /// Nothing was said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for BootOrder {
    type Err = BootOrderError;

    fn from_str(text: &str) -> Result<Self, BootOrderError> {
        let mut order = Vec::new();
        for word in text.split(',') {
            let class: BootClass = word.parse()?;
            if order.contains(&class) {
                return Err(BootOrderError::Twice(class));
            }
            order.push(class);
        }
        Ok(Self(order))
    }
}

impl fmt::Display for BootOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.0.iter().map(|class| class.as_str()).collect();
        f.pad(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints_and_says_what_is_wrong() {
        for text in ["net", "net,disk", "cdrom,net,disk"] {
            assert_eq!(text.parse::<BootOrder>().unwrap().to_string(), text);
        }
        assert_eq!("network,cd".parse::<BootOrder>().unwrap().to_string(), "net,cdrom");
        for (text, message) in [
            ("", "unknown boot device '' (known: net, disk, cdrom)"),
            ("net,", "unknown boot device '' (known: net, disk, cdrom)"),
            ("dsk", "unknown boot device 'dsk', did you mean 'disk'? (known: net, disk, cdrom)"),
            ("net,disk,net", "'net' is given twice in the boot order"),
        ] {
            assert_eq!(text.parse::<BootOrder>().unwrap_err().to_string(), message, "{text}");
        }
    }
}
