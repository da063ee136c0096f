//! Names of VMs.

use std::ffi::OsStr;
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
#[derive(Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a VM's name may not be empty")]
    Empty,
    /// Starts with something else than a letter or digit.
    #[error("VM name '{0}' must start with a letter or a digit")]
    Start(String),
    /// A character that is not allowed.
    #[error("VM name '{text}' has {character:?}, but only letters, digits, '-', '_' and '.' are allowed")]
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
            Some(character) => Err(NameError::Character { text: text.to_owned(), character }),
            None => Ok(Self(text.to_owned())),
        }
    }
}

text_type!(VmName, NameError);

impl VmName {
    /// A name for the VM of an image: the file's name without its extension, other characters replaced by `-`; `vm` if nothing is left.
    pub fn from_image(image: &Path) -> Self {
        Self::from_text(image.file_stem().unwrap_or_default())
    }

    /// A name that is as near to a text as can be: other characters replaced by `-`; `vm` if nothing is left.
    pub fn from_text(text: &OsStr) -> Self {
        let stem = text.to_string_lossy();
        let cleaned: String = stem.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
        let trimmed = cleaned.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        // room for the suffix of `numbered`
        let short: String = trimmed.chars().take(MAX_LENGTH - 8).collect();
        Self(if short.is_empty() { "vm".to_owned() } else { short })
    }

    /// `name-2`, `name-3`, …: for when the plain name is taken.
    pub fn numbered(&self, number: u32) -> Self {
        let stem: String = self.0.chars().take(MAX_LENGTH - 11).collect();
        Self(format!("{stem}-{number}"))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn says_what_is_wrong() {
        for (text, message) in [
            ("", "a VM's name may not be empty".to_owned()),
            ("..", "VM name '..' must start with a letter or a digit".to_owned()),
            (
                "a/b",
                "VM name 'a/b' has '/', but only letters, digits, '-', '_' and '.' are allowed".to_owned(),
            ),
            (&"a".repeat(65), "a VM's name may have 64 characters, this has 65".to_owned()),
        ] {
            assert_eq!(text.parse::<VmName>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn comes_from_the_image() {
        for (image, name) in
            [("/a/debian-12.qcow2", "debian-12"), ("my vm.iso", "my-vm"), ("日本", "vm"), ("/", "vm")]
        {
            assert_eq!(VmName::from_image(image.as_ref()).as_str(), name);
        }
        assert_eq!(VmName::from_image("a.img".as_ref()).numbered(2).as_str(), "a-2");
    }

    proptest! {
        #[test]
        fn any_image_gives_a_name(bytes in any::<Vec<u8>>(), long in "[a-z.-]{50,90}", number in any::<u32>()) {
            for image in [OsString::from_vec(bytes), long.into()] {
                let name = VmName::from_image(image.as_ref());
                prop_assert_eq!(&name.to_string().parse::<VmName>().unwrap(), &name);
                prop_assert!(name.numbered(number).to_string().parse::<VmName>().is_ok());
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<VmName>();
        }
    }
}
