//! Why an image cannot be used.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::{Foreign, HeaderError};
use crate::spec::ImageFormat;

/// Why an image cannot be used.
#[derive(Debug, Error)]
pub enum ImageError {
    /// Not there.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// A directory.
    #[error("{} is a directory, not an image", .0.display())]
    Directory(PathBuf),
    /// A pipe, a socket, a terminal…
    #[error("{} is neither a file nor a block device", .0.display())]
    Special(PathBuf),
    /// No permission.
    #[error("{} may not be read: mode {mode:04o}, owned by uid {uid} and gid {gid}", path.display())]
    Forbidden {
        /// The image.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// Nothing is in it.
    #[error("{} is empty (0 bytes)", .0.display())]
    Empty(PathBuf),
    /// Encrypted, which vmrun has no key for.
    #[error("{} is encrypted with LUKS", .0.display())]
    Luks(PathBuf),
    /// Something else than a disk, or of a format that vmrun does not take.
    #[error("{} is {}: no disk that vmrun can use", path.display(), foreign.what)]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        foreign: &'static Foreign,
    },
    /// Its header makes no sense.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        source: HeaderError,
    },
    /// It is not what was said.
    #[error("{} is {found}, not {asked}", path.display())]
    Contradiction {
        /// The image.
        path: PathBuf,
        /// What was said.
        asked: ImageFormat,
        /// What its header says.
        found: ImageFormat,
    },
    /// Anything else.
    #[error("cannot read {}", path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ImageError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Empty(path) => {
                Some(format!("was it interrupted while it was made? remove '{}'", path.display()))
            }
            Self::Luks(_) => Some("give format=raw to hand it to the guest as it is".to_owned()),
            Self::Foreign { path, foreign } => Some(format!(
                "{}; to hand its bytes to the guest as they are, say `format=raw`",
                foreign.help(path)
            )),
            Self::Contradiction { .. } => Some("leave format= away to have it found".to_owned()),
            Self::Forbidden { .. } => Some("run as its owner, or change its permissions".to_owned()),
            Self::Missing(_)
            | Self::Directory(_)
            | Self::Special(_)
            | Self::Damaged { .. }
            | Self::Io { .. } => None,
        }
    }
}
