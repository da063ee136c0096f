//! Which image this is, whatever is written to it and whatever has its name.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::ImageError;
use crate::spec::FileId;

/// Which file this is, for as long as the host runs.
pub fn file_id(facts: &Metadata) -> FileId {
    match facts.file_type().is_block_device() {
        true => FileId { device: facts.rdev(), inode: 0 },
        false => FileId { device: facts.dev(), inode: facts.ino() },
    }
}

/// Says which file an image is, whatever is written to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageIdentity(String);

impl ImageIdentity {
    /// The identity of the image at `path`: inode and time of birth (device numbers change between boots); inode and device where a
    /// file system does not know births; a block device's path, since its node is made anew at every boot.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn of(path: &Path) -> Result<Self, ImageError> {
        let facts = fs::metadata(path).map_err(|source| ImageError::Io { path: path.to_owned(), source })?;
        Self::from_facts(&facts, path)
    }

    pub(super) fn from_facts(facts: &Metadata, path: &Path) -> Result<Self, ImageError> {
        if facts.file_type().is_block_device() {
            let io = |source| ImageError::Io { path: path.to_owned(), source };
            let path = path.canonicalize().map_err(io)?;
            return Ok(Self(format!("block {}", path.display())));
        }
        let born = facts.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Ok(Self(match born {
            Some(born) => format!("inode {} born {}.{:09}", facts.ino(), born.as_secs(), born.subsec_nanos()),
            None => format!("inode {} device {}", facts.ino(), facts.dev()),
        }))
    }

    /// For tests of other file systems than this machine's.
    #[cfg(test)]
    pub(in crate::host) fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
