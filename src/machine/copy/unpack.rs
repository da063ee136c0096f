//! Unpacks a tar stream of the guest, which is not trusted: what it takes of memory here is limited, and so is what is read after its
//! end. What it takes of the disk is what the user asked for.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::{self, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use tar::{Archive, Entry, EntryType};

use crate::host::sys;

/// The most bytes in front of an entry: its header, and others with a name that is too long for it.
const MOST_OF_A_HEADER: u64 = 1 << 20;
/// The most bytes of all folders' headers: these are kept until the end.
const MOST_OF_FOLDERS: u64 = 256 << 20;
/// The most bytes after the archive's end: `tar` fills its last block, which has at most so many.
const MOST_AFTER_THE_END: u64 = 1 << 20;

/// Unpacks it into a folder. `tar` refuses here: paths with `..`, and through links to the outside.
pub(super) fn unpack(stream: UnixStream, folder: &Path) -> io::Result<()> {
    let left = Rc::new(Cell::new(0));
    let limited = Limited { stream: BufReader::new(stream), left: Rc::clone(&left) };
    let mut archive = Archive::new(limited);
    archive.set_mask(sys::umask());
    // their modes may forbid to write into them: folders come last, the deepest first
    let mut folders = BTreeMap::new();
    let mut bytes_of_folders = 0;
    let mut entries = archive.entries()?;
    loop {
        left.set(MOST_OF_A_HEADER);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(|error| why(&error))?;
        let bytes_of_header = MOST_OF_A_HEADER - left.get();
        left.set(u64::MAX);
        match entry.header().entry_type() {
            EntryType::Directory => {
                bytes_of_folders += bytes_of_header;
                if bytes_of_folders > MOST_OF_FOLDERS {
                    return Err(io::Error::other("the guest's archive has too many folders"));
                }
                folders.insert(entry.path_bytes().into_owned(), entry);
            }
            EntryType::Regular | EntryType::Continuous | EntryType::Symlink | EntryType::Link => {
                unpack_in(&mut entry, folder)?;
            }
            _ => {
                log::warn!("{} is left out: it is no file", String::from_utf8_lossy(&entry.path_bytes()));
                io::copy(&mut entry, &mut io::sink())?;
            }
        }
    }
    for entry in folders.into_values().rev() {
        unpack_folder_in(entry, folder)?;
    }
    // what follows the archive's end is nothing of it, but is read, so that the guest's `tar` can write it
    left.set(u64::MAX);
    let mut rest = archive.into_inner().take(MOST_AFTER_THE_END);
    match io::copy(&mut rest, &mut io::sink())? {
        MOST_AFTER_THE_END => Err(io::Error::other("the guest's archive goes on after its end")),
        _ => Ok(()),
    }
}

/// A folder also gets its time, which `tar` gives to files only.
fn unpack_folder_in(mut entry: Entry<'_, Limited>, folder: &Path) -> io::Result<()> {
    if !unpack_in(&mut entry, folder)? {
        return Ok(());
    }
    let (path, modified) = (folder.join(entry.path()?), entry.header().mtime()?);
    let modified = TimeSpec::new(i64::try_from(modified).unwrap_or(i64::MAX), 0);
    // one that the kernel does not take is of no importance
    if let Err(error) = utimensat(AT_FDCWD, &path, &modified, &modified, UtimensatFlags::NoFollowSymlink) {
        log::debug!("the time of {}: {error}", path.display());
    }
    Ok(())
}

/// Whether it was unpacked: one with `..` in its path is passed over.
fn unpack_in(entry: &mut Entry<'_, Limited>, folder: &Path) -> io::Result<bool> {
    let unpacked = entry.unpack_in(folder);
    unpacked.map_err(|error| {
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        io::Error::new(error.kind(), format!("{name}: {}", why(&error)))
    })
}

/// The innermost of `tar`'s errors: those around it say which file it was, several times.
fn why(error: &io::Error) -> io::Error {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    io::Error::new(error.kind(), text)
}

/// A stream of which only so many bytes are read.
struct Limited {
    stream: BufReader<UnixStream>,
    left: Rc<Cell<u64>>,
}

impl Read for Limited {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::other("a header in the guest's archive is too long"));
        }
        let most = usize::try_from(self.left.get()).unwrap_or(usize::MAX).min(bytes.len());
        let count = self.stream.read(&mut bytes[..most])?;
        self.left.set(self.left.get() - count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};
    use std::thread;

    use tar::Header;

    use super::*;

    /// What becomes of an archive; the stream is not read any more once it was refused.
    fn unpacked(archive: impl Read + Send + 'static) -> (io::Result<()>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let (reader, mut writer) = UnixStream::pair().unwrap();
        let writing = thread::spawn(move || {
            let mut archive = archive;
            let _ = io::copy(&mut archive, &mut writer);
        });
        let result = unpack(reader, folder.path());
        writing.join().unwrap();
        (result, folder)
    }

    fn entry(kind: EntryType, name: &str, size: u64) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    #[test]
    fn an_archive_without_an_end_is_refused() {
        let zeros = || io::repeat(0);
        let (result, _folder) = unpacked(zeros());
        assert!(result.unwrap_err().to_string().contains("after its end"));
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            let long = Cursor::new(entry(kind, "x", 1 << 40)).chain(io::repeat(b'x'));
            let (result, folder) = unpacked(long);
            let why = result.unwrap_err().to_string();
            assert!(why.contains("header") && why.contains("too long"), "{kind:?}: {why}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
        // long names, a large entry that is left out, and the padding of GNU's largest usual block are none of these
        let name = "long/".repeat(50) + "name";
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        archive.append_data(&mut header, &name, &b"x"[..]).unwrap();
        let mut good = entry(EntryType::Fifo, "pipe", 2 << 20);
        good.extend(vec![b'x'; 2 << 20]);
        good.extend(archive.into_inner().unwrap());
        good.extend(vec![0; 512 << 10]);
        let (result, folder) = unpacked(Cursor::new(good));
        result.unwrap();
        assert_eq!(std::fs::read(folder.path().join(name)).unwrap(), b"x");
    }

    #[test]
    fn the_cause_is_named_once() {
        let mut archive = entry(EntryType::Regular, "a", 1);
        archive.write_all(&[b'x'; 512]).unwrap();
        archive.extend(entry(EntryType::Regular, "a/b", 0));
        archive.extend([0; 1024]);
        let (result, _folder) = unpacked(Cursor::new(archive));
        let why = result.unwrap_err().to_string();
        assert!(why.starts_with("a/b: ") && why.contains("os error"), "{why}");
    }
}
