//! The header of qcow2 images: QEMU's docs/interop/qcow2.txt. Big endian.

use super::header::{Header, HeaderError, big_u32, big_u64, slice};
use super::{Backing, DataFile};
use crate::spec::ImageFormat;

const VERSION_2_HEADER_BYTES: u64 = 72;
/// QEMU refuses longer names.
const MAX_BACKING_NAME: u32 = 1023;
/// More extensions than there are kinds: a loop's bound.
const MAX_EXTENSIONS: usize = 64;

const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
/// Bit of the incompatible features: the guest's data is in another file.
const HAS_DATA_FILE: u64 = 1 << 2;

/// Reads the header from an image's first bytes.
pub(super) fn parse(start: &[u8]) -> Result<Header, HeaderError> {
    let version = big_u32(start, 4)?;
    let (features, header_length) = match version {
        2 => (0, VERSION_2_HEADER_BYTES),
        3 => (big_u64(start, 72)?, big_u32(start, 100)?.into()),
        _ => return Err(HeaderError::Version),
    };
    let (backing_offset, backing_length) = (big_u64(start, 8)?, big_u32(start, 16)?);
    let virtual_size = big_u64(start, 24)?;
    let extensions = extensions(start, header_length, backing_offset)?;
    let find = |kind| extensions.iter().find(|(found, _)| *found == kind).map(|(_, data)| *data);

    let backing = if backing_offset != 0 {
        if backing_length > MAX_BACKING_NAME {
            return Err(HeaderError::Bounds("backing file name"));
        }
        let name = slice(start, backing_offset, backing_length.into())?.to_owned();
        let format =
            find(EXTENSION_BACKING_FORMAT).map(|format| String::from_utf8_lossy(format).into_owned());
        Some(Backing { name, format })
    } else {
        None
    };
    let data_files = if features & HAS_DATA_FILE != 0 {
        let name = find(EXTENSION_DATA_FILE).ok_or(HeaderError::Bounds("external data file"))?.to_owned();
        // raw by definition; measured: QEMU 7.2 hands the name to open(2) as it is
        vec![DataFile { name, raw: true, from_working_directory: true }]
    } else {
        Vec::new()
    };
    Ok(Header { format: ImageFormat::Qcow2, virtual_size_bytes: Some(virtual_size), backing, data_files })
}

/// The extensions lie between the header and the backing file's name.
fn extensions(start: &[u8], mut offset: u64, backing: u64) -> Result<Vec<(u32, &[u8])>, HeaderError> {
    let mut found = Vec::new();
    while backing == 0 || offset < backing {
        let (kind, length) = (big_u32(start, offset)?, u64::from(big_u32(start, offset + 4)?));
        if kind == 0 {
            break;
        }
        if found.len() == MAX_EXTENSIONS {
            return Err(HeaderError::Bounds("list of extensions"));
        }
        // of two that say the same QEMU takes the last: such an image is made on purpose
        if found.iter().any(|(other, _)| *other == kind) {
            return Err(HeaderError::Bounds("list of extensions"));
        }
        found.push((kind, slice(start, offset + 8, length)?));
        offset += 8 + length.next_multiple_of(8);
    }
    Ok(found)
}
