//! VMware's images: a sparse file, or a text that names other files ("VMware Virtual Disks", VMDK 5.0).

use super::Backing;
use super::header::{Header, HeaderError, little_u64, slice};
use crate::spec::ImageFormat;

const TEXT_MARK: &[u8] = b"# Disk DescriptorFile";
const SECTOR: u64 = 512;
/// QEMU reads no longer description inside a sparse file.
const MAX_DESCRIPTION: u64 = 1 << 20;

pub(super) fn has_mark(start: &[u8]) -> bool {
    start.starts_with(b"KDMV") || start.starts_with(b"COWD") || start.starts_with(TEXT_MARK)
}

pub(super) fn parse(start: &[u8]) -> Result<Header, HeaderError> {
    let mut header =
        Header { format: ImageFormat::Vmdk, virtual_size_bytes: None, backing: None, data_files: Vec::new() };
    if start.starts_with(b"KDMV") {
        header.virtual_size_bytes = little_u64(start, 12)?.checked_mul(SECTOR);
        let (offset, sectors) = (little_u64(start, 28)?, little_u64(start, 36)?);
        let length = sectors.checked_mul(SECTOR).filter(|length| *length <= MAX_DESCRIPTION);
        let (Some(offset), Some(length)) = (offset.checked_mul(SECTOR), length) else {
            return Err(HeaderError::Bounds("description"));
        };
        header.backing = backing(slice(start, offset, length)?);
    } else if start.starts_with(TEXT_MARK) {
        header.backing = backing(start);
        header.data_files = lines(start).filter_map(extent).collect();
    }
    Ok(header)
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    text[..end].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii)
}

/// `parentFileNameHint="base.vmdk"`
fn backing(text: &[u8]) -> Option<Backing> {
    let hint = lines(text).find_map(|line| line.strip_prefix(b"parentFileNameHint"))?;
    Some(Backing { name: quoted(hint)?.to_owned(), format: Some("vmdk".to_owned()) })
}

/// `RW 131072 FLAT "disk-flat.vmdk" 0`
fn extent(line: &[u8]) -> Option<Vec<u8>> {
    let access = line.split(u8::is_ascii_whitespace).next()?;
    matches!(access, b"RW" | b"RDONLY" | b"NOACCESS").then(|| quoted(line).map(<[u8]>::to_owned))?
}

fn quoted(text: &[u8]) -> Option<&[u8]> {
    let start = text.iter().position(|byte| *byte == b'"')? + 1;
    let length = text[start..].iter().position(|byte| *byte == b'"')?;
    Some(&text[start..start + length])
}
