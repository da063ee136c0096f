//! Names of snapshots.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::text::text_type;

/// qcow2 allows more; what a table can show is enough.
const MAX_LENGTH: usize = 64;

/// A snapshot's name: a letter, then letters, digits, `-`, `_`, `.`; at most 64 characters. Not a number: qcow2 looks for
/// one among the ids of snapshots first, and would load or delete another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotName(String);

/// Why a text is not a snapshot's name.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum SnapshotNameError {
    /// Nothing was given.
    #[error("a snapshot's name may not be empty")]
    Empty,
    /// It does not start with a letter.
    #[error("snapshot name '{0}' must start with a letter")]
    Start(String),
    /// A character that is not allowed.
    #[error(
        "snapshot name '{text}' has {character:?}, but only letters, digits, '-', '_' and '.' are allowed"
    )]
    Character {
        /// The text.
        text: String,
        /// The first such character.
        character: char,
    },
    /// Too long.
    #[error("a snapshot's name may have {MAX_LENGTH} characters, this has {0}")]
    TooLong(usize),
}

impl FromStr for SnapshotName {
    type Err = SnapshotNameError;

    fn from_str(text: &str) -> Result<Self, SnapshotNameError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match text.chars().next() {
            None => return Err(SnapshotNameError::Empty),
            Some(first) if allowed(first) && !first.is_ascii_alphabetic() => {
                return Err(SnapshotNameError::Start(text.to_owned()));
            }
            Some(_) => {}
        }
        if let Some(character) = text.chars().find(|c| !allowed(*c)) {
            return Err(SnapshotNameError::Character { text: text.to_owned(), character });
        }
        if text.len() > MAX_LENGTH {
            return Err(SnapshotNameError::TooLong(text.len()));
        }
        Ok(Self(text.to_owned()))
    }
}

text_type!(SnapshotName, SnapshotNameError);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn says_what_is_wrong() {
        let long = "x".repeat(65);
        for (text, message) in [
            ("", "a snapshot's name may not be empty"),
            ("7", "snapshot name '7' must start with a letter"),
            ("-x", "snapshot name '-x' must start with a letter"),
            ("a b", "snapshot name 'a b' has ' ', but only letters, digits, '-', '_' and '.' are allowed"),
            ("ä", "snapshot name 'ä' has 'ä', but only letters, digits, '-', '_' and '.' are allowed"),
            (long.as_str(), "a snapshot's name may have 64 characters, this has 65"),
        ] {
            assert_eq!(text.parse::<SnapshotName>().unwrap_err().to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn round_trips(text in "[a-zA-Z][a-zA-Z0-9._-]{0,63}") {
            prop_assert_eq!(text.parse::<SnapshotName>().unwrap().to_string(), text);
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<SnapshotName>();
        }
    }
}
