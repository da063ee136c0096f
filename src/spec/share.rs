//! Shared folders: `--virtiofs DIR[,tag=T]`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::options::{self, OptionError, Writer};

/// The tag's room in virtiofs' configuration space (virtio 1.2, 5.11.4).
const MAX_TAG: usize = 36;

const KNOWN: &[&str] = &["dir", "tag"];

/// `--virtiofs` as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareSpec {
    /// The folder.
    pub directory: PathBuf,
    /// The guest mounts it by this tag (1 to 36 bytes); none = `virtiofs0`, `virtiofs1`, …, as in linuxkit
    pub tag: Option<String>,
}

/// A shared folder whose tag is decided and whose path is absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The folder.
    #[serde(with = "super::fields::path")]
    pub directory: PathBuf,
    /// The guest mounts it by this tag.
    pub tag: String,
}

/// Why a text does not describe a shared folder.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum ShareError {
    /// Options, but no folder.
    #[error("a shared folder needs a path: DIR[,tag=T]")]
    NoDirectory,
    /// Not a list of options, or its path is none.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// `tag` has no characters, too many, or some that do not print.
    #[error("tag '{}' must be 1 to {MAX_TAG} bytes without control characters", .0.escape_debug())]
    Tag(String),
}

impl ShareSpec {
    /// Reads a shared folder; its path need not be UTF-8. `dir=DIR` is taken for paths with a `=`.
    pub fn parse(text: &OsStr) -> Result<Self, ShareError> {
        let (mut directory, mut tag) = (None, None);
        for (name, value) in options::read(text, "dir", KNOWN)? {
            match name {
                "dir" => directory = Some(options::path(name, value)?),
                _ => tag = Some(check_tag(options::text(name, value.as_deref())?)?),
            }
        }
        Ok(Self { directory: directory.ok_or(ShareError::NoDirectory)?, tag })
    }

    /// The text that [`ShareSpec::parse`] reads, with every byte of the path.
    pub fn to_os_string(&self) -> OsString {
        let mut list = Writer::new("dir", Some(self.directory.as_os_str()));
        if let Some(tag) = &self.tag {
            list.add("tag", tag);
        }
        list.finish()
    }
}

fn check_tag(tag: &str) -> Result<String, ShareError> {
    if tag.is_empty() || tag.len() > MAX_TAG || tag.contains(char::is_control) {
        return Err(ShareError::Tag(tag.to_owned()));
    }
    Ok(tag.to_owned())
}

impl FromStr for ShareSpec {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        Self::parse(text.as_ref())
    }
}

impl fmt::Display for ShareSpec {
    /// Round-trips if the path is UTF-8; [`ShareSpec::to_os_string`] always does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_os_string().to_string_lossy())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_folder_and_tag() {
        for (text, directory, tag) in [
            ("/srv", "/srv", None),
            ("a,,b,tag=my tag", "a,b", Some("my tag")),
            ("dir=tag=x", "tag=x", None),
            ("tag=x,dir=y", "y", Some("x")),
        ] {
            let share = ShareSpec { directory: directory.into(), tag: tag.map(str::to_owned) };
            assert_eq!(text.parse(), Ok(share), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let long = "t".repeat(37);
        for (text, message) in [
            ("", "the path is empty".to_owned()),
            (",tag=x", "the path is empty".to_owned()),
            ("tag=x", "a shared folder needs a path: DIR[,tag=T]".to_owned()),
            ("/a,tag=", "tag '' must be 1 to 36 bytes without control characters".to_owned()),
            ("/a,tag=a\tb", "tag 'a\\tb' must be 1 to 36 bytes without control characters".to_owned()),
            (
                &format!("/a,tag={long}"),
                format!("tag '{long}' must be 1 to 36 bytes without control characters"),
            ),
            ("/a,tag=x,tag=y", "option 'tag' is given twice".to_owned()),
            ("/a,tga=x", "unknown option 'tga', did you mean 'tag'? (known: dir, tag)".to_owned()),
        ] {
            assert_eq!(text.parse::<ShareSpec>().unwrap_err().to_string(), message, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(path in prop::collection::vec(1..=255u8, 1..12), tag in prop::option::of("[ -~]{1,36}")) {
            let share = ShareSpec { directory: OsString::from_vec(path).into(), tag };
            prop_assert_eq!(ShareSpec::parse(&share.to_os_string()), Ok(share));
        }

        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>(), near in "(a|=|,|dir|tag){0,9}") {
            let _ = ShareSpec::parse(&OsString::from_vec(bytes));
            let _ = near.parse::<ShareSpec>();
        }
    }
}
