//! Which format an image's first bytes show. Total: any bytes give an answer.

use thiserror::Error;

use super::foreign::{self, Foreign};
use super::{Backing, DataFile, qcow2, vmdk};
use crate::spec::ImageFormat;

/// What an image's first bytes show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing known: bytes as they are.
    Raw,
    /// An encrypted volume.
    Luks,
    /// Nothing that vmrun takes as a disk.
    Foreign(&'static Foreign),
    /// A format with a header.
    Image(Header),
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The format.
    pub format: ImageFormat,
    /// How large the guest sees it, in bytes.
    pub virtual_size_bytes: Option<u64>,
    /// The image under it.
    pub backing: Option<Backing>,
    /// Other files with its data.
    pub data_files: Vec<DataFile>,
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// It ends too early.
    #[error("its header is cut off")]
    Short,
    /// A number in it is out of bounds.
    #[error("its header's {0} is out of bounds")]
    Bounds(&'static str),
    /// A version that does not exist.
    #[error("its header has an unknown version")]
    Version,
    /// A description of a disk that has no part.
    #[error("it describes a disk, and names no file with its data")]
    NoExtent,
}

/// Looks at the first bytes of an image (up to 2 MiB are of use).
///
/// # Errors
/// It shows a format's mark, but not a header that makes sense.
pub fn parse(start: &[u8]) -> Result<Found, HeaderError> {
    let plain = |format, virtual_size_bytes| {
        Ok(Found::Image(Header { format, virtual_size_bytes, backing: None, data_files: Vec::new() }))
    };
    if let Some(foreign) = foreign::at_start(start) {
        return Ok(Found::Foreign(foreign));
    }
    match start {
        [b'L', b'U', b'K', b'S', 0xba, 0xbe, ..] => Ok(Found::Luks),
        [b'Q', b'F', b'I', 0xfb, ..] => qcow2::parse(start).map(Found::Image),
        [b'Q', b'E', b'D', 0, ..] => qed(start).map(Found::Image),
        _ if vmdk::has_mark(start) => vmdk::parse(start).map(Found::Image),
        _ if start.starts_with(b"vhdxfile") => plain(ImageFormat::Vhdx, None),
        // a dynamic VHD has a copy of its footer at the start, a fixed one only the footer itself: see `parse_end`
        _ if start.starts_with(b"conectix") => plain(ImageFormat::Vpc, None),
        _ if little_u32(start, 0x40) == Ok(0xbeda_107f) => {
            plain(ImageFormat::Vdi, little_u64(start, 0x170).ok())
        }
        _ => Ok(Found::Raw),
    }
}

/// Looks at the last 512 bytes of an image whose first show nothing: a VHD of fixed size is bytes as they are, and a footer. QEMU does
/// not look for that; but its maker did not mean the footer to be part of the disk.
///
/// # Errors
/// As [`parse`].
pub(super) fn parse_end(end: &[u8]) -> Result<Option<ImageFormat>, HeaderError> {
    const FIXED: u32 = 2;
    match end.starts_with(b"conectix") {
        false => Ok(None),
        true if big_u32(end, 60) == Ok(FIXED) => Ok(Some(ImageFormat::Vpc)),
        true => Err(HeaderError::Bounds("disk type")),
    }
}

/// QED: docs/specs/qed_spec.rst. Little endian.
fn qed(start: &[u8]) -> Result<Header, HeaderError> {
    const HAS_BACKING: u64 = 1;
    const BACKING_IS_RAW: u64 = 4;
    let features = little_u64(start, 16)?;
    let backing = if features & HAS_BACKING != 0 {
        let name = slice(start, little_u32(start, 56)?.into(), little_u32(start, 60)?.into())?;
        let format = (features & BACKING_IS_RAW != 0).then(|| "raw".to_owned());
        Some(Backing { name: name.to_owned(), format })
    } else {
        None
    };
    let virtual_size_bytes = Some(little_u64(start, 48)?);
    Ok(Header { format: ImageFormat::Qed, virtual_size_bytes, backing, data_files: Vec::new() })
}

/// Part of a header; offsets come from the header itself.
pub(super) fn slice(bytes: &[u8], offset: u64, length: u64) -> Result<&[u8], HeaderError> {
    let end = offset.checked_add(length).ok_or(HeaderError::Short)?;
    let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
    range.and_then(|(start, end)| bytes.get(start..end)).ok_or(HeaderError::Short)
}

fn array<const N: usize>(bytes: &[u8], offset: u64) -> Result<[u8; N], HeaderError> {
    slice(bytes, offset, N as u64)?.try_into().map_err(|_| HeaderError::Short)
}

pub(super) fn little_u32(bytes: &[u8], offset: u64) -> Result<u32, HeaderError> {
    array(bytes, offset).map(u32::from_le_bytes)
}

pub(super) fn little_u64(bytes: &[u8], offset: u64) -> Result<u64, HeaderError> {
    array(bytes, offset).map(u64::from_le_bytes)
}

pub(super) fn big_u32(bytes: &[u8], offset: u64) -> Result<u32, HeaderError> {
    array(bytes, offset).map(u32::from_be_bytes)
}

pub(super) fn big_u64(bytes: &[u8], offset: u64) -> Result<u64, HeaderError> {
    array(bytes, offset).map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MARKS: [&[u8]; 7] = [
        b"QFI\xfb\0\0\0\x03",
        b"QFI\xfb\0\0\0\x02",
        b"QED\0",
        b"KDMV",
        b"COWD",
        b"# Disk DescriptorFile",
        b"conectix",
    ];

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(mark in 0..MARKS.len(), rest in proptest::collection::vec(any::<u8>(), 0..1200)) {
            let _ = parse(&rest);
            let _ = parse(&[MARKS[mark], &rest].concat());
            // small numbers get further into a header
            let small: Vec<u8> = rest.iter().map(|byte| if byte % 8 == 0 { byte / 8 } else { 0 }).collect();
            let _ = parse(&[MARKS[mark], &small].concat());
        }
    }

    #[test]
    fn nothing_known_is_raw() {
        for bytes in [&b""[..], b"Q", &[0; 4096], b"vhdxfil", b"QFI"] {
            assert_eq!(parse(bytes), Ok(Found::Raw));
        }
    }
}
