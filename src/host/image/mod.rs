//! Disk images: which format they have, what other files they lead to, and making new ones.
//!
//! An own reader of headers, since QEMU's guess may be steered by the guest that wrote the image.

mod create;
mod error;
mod foreign;
mod graph;
mod header;
mod identity;
mod open;
mod qcow2;
mod vm_state;
mod vmdk;

use std::path::Path;

pub use create::{CreateError, SECTOR, begin, create, create_overlay, finish, grow};
pub use error::ImageError;
pub use foreign::Foreign;
pub use graph::{BackingError, Known, resolve};
pub use header::{Found, Header, HeaderError, parse};
pub use identity::{ImageIdentity, file_id};
use open::OpenFile;
pub use open::{inspect, look};
pub use vm_state::copy_vm_state;

use crate::spec::ImageFormat;

/// What is known of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its format.
    pub format: ImageFormat,
    /// How large the guest sees it, in bytes, where that is simple to know.
    pub virtual_size_bytes: Option<u64>,
    /// The image under it.
    pub backing: Option<Backing>,
    /// Files with its data (qcow2's external data file, vmdk's extents), as named in it.
    pub data_files: Vec<DataFile>,
}

/// The image under an image, as named in its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// Its name: any bytes.
    pub name: Vec<u8>,
    /// Its format, if the header says so; else QEMU guesses.
    pub format: Option<String>,
}

/// A file with an image's data, as named in its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Its name: any bytes.
    pub name: Vec<u8>,
    /// It is opened as bytes; else it has a header that may lead further.
    pub raw: bool,
    /// QEMU looks for it from its own working directory, not from the image's folder.
    pub from_working_directory: bool,
}

/// Holds what was said about an image against what was found. Anything may be used as raw.
///
/// # Errors
/// They contradict each other.
pub fn check_format(path: &Path, asked: ImageFormat, found: ImageFormat) -> Result<(), ImageError> {
    if asked == found || asked == ImageFormat::Raw {
        return Ok(());
    }
    Err(ImageError::Contradiction { path: path.to_owned(), asked, found })
}

#[cfg(test)]
mod tests;
