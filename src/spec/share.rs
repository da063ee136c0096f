//! Shared folders: `--virtiofs DIR[,tag=T]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `--virtiofs` as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareSpec {
    /// The folder.
    pub directory: PathBuf,
    /// The guest mounts it by this tag (1 to 36 bytes); none = `share0`, `share1`, …
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
