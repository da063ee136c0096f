//! Copies into a template: files with holes, and overlays whose backing file comes along.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};

/// Copies into a new, empty file, holes as holes. `count` is given the bytes so far. Returns how large it is.
///
/// # Errors
/// It cannot be read or written.
pub(super) fn copy_sparse(from: &File, to: &File, mut count: impl FnMut(u64)) -> io::Result<u64> {
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut at = 0;
    let mut copied = 0;
    while let Some((start, end)) = next_data(from, at)? {
        copy_range(from, to, start, end, &mut |bytes| {
            copied += bytes;
            count(copied);
        })?;
        at = end;
    }
    Ok(size)
}

/// The next range with data at or behind an offset; none if there is none.
fn next_data(file: &File, at: u64) -> io::Result<Option<(u64, u64)>> {
    let at = i64::try_from(at).map_err(io::Error::other)?;
    let start = match lseek(file.as_fd(), at, Whence::SeekData) {
        Ok(start) => start,
        Err(Errno::ENXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = lseek(file.as_fd(), start, Whence::SeekHole)?;
    Ok(Some((u64::try_from(start).map_err(io::Error::other)?, u64::try_from(end).map_err(io::Error::other)?)))
}

/// By the kernel: `copy_file_range` does not go from memory to a disk (EXDEV).
fn copy_range(from: &File, to: &File, start: u64, end: u64, count: &mut impl FnMut(u64)) -> io::Result<()> {
    /// The most that one call copies, so that progress can be told.
    const PIECE: u64 = 64 << 20;
    let mut offset = i64::try_from(start).map_err(io::Error::other)?;
    lseek(to.as_fd(), offset, Whence::SeekSet)?;
    let end = i64::try_from(end).map_err(io::Error::other)?;
    while offset < end {
        let piece = u64::try_from(end - offset).unwrap_or(0).min(PIECE);
        let piece = usize::try_from(piece).map_err(io::Error::other)?;
        match nix::sys::sendfile::sendfile(to.as_fd(), from.as_fd(), Some(&mut offset), piece) {
            // it was cut off meanwhile
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => count(bytes as u64),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Makes holes of a guest's memory where it is zero: a stream that is loaded into a file fills all of it.
///
/// # Errors
/// It cannot be read, or its file system has no holes.
pub fn dig_holes(memory: &File) -> io::Result<()> {
    /// As large as the largest pages of a guest's memory on x86-64 that are common.
    const PIECE: usize = 2 << 20;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while let Some((start, end)) = next_data(memory, at)? {
        at = start;
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            let read = memory.read_at(&mut piece[..most], at)?;
            if read == 0 {
                return Ok(());
            }
            if piece[..read].iter().all(|byte| *byte == 0) {
                let range = |bytes: u64| i64::try_from(bytes).map_err(io::Error::other);
                let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                fallocate(memory, hole, range(at)?, range(read as u64)?)?;
            }
            at += read as u64;
        }
    }
    Ok(())
}

/// The magic of a qcow2 image, and where its header names the backing file: an offset (u64) and a length (u32), big-endian.
const QCOW2: &[u8; 4] = b"QFI\xfb";
const BACKING: usize = 8;
/// The longest name, by QEMU's documentation of the format.
const LONGEST: u32 = 1023;

/// Has an overlay name its backing file as one beside it, if that is one of the files that are copied with it: a template can be
/// moved. Other files stay as they are.
pub(super) fn name_beside(overlay: &File, copies: &[PathBuf]) -> io::Result<()> {
    let mut head = [0; 20];
    match overlay.read_exact_at(&mut head, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        other => other?,
    }
    if !head.starts_with(QCOW2) {
        return Ok(());
    }
    let (_, fields) = head.split_at(BACKING);
    let (offset, length) = fields.split_at(8);
    let offset = offset.try_into().map_or(0, u64::from_be_bytes);
    let length = length.try_into().map_or(0, u32::from_be_bytes);
    if offset == 0 || length == 0 || length > LONGEST {
        return Ok(());
    }
    let mut name = vec![0; length as usize];
    overlay.read_exact_at(&mut name, offset)?;
    let named = copies.iter().find(|copy| copy.as_os_str().as_bytes() == name);
    let Some(beside) = named.and_then(|copy| Path::file_name(copy)) else { return Ok(()) };
    // shorter than the path that it replaces
    let beside = beside.as_bytes();
    overlay.write_all_at(beside, offset)?;
    let length = u32::try_from(beside.len()).map_err(io::Error::other)?;
    overlay.write_all_at(&length.to_be_bytes(), (BACKING + 8) as u64)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn zeroes_become_holes() {
        use std::os::unix::fs::MetadataExt;
        let memory = super::super::new_memory().unwrap();
        memory.set_len(16 << 20).unwrap();
        memory.write_all_at(&vec![0; 12 << 20], 0).unwrap();
        memory.write_all_at(b"kernel", 5 << 20).unwrap();
        assert!(memory.metadata().unwrap().blocks() * 512 >= 12 << 20);
        dig_holes(&memory).unwrap();
        let facts = memory.metadata().unwrap();
        assert!(facts.blocks() * 512 <= 4 << 20 && facts.len() == 16 << 20, "{facts:?}");
        let mut read = [0; 6];
        memory.read_exact_at(&mut read, 5 << 20).unwrap();
        assert_eq!(&read, b"kernel");
    }

    #[test]
    fn an_overlay_names_what_comes_along_as_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("overlay.qcow2");
        let base = PathBuf::from("/var/tmp/state/disk1.img");
        let named = |name: &[u8]| {
            let mut image = [QCOW2.as_slice(), &3_u32.to_be_bytes(), &104_u64.to_be_bytes()].concat();
            image.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
            image.resize(104, 0);
            image.extend(name);
            image.resize(65536, 0);
            fs::write(&path, image).unwrap();
            File::options().read(true).write(true).open(&path).unwrap()
        };
        let name = |file: &File| {
            let mut length = [0; 4];
            file.read_exact_at(&mut length, 16).unwrap();
            let mut name = vec![0; u32::from_be_bytes(length) as usize];
            file.read_exact_at(&mut name, 104).unwrap();
            String::from_utf8(name).unwrap()
        };
        let file = named(base.as_os_str().as_bytes());
        name_beside(&file, std::slice::from_ref(&base)).unwrap();
        assert_eq!(name(&file), "disk1.img");
        // what stays outside keeps its path
        for other in ["/home/me/disk1.img", "/var/tmp/state/disk1.img2", "disk1.img"] {
            let file = named(other.as_bytes());
            name_beside(&file, std::slice::from_ref(&base)).unwrap();
            assert_eq!(name(&file), other);
        }
        // anything else is left alone
        for other in [&b""[..], b"QFI", b"raw, and long enough to have a header", &[0; 512]] {
            fs::write(&path, other).unwrap();
            let file = File::options().read(true).write(true).open(&path).unwrap();
            name_beside(&file, std::slice::from_ref(&base)).unwrap();
            assert_eq!(fs::read(&path).unwrap(), other);
        }
    }
}
