//! Ids of devices.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::text::text_type;

/// A node name `<id>.file` may have 31 bytes in QEMU (`BlockDriverState.node_name` has 32 with its end).
const MAX_LENGTH: usize = 26;

/// An id that QEMU accepts for a device, and for block nodes made from it: a letter, then letters, digits, `-`, `.`, `_`
/// (QEMU's `id_wellformed`), at most 26 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(String);

/// Why a text is not an id.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum IdError {
    /// Nothing was given.
    #[error("an id may not be empty")]
    Empty,
    /// It does not start with a letter.
    #[error("id '{0}' must start with a letter")]
    Start(String),
    /// A character that QEMU does not allow.
    #[error("id '{text}' has {character:?}, but only letters, digits, '-', '.' and '_' are allowed")]
    Character {
        /// The text.
        text: String,
        /// The first such character.
        character: char,
    },
    /// Too long.
    #[error("id '{0}' has more than {MAX_LENGTH} characters")]
    TooLong(String),
}

impl FromStr for DeviceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        match text.chars().next() {
            None => return Err(IdError::Empty),
            Some(first) if !first.is_ascii_alphabetic() => {
                return Err(IdError::Start(text.to_owned()));
            }
            Some(_) => {}
        }
        if let Some(character) = text.chars().find(|c| !allowed(*c)) {
            return Err(IdError::Character { text: text.to_owned(), character });
        }
        if text.len() > MAX_LENGTH {
            return Err(IdError::TooLong(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

text_type!(DeviceId, IdError);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn says_what_is_wrong() {
        for (text, message) in [
            ("", "an id may not be empty"),
            ("1a", "id '1a' must start with a letter"),
            ("a,b", "id 'a,b' has ',', but only letters, digits, '-', '.' and '_' are allowed"),
            ("abcdefghijklmnopqrstuvwxyz0", "id 'abcdefghijklmnopqrstuvwxyz0' has more than 26 characters"),
        ] {
            assert_eq!(text.parse::<DeviceId>().unwrap_err().to_string(), message);
        }
        assert!(serde_json::from_str::<DeviceId>("\"1a\"").is_err());
    }

    proptest! {
        #[test]
        fn round_trips(text in "[a-zA-Z][a-zA-Z0-9._-]{0,25}") {
            prop_assert_eq!(text.parse::<DeviceId>().unwrap().to_string(), text);
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<DeviceId>();
        }
    }
}
