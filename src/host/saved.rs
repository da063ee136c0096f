//! The file of a saved VM: a head, a description, and from a fixed offset on what QEMU wrote.
//!
//! ```text
//! 0       VMRUNVM\n  version  length of the description  length of the stream  description (JSON)
//! 256 KiB QEMU's migration stream
//! ```
//! Numbers are little-endian: u32, u32, u64. The head is written last, so that a file that is not whole is none.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

const MAGIC: &[u8; 8] = b"VMRUNVM\n";
const VERSION: u32 = 1;
const HEAD: usize = 24;
/// Where the stream begins: a multiple of any file system's block.
const STREAM: u64 = 256 << 10;

/// Why a file is not that of a saved VM, or cannot be written.
#[derive(Debug, Error)]
pub enum SavedError {
    /// It cannot be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is something already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// Something else.
    #[error("{} is not a saved VM", .0.display())]
    Foreign(PathBuf),
    /// Made by a newer vmrun.
    #[error("{} was saved by a newer vmrun (format {version}; this one knows {VERSION})", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// Its end is missing.
    #[error("{} is cut off: {have} of {wanted} bytes are there", path.display())]
    CutOff {
        /// The file.
        path: PathBuf,
        /// Bytes that are there.
        have: u64,
        /// Bytes that there were.
        wanted: u64,
    },
    /// The description cannot be read by this version.
    #[error("the description in {} makes no sense: {why}", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// A file that is being written, under another name beside its place; it goes if it is not put there.
#[derive(Debug)]
pub struct Writing {
    path: PathBuf,
    part: PathBuf,
    file: File,
}

impl Writing {
    /// Makes it, for its owner only.
    ///
    /// # Errors
    /// There is something at its place, or it cannot be made.
    pub fn create(path: &Path) -> Result<Self, SavedError> {
        if fs::symlink_metadata(path).is_ok() {
            return Err(SavedError::Exists(path.to_owned()));
        }
        let io = |source| SavedError::Io { path: path.to_owned(), source };
        let part = part(path);
        let mut options = fs::OpenOptions::new();
        let mut file = options.read(true).write(true).create_new(true).mode(0o600).open(&part).map_err(io)?;
        file.seek(SeekFrom::Start(STREAM)).map_err(io)?;
        Ok(Self { path: path.to_owned(), part, file })
    }

    /// To write the stream to, and for [`finish`].
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn stream(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Puts a finished file in its place, at once; [`sync_folder`] makes that last.
    ///
    /// # Errors
    /// Something has taken its place in the meantime.
    pub fn place(self) -> Result<(), SavedError> {
        fs::hard_link(&self.part, &self.path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => SavedError::Exists(self.path.clone()),
            _ => SavedError::Io { path: self.path.clone(), source },
        })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.part);
    }
}

/// Writes the head into a file that [`Writing::stream`] gave; everything is on the disk then. Takes as long as the disk.
///
/// # Errors
/// It cannot be written.
pub fn finish(file: &File, description: &[u8], stream_bytes: u64) -> io::Result<()> {
    let length = u32::try_from(description.len()).unwrap_or(u32::MAX);
    if u64::from(length) + HEAD as u64 > STREAM {
        return Err(io::Error::other("the VM's description is too long"));
    }
    let mut head = Vec::with_capacity(HEAD + description.len());
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(&stream_bytes.to_le_bytes());
    head.extend_from_slice(description);
    file.sync_all()?;
    file.write_all_at(&head, 0)?;
    file.sync_all()
}

/// Brings a file's name to the disk.
///
/// # Errors
/// Of the file system.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// What a file is called until it is whole.
pub fn part(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// Reads the description; the file then stands at the beginning of the stream.
///
/// # Errors
/// It is none, of another version, or not whole.
pub fn open(path: &Path) -> Result<(Vec<u8>, File), SavedError> {
    let io = |source| SavedError::Io { path: path.to_owned(), source };
    let foreign = || SavedError::Foreign(path.to_owned());
    let mut file = File::open(path).map_err(io)?;
    let facts = file.metadata().map_err(io)?;
    if !facts.is_file() {
        return Err(foreign());
    }
    let mut head = [0; HEAD];
    file.read_exact(&mut head).map_err(|_| foreign())?;
    let (magic, rest) = head.split_at(MAGIC.len());
    let number = |at: usize| rest[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
    if magic != MAGIC {
        return Err(foreign());
    }
    if number(0) != VERSION {
        return Err(SavedError::Version { path: path.to_owned(), version: number(0) });
    }
    let stream = rest[8..].try_into().map_or(0, u64::from_le_bytes);
    let wanted = STREAM.saturating_add(stream);
    if facts.len() < wanted {
        return Err(SavedError::CutOff { path: path.to_owned(), have: facts.len(), wanted });
    }
    let length = number(4);
    if u64::from(length) > STREAM {
        return Err(foreign());
    }
    let mut description = vec![0; length as usize];
    file.read_exact(&mut description).map_err(io)?;
    file.seek(SeekFrom::Start(STREAM)).map_err(io)?;
    Ok((description, file))
}

/// Copies a stream until its end; `count` hears of each piece.
///
/// # Errors
/// Reading or writing failed.
pub fn pump(mut from: impl Read, mut to: impl Write, mut count: impl FnMut(u64)) -> io::Result<u64> {
    let mut piece = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok(total),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&piece[..read])?;
        total += read as u64;
        count(total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(folder: &Path) -> PathBuf {
        let path = folder.join("vm.saved");
        let writing = Writing::create(&path).unwrap();
        assert!(!path.exists());
        let mut counted = 0;
        let bytes = pump(&b"a stream"[..], writing.stream().unwrap(), |count| counted = count).unwrap();
        assert_eq!((bytes, counted), (8, 8));
        finish(&writing.stream().unwrap(), b"{}", bytes).unwrap();
        assert!(!path.exists());
        writing.place().unwrap();
        sync_folder(&path).unwrap();
        path
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = saved(folder.path());
        let (description, mut file) = open(&path).unwrap();
        let mut stream = String::new();
        file.read_to_string(&mut stream).unwrap();
        assert_eq!((description.as_slice(), stream.as_str()), (&b"{}"[..], "a stream"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(matches!(Writing::create(&path), Err(SavedError::Exists(_))));
    }

    #[test]
    fn what_is_not_whole_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm");
        drop(Writing::create(&path).unwrap());
        // somebody else takes the name meanwhile
        let writing = Writing::create(&path).unwrap();
        fs::write(&path, "theirs").unwrap();
        finish(&writing.stream().unwrap(), b"{}", 0).unwrap();
        assert!(matches!(writing.place(), Err(SavedError::Exists(_))));
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_none_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = saved(folder.path());
        let whole = fs::read(&path).unwrap();
        let told = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            open(&path).unwrap_err().to_string()
        };
        let cut = told(&whole[..whole.len() - 1]);
        assert!(cut.ends_with("is cut off: 262151 of 262152 bytes are there"), "{cut}");
        for foreign in [&b""[..], b"VMRUNVM", b"QFI\xfb and so on, and on, and on", &[0; 100]] {
            assert!(told(foreign).ends_with("is not a saved VM"), "{foreign:?}");
        }
        let mut newer = whole.clone();
        newer[8] = 2;
        assert!(told(&newer).contains("saved by a newer vmrun (format 2"));
        assert!(open(folder.path()).unwrap_err().to_string().ends_with("is not a saved VM"));
    }
}
