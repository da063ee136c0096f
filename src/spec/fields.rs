//! How paths and OS strings stand in JSON without losing bytes: as a string where they are UTF-8,
//! else as an array of byte values.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Raw(Vec<u8>),
}

impl From<&OsStr> for Bytes {
    fn from(value: &OsStr) -> Self {
        match value.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Raw(value.as_bytes().to_owned()),
        }
    }
}

impl From<Bytes> for OsString {
    fn from(value: Bytes) -> Self {
        match value {
            Bytes::Text(text) => text.into(),
            Bytes::Raw(bytes) => OsString::from_vec(bytes),
        }
    }
}

/// For `#[serde(with)]` on a `PathBuf`.
pub mod path {
    use super::*;

    /// Writes a path.
    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        Bytes::from(path.as_os_str()).serialize(serializer)
    }

    /// Reads a path.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Bytes::deserialize(deserializer).map(|bytes| OsString::from(bytes).into())
    }
}

/// For `#[serde(with)]` on an `Option<PathBuf>`.
pub mod optional_path {
    use super::*;

    /// Writes an optional path.
    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_deref().map(|path| Bytes::from(path.as_os_str())).serialize(serializer)
    }

    /// Reads an optional path.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<Bytes>::deserialize(deserializer)?.map(|bytes| OsString::from(bytes).into()))
    }
}

/// For `#[serde(with)]` on a `Vec<OsString>`.
pub mod os_strings {
    use super::*;

    /// Writes a list of OS strings.
    pub fn serialize<S: Serializer>(list: &[OsString], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|item| Bytes::from(item.as_os_str())))
    }

    /// Reads a list of OS strings.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<OsString>, D::Error> {
        Ok(Vec::<Bytes>::deserialize(deserializer)?.into_iter().map(OsString::from).collect())
    }
}
