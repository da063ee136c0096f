//! Unified kernel images: a kernel, its initial RAM disk and its command line in the sections of an EFI program.
//!
//! QEMU loads no such program by itself, but its parts. The layout is Microsoft's "PE Format"; the names of the sections are those of the
//! UAPI Group's specification of unified kernel images.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::files;

/// Where the old DOS header says the other one is.
const HEADER_OFFSET: usize = 0x3c;
const SIGNATURE: &[u8] = b"PE\0\0";
/// Of the COFF header behind the signature.
const COFF_BYTES: usize = 20;
const SECTION_BYTES: usize = 40;
/// As much of it as the headers are in; those of real ones have some hundred bytes.
const HEAD_BYTES: u64 = 64 << 10;
/// Linux' own limit is 4 KiB at most.
const MAX_CMDLINE: u64 = 64 << 10;

/// Where in a file the parts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sections {
    kernel: Range<u64>,
    initrd: Option<Range<u64>>,
    cmdline: Option<Range<u64>>,
}

/// Finds the parts; none if it is no unified kernel image.
pub fn sections(head: &[u8]) -> Option<Sections> {
    let number = |at: usize, bytes: usize| {
        let bytes = head.get(at..at.checked_add(bytes)?)?;
        Some(bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    let pe = usize::try_from(number(HEADER_OFFSET, 4)?).ok()?;
    if !head.starts_with(b"MZ") || !head.get(pe..)?.starts_with(SIGNATURE) {
        return None;
    }
    let coff = pe + SIGNATURE.len();
    let count = usize::try_from(number(coff + 2, 2)?).ok()?;
    let optional = usize::try_from(number(coff + 16, 2)?).ok()?;
    let table = coff + COFF_BYTES + optional;
    let find = |wanted: &[u8]| {
        (0..count).map(|index| table + index * SECTION_BYTES).find_map(|at| {
            let name = head.get(at..at + 8)?;
            let name = name.split(|byte| *byte == 0).next()?;
            // what is in memory may be shorter than its place in the file, which is rounded up
            let bytes = number(at + 8, 4)?.min(number(at + 16, 4)?);
            let start = number(at + 20, 4)?;
            (name == wanted && bytes > 0).then(|| start..start + bytes)
        })
    };
    Some(Sections { kernel: find(b".linux")?, initrd: find(b".initrd"), cmdline: find(b".cmdline") })
}

/// All parts together. A kernel has some ten MiB, an initial RAM disk with all firmware some hundred, and QEMU loads both into memory.
const MAX_BYTES: u64 = 4 << 30;

/// A unified kernel image, opened once.
#[derive(Debug)]
pub struct Uki {
    file: File,
    sections: Sections,
}

impl Uki {
    /// Opens it; none if it is another EFI program.
    ///
    /// # Errors
    /// Of the file system; a part does not lie in the file.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let (file, facts) = files::open(path)?;
        let head = read(&file, 0..HEAD_BYTES.min(facts.len()))?;
        let Some(sections) = sections(&head) else { return Ok(None) };
        let parts = [Some(&sections.kernel), sections.initrd.as_ref(), sections.cmdline.as_ref()];
        if parts.into_iter().flatten().any(|part| part.end > facts.len()) {
            return Err(io::Error::other("it is a unified kernel image that is not whole"));
        }
        // parts that lie over each other, or in holes, would fill the disk
        let bytes: u64 = parts.into_iter().flatten().map(|part| part.end - part.start).sum();
        if bytes > MAX_BYTES || bytes > facts.len() {
            return Err(io::Error::other("it is a unified kernel image, and its parts are larger than any"));
        }
        Ok(Some(Self { file, sections }))
    }

    /// The kernel's command line.
    ///
    /// # Errors
    /// It cannot be read, or is no text.
    pub fn cmdline(&self) -> io::Result<String> {
        let Some(part) = self.sections.cmdline.clone() else { return Ok(String::new()) };
        if part.end - part.start > MAX_CMDLINE {
            return Err(io::Error::other("its command line is too long"));
        }
        let text = String::from_utf8(read(&self.file, part)?)
            .map_err(|_| io::Error::other("its command line is no text"))?;
        Ok(text.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned())
    }

    /// Whether there is an initial RAM disk in it.
    pub fn has_initrd(&self) -> bool {
        self.sections.initrd.is_some()
    }

    /// Writes the kernel.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write_kernel(&self, to: &mut File) -> io::Result<()> {
        self.write(self.sections.kernel.clone(), to)
    }

    /// Writes the initial RAM disk, if there is one.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write_initrd(&self, to: &mut File) -> io::Result<()> {
        self.sections.initrd.clone().map_or(Ok(()), |part| self.write(part, to))
    }

    fn write(&self, mut part: Range<u64>, to: &mut File) -> io::Result<()> {
        while !part.is_empty() {
            let end = part.end.min(part.start + (1 << 20));
            io::Write::write_all(to, &read(&self.file, part.start..end)?)?;
            part.start = end;
        }
        Ok(())
    }
}

fn read(file: &File, part: Range<u64>) -> io::Result<Vec<u8>> {
    let bytes = usize::try_from(part.end - part.start).map_err(io::Error::other)?;
    let mut read = vec![0; bytes];
    file.read_exact_at(&mut read, part.start)?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PE file with these sections, as far as anybody looks.
    fn pe(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 0x1000];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x80;
        bytes[0x80..0x84].copy_from_slice(SIGNATURE);
        bytes[0x86] = u8::try_from(sections.len()).unwrap();
        bytes[0x94] = 0x10;
        for (number, (name, content)) in sections.iter().enumerate() {
            let at = 0x98 + 0x10 + number * SECTION_BYTES;
            let start = u32::try_from(bytes.len()).unwrap();
            bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
            bytes[at + 8..at + 12].copy_from_slice(&u32::try_from(content.len()).unwrap().to_le_bytes());
            bytes[at + 16..at + 20].copy_from_slice(&512u32.to_le_bytes());
            bytes[at + 20..at + 24].copy_from_slice(&start.to_le_bytes());
            bytes.extend(*content);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes
    }

    #[test]
    fn the_parts_are_found_and_no_more_than_they_are() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.efi");
        let parts: [(&str, &[u8]); 4] = [
            (".osrel", b"ID=x"),
            (".cmdline", b"root=/dev/vda quiet\n\0"),
            (".linux", b"kernel"),
            (".initrd", b"ram"),
        ];
        std::fs::write(&path, pe(&parts)).unwrap();
        let uki = Uki::open(&path).unwrap().unwrap();
        assert_eq!(uki.cmdline().unwrap(), "root=/dev/vda quiet");
        let out = root.path().join("out");
        uki.write_kernel(&mut File::create(&out).unwrap()).unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), b"kernel");
        uki.write_initrd(&mut File::create(&out).unwrap()).unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), b"ram");
        // another program
        std::fs::write(&path, pe(&parts[..2])).unwrap();
        assert!(Uki::open(&path).unwrap().is_none());
        let mut twice = pe(&parts);
        let (kernel, initrd) = (0x98 + 0x10 + 2 * SECTION_BYTES, 0x98 + 0x10 + 3 * SECTION_BYTES);
        for at in [kernel, initrd] {
            for (at, value) in [(at + 8, 0x1000u32), (at + 16, 0x1000), (at + 20, 0)] {
                twice[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
        }
        std::fs::write(&path, twice).unwrap();
        assert!(Uki::open(&path).unwrap_err().to_string().contains("larger than any"));
        let mut cut = pe(&parts);
        cut.truncate(cut.len() - 1000);
        std::fs::write(&path, cut).unwrap();
        assert!(Uki::open(&path).unwrap_err().to_string().contains("not whole"));
    }
}
