//! Networking modes: `default|user|bridge,NAME|tap,NAME|none`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::text::text_type;

/// A Linux network interface's name: 1 to 15 bytes, no `/`, no white space, not `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

/// Why a text is not an interface's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InterfaceNameError {
    /// Empty, too long, or with a character that Linux does not allow (`dev_valid_name`).
    #[error(
        "'{0}' is not a network interface's name (1 to 15 bytes, without '/', ':' and white space)"
    )]
    Invalid(String),
}

impl FromStr for InterfaceName {
    type Err = InterfaceNameError;

    fn from_str(text: &str) -> Result<Self, InterfaceNameError> {
        let bad = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
        if text.is_empty() || text.len() > 15 || text == "." || text == ".." || text.contains(bad) {
            return Err(InterfaceNameError::Invalid(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

text_type!(InterfaceName, InterfaceNameError);

/// How the VM is networked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "mode", content = "interface")]
pub enum Networking {
    /// QEMU's own user-mode stack; also `default`. The only one with forwards.
    #[default]
    User,
    /// A bridge, through QEMU's bridge helper.
    Bridge(InterfaceName),
    /// A tap device that exists already.
    Tap(InterfaceName),
    /// No network card.
    None,
}
