//! Names of VMs.

use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::text::text_type;

/// Long enough for any purpose, short enough for a folder's name with a suffix.
const MAX_LENGTH: usize = 64;

/// A VM's name: letters, digits, `-`, `_`, `.`; starts with a letter or digit; at most 64 characters. It is a folder's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmName(String);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a VM's name may not be empty")]
    Empty,
    /// Starts with something else than a letter or digit.
    #[error("VM name '{0}' must start with a letter or a digit")]
    Start(String),
    /// A character that is not allowed.
    #[error(
        "VM name '{text}' has {character:?}, but only letters, digits, '-', '_' and '.' are allowed"
    )]
    Character {
        /// The text.
        text: String,
        /// The first such character.
        character: char,
    },
    /// Too long.
    #[error("a VM's name may have {MAX_LENGTH} characters, this has {0}")]
    TooLong(usize),
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

impl FromStr for VmName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.chars().count() > MAX_LENGTH {
            return Err(NameError::TooLong(text.chars().count()));
        }
        match text.chars().next() {
            None => return Err(NameError::Empty),
            Some(first) if allowed(first) && !first.is_ascii_alphanumeric() => {
                return Err(NameError::Start(text.to_owned()));
            }
            Some(_) => {}
        }
        match text.chars().find(|c| !allowed(*c)) {
            Some(character) => Err(NameError::Character {
                text: text.to_owned(),
                character,
            }),
            None => Ok(Self(text.to_owned())),
        }
    }
}

text_type!(VmName, NameError);

impl VmName {
    /// A name for the VM of an image: the file's name without its extension, other characters replaced by `-`; `vm` if nothing is left.
    pub fn from_image(image: &Path) -> Self {
        let stem = image
            .file_stem()
            .map(|stem| stem.to_string_lossy())
            .unwrap_or_default();
        let cleaned: String = stem
            .chars()
            .map(|c| if allowed(c) { c } else { '-' })
            .collect();
        let trimmed = cleaned.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        // room for the suffix of `numbered`
        let short: String = trimmed.chars().take(MAX_LENGTH - 8).collect();
        Self(if short.is_empty() {
            "vm".to_owned()
        } else {
            short
        })
    }

    /// `name-2`, `name-3`, …: for when the plain name is taken.
    pub fn numbered(&self, number: u32) -> Self {
        let stem: String = self.0.chars().take(MAX_LENGTH - 11).collect();
        Self(format!("{stem}-{number}"))
    }
}
