//! VMware's images: a sparse file, or a text that names other files ("VMware Virtual Disks", VMDK 5.0).
//!
//! What counts is what QEMU opens (`block/vmdk.c`), not what the format's description says: where this reads more
//! than QEMU does an image is refused that could do no harm, where it read less an image could lead to any file.

use super::header::{Header, HeaderError, little_u64, slice};
use super::{Backing, DataFile};
use crate::spec::ImageFormat;

const TEXT_MARK: &[u8] = b"# Disk DescriptorFile";
const SECTOR: u64 = 512;
/// QEMU reads no longer description.
const MAX_DESCRIPTION: u64 = 1 << 20;
/// Where QEMU looks for the parent of a sparse file (`vmdk_parent_open`), whatever the header says.
const PARENT_OFFSET: usize = 0x200;
/// As much of it as QEMU looks at.
const PARENT_BYTES: usize = 20 * 512;
/// What QEMU guesses a format from (`BLOCK_PROBE_BUF_SIZE`).
const PROBED: usize = 512;
/// As long as QEMU lets a file's name be.
const MAX_NAME: usize = 511;
/// A disk of 2 TB in parts of 2 GB has as many.
const MAX_EXTENTS: usize = 1024;

pub(super) fn has_mark(start: &[u8]) -> bool {
    is_sparse(start) || start.starts_with(TEXT_MARK) || is_description(&start[..start.len().min(PROBED)])
}

fn is_sparse(start: &[u8]) -> bool {
    start.starts_with(b"KDMV") || start.starts_with(b"COWD")
}

/// As `vmdk_probe`: after comments and empty lines comes the version.
fn is_description(start: &[u8]) -> bool {
    let mut lines = start.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(b"#"));
    first.is_some_and(|line| matches!(line, b"version=1" | b"version=2" | b"version=3"))
}

pub(super) fn parse(start: &[u8]) -> Result<Header, HeaderError> {
    let mut header =
        Header { format: ImageFormat::Vmdk, virtual_size_bytes: None, backing: None, data_files: Vec::new() };
    if !is_sparse(start) {
        header.backing = parent(start);
        header.data_files = described(start)?;
        header.virtual_size_bytes = size(start);
        return Ok(header);
    }
    header.backing = start.get(PARENT_OFFSET..).and_then(parent);
    if start.starts_with(b"KDMV") {
        let sectors = little_u64(start, 12)?;
        header.virtual_size_bytes = sectors.checked_mul(SECTOR);
        let offset = little_u64(start, 28)?;
        // a sparse file without room for data of its own is a description in disguise
        if sectors == 0 {
            let offset = offset.checked_mul(SECTOR).ok_or(HeaderError::Bounds("description"))?;
            let rest = slice(start, offset, (start.len() as u64).saturating_sub(offset))?;
            let description = &rest[..rest.len().min(MAX_DESCRIPTION as usize)];
            header.data_files = described(description)?;
            header.virtual_size_bytes = size(description);
        }
    }
    Ok(header)
}

/// How large its extents are together, in bytes; none where they are not written in the usual form.
fn size(description: &[u8]) -> Option<u64> {
    let lines = text(description).split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut extents = lines.filter_map(|line| line.strip_prefix(b"RW ")).peekable();
    extents.peek()?;
    let sectors =
        |line: &[u8]| std::str::from_utf8(line.split(|byte| *byte == b' ').next()?).ok()?.parse().ok();
    let total = extents.try_fold(0u64, |total, line| total.checked_add(sectors(line)?))?;
    total.checked_mul(SECTOR)
}

/// A text as C sees it.
fn text(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
}

/// `parentFileNameHint="base.vmdk"`, wherever it stands: QEMU skips two bytes after the word and reads to the next quote.
fn parent(start: &[u8]) -> Option<Backing> {
    const WORD: &[u8] = b"parentFileNameHint";
    let text = text(&start[..start.len().min(PARENT_BYTES)]);
    let word = text.windows(WORD.len()).position(|window| window == WORD)?;
    let name = text.get(word + WORD.len() + 2..)?;
    let name = &name[..name.iter().position(|byte| *byte == b'"')?];
    Some(Backing { name: name.to_owned(), format: Some("vmdk".to_owned()) })
}

/// The files with the data of a disk that is described. One without any is refused: QEMU (7.2 to 11.1) opens it, and the first look at its
/// block nodes ends it (`vmdk_get_info`: "Assertion `s->num_extents' failed").
fn described(description: &[u8]) -> Result<Vec<DataFile>, HeaderError> {
    let text = text(description);
    let line_starts = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let has_extent = std::iter::once(0).chain(line_starts).any(|at| is_extent(&text[at..]));
    if has_extent { extents(description) } else { Err(HeaderError::NoExtent) }
}

/// Whether QEMU takes what begins with this line for an extent without any doubt; see [`extents`] for why the line's end counts for nothing.
/// It skips others: without sectors, of a kind that it does not know.
fn is_extent(from_line: &[u8]) -> bool {
    let mut words = from_line.split(|byte| is_space(*byte)).filter(|word| !word.is_empty());
    let mut word = || words.next().unwrap_or_default();
    let access = word() == b"RW";
    let sectors = std::str::from_utf8(word()).ok().and_then(|sectors| sectors.parse::<i64>().ok());
    let kind = matches!(word(), b"FLAT" | b"SPARSE" | b"VMFS" | b"VMFSSPARSE" | b"SESPARSE");
    let named = matches!(word(), [b'"', first, ..] if *first != b'"');
    access && sectors.is_some_and(|sectors| sectors > 0) && kind && named
}

/// `RW 131072 FLAT "disk-flat.vmdk" 0`. QEMU reads with `sscanf`, for which a line's end is as good as a blank: so every `RW` counts,
/// with whatever is quoted next.
fn extents(description: &[u8]) -> Result<Vec<DataFile>, HeaderError> {
    let text = text(description);
    let mut found = Vec::new();
    let mut quote = 0;
    for (position, _) in text.windows(2).enumerate().filter(|(_, pair)| *pair == b"RW") {
        let free = |at: Option<usize>| at.and_then(|at| text.get(at)).is_none_or(|byte| is_space(*byte));
        if !free(position.checked_sub(1)) || !free(Some(position + 2)) {
            continue;
        }
        while quote < text.len() && (quote < position || text[quote] != b'"') {
            quote += 1;
        }
        let Some(name) = text.get(quote + 1..) else { break };
        let end = name.iter().position(|byte| matches!(byte, b'"' | b'\n' | b'\r')).unwrap_or(name.len());
        let kind = text[position..quote].split(|byte| is_space(*byte)).rfind(|word| !word.is_empty());
        let raw = matches!(kind, Some(b"FLAT" | b"VMFS" | b"VMFSRDM"));
        let name = name[..end.min(MAX_NAME)].to_owned();
        found.push(DataFile { name, raw, from_working_directory: false });
        if found.len() > MAX_EXTENTS {
            return Err(HeaderError::Bounds("list of extents"));
        }
    }
    Ok(found)
}

/// As C's `isspace`.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(header: &Header) -> Vec<String> {
        header.data_files.iter().map(|file| String::from_utf8_lossy(&file.name).into_owned()).collect()
    }

    fn sparse(sectors: u64, description: u64) -> Vec<u8> {
        let mut start = vec![0; 512];
        start[..4].copy_from_slice(b"KDMV");
        start[12..20].copy_from_slice(&sectors.to_le_bytes());
        start[28..36].copy_from_slice(&description.to_le_bytes());
        start
    }

    #[test]
    fn a_description_is_known_without_its_title() {
        for text in ["version=1\n", "#x\n\n \r\nversion=3\r\nCID=1"] {
            assert!(has_mark(text.as_bytes()), "{text:?}");
        }
        for text in ["version=4\n", "x\nversion=1\n", "", "# only a comment"] {
            assert!(!has_mark(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn extents_are_found_however_they_are_written() {
        for (text, wanted) in [
            ("version=1\nRW 1 FLAT \"a\" 0\nRW 2 SPARSE \"b\"\n", vec!["a", "b"]),
            ("version=1\nRW\n1\x0b FLAT\n\"/etc/passwd\" 0\n", vec!["/etc/passwd"]),
            ("version=1\n RW 1 SPARSE \"/etc/passwd\nx\"\n", vec!["/etc/passwd"]),
            ("version=1\nARW 1 FLAT \"a\" 0\nRWX \"b\"\n", vec![]),
            ("version=1\n\0RW 1 FLAT \"a\" 0\n", vec![]),
            ("version=1\nRW 1 FLAT a", vec![]),
        ] {
            let found = extents(text.as_bytes()).unwrap();
            let found: Vec<_> = found.iter().map(|file| String::from_utf8_lossy(&file.name)).collect();
            assert_eq!(found, wanted, "{text:?}");
        }
        let long = format!("version=1\nRW 1 SPARSE \"{}/secret\"\n", "x".repeat(511));
        assert_eq!(names(&parse(long.as_bytes()).unwrap()), ["x".repeat(511)]);
        let kinds = parse(b"version=1\nRW 1 FLAT \"a\" 0\nRW 2 SPARSE \"b\"\nRW 2FLAT \"c\"").unwrap();
        let raw: Vec<bool> = kinds.data_files.iter().map(|file| file.raw).collect();
        assert_eq!(raw, [true, false, false]);
        let endless = "version=1\n".to_owned() + &"RW 1 FLAT \"a\" 0\n".repeat(2000);
        assert_eq!(parse(endless.as_bytes()), Err(HeaderError::Bounds("list of extents")));
    }

    #[test]
    fn a_description_without_a_part_is_refused() {
        for lines in [
            "",
            "CID=1\ncreateType=\"vmfs\"\n",
            "RW 10 ZERO\n",
            "RW 10 ZERO \"a\"\n",
            "RW 0 FLAT \"a\" 0\n",
            "RW -1 FLAT \"a\" 0\n",
            "RW 1 FLAT \"\" 0\n",
            "RDONLY 1 FLAT \"a\" 0\nNOACCESS 1 SPARSE \"b\"\n",
            "\0RW 1 FLAT \"a\" 0\n",
        ] {
            let text = format!("version=1\n{lines}");
            assert_eq!(parse(text.as_bytes()), Err(HeaderError::NoExtent), "{text:?}");
            let image = [sparse(0, 1), text.into_bytes()].concat();
            assert_eq!(parse(&image), Err(HeaderError::NoExtent));
        }
        assert_eq!(parse(&sparse(0, 0)), Err(HeaderError::NoExtent));
    }

    #[test]
    fn a_sparse_file_of_nothing_is_a_description() {
        let description = b"version=1\nRW 1 FLAT \"/etc/passwd\" 0\n";
        let image = [sparse(0, 1), description.to_vec()].concat();
        assert_eq!(names(&parse(&image).unwrap()), ["/etc/passwd"]);
        // one with data describes itself
        let image = [sparse(1, 1), description.to_vec()].concat();
        assert_eq!(names(&parse(&image).unwrap()), [""; 0]);
        assert_eq!(parse(&sparse(0, u64::MAX)), Err(HeaderError::Bounds("description")));
        assert_eq!(parse(&sparse(0, 1 << 40)), Err(HeaderError::Short));
    }

    #[test]
    fn the_parent_is_where_qemu_looks_for_it() {
        let hint = b"# parentFileNameHint=\"/etc/passwd\"\n";
        // the header points elsewhere
        for start in [sparse(1, 1000), [b"COWD".to_vec(), vec![0; 508]].concat()] {
            let header = parse(&[start, hint.to_vec()].concat()).unwrap();
            assert_eq!(header.backing.unwrap().name, b"/etc/passwd");
        }
        assert_eq!(parse(&sparse(1, 1)).unwrap().backing, None);
    }
}
