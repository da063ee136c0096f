//! The file of a saved VM: a head, a description, and from a fixed offset on what QEMU wrote.
//!
//! ```text
//! 0       VMRUNVM\n  version  length of the description  length of the stream  description (JSON)
//! 256 KiB QEMU's migration stream
//! ```
//! Numbers are little-endian: u32, u32, u64. The head is written last, so that an incomplete file is not taken for a saved VM.

pub(in crate::host) mod writing;

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::geteuid;
use thiserror::Error;

pub use writing::{Writing, finish, part, remove_parts, sync_folder};

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
    /// A pipe, a device, a directory: never opened.
    #[error("{} is not a regular file, so it is not a saved VM", .0.display())]
    Special(PathBuf),
    /// Someone else's.
    #[error("{} belongs to uid {uid}: only a saved VM of one's own (uid {own}) is restored", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
        /// Who wants to restore it.
        own: u32,
    },
    /// Others could have changed it.
    #[error("{} can be written by others (mode {mode:04o}), who could run anything by it", path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Its folder has no way to take a name that is free.
    #[error("{}: this file system can give no file its name without replacing another", path.display())]
    NoPlacing {
        /// The file.
        path: PathBuf,
    },
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

impl SavedError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Foreign(_) | Self::Special(_) => Some("`vmrun ctl save FILE` makes such files".to_owned()),
            Self::Owner { .. } => Some(
                "whoever wrote the file decides what the restored VM is: copy it (`cp`) if you trust its owner"
                    .to_owned(),
            ),
            Self::OpenToOthers { .. } => {
                Some("if nobody has changed it: `chmod go-w FILE`, then restore it".to_owned())
            }
            Self::NoPlacing { .. } => Some("choose a folder on another file system".to_owned()),
            Self::Exists(_) => Some("remove it, or choose another name".to_owned()),
            Self::Io { .. } | Self::Version { .. } | Self::CutOff { .. } | Self::Description { .. } => None,
        }
    }
}

/// Opens a file that is trusted with a whole machine: a regular one, of this user, that no other user can write.
///
/// It is looked at before it is opened for reading, since opening alone can hang (a pipe) or do something (a device).
fn open_trusted(path: &Path) -> Result<(File, Metadata), SavedError> {
    let io = |source| SavedError::Io { path: path.to_owned(), source };
    let seen = File::options().read(true).custom_flags(libc::O_PATH).open(path).map_err(io)?;
    let facts = seen.metadata().map_err(io)?;
    if !facts.is_file() {
        return Err(SavedError::Special(path.to_owned()));
    }
    let own = geteuid().as_raw();
    if facts.uid() != own {
        return Err(SavedError::Owner { path: path.to_owned(), uid: facts.uid(), own });
    }
    if facts.mode() & 0o022 != 0 {
        return Err(SavedError::OpenToOthers { path: path.to_owned(), mode: facts.mode() & 0o7777 });
    }
    // the very file that was looked at, whatever has the name now
    let file = File::open(format!("/proc/self/fd/{}", seen.as_raw_fd())).map_err(io)?;
    Ok((file, facts))
}

/// Reads the description; the file then stands at the beginning of the stream.
///
/// # Errors
/// It is none, of another version, incomplete, or others than this user had a hand in it.
pub fn open(path: &Path) -> Result<(Vec<u8>, File), SavedError> {
    let io = |source| SavedError::Io { path: path.to_owned(), source };
    let foreign = || SavedError::Foreign(path.to_owned());
    let (mut file, facts) = open_trusted(path)?;
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
    // no state has no bytes
    let wanted = STREAM.saturating_add(stream.max(1));
    if facts.len() < wanted || stream == 0 {
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
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

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
        // another process takes the name meanwhile
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
        let message = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            open(&path).unwrap_err().to_string()
        };
        let cut = message(&whole[..whole.len() - 1]);
        assert!(cut.ends_with("is cut off: 262151 of 262152 bytes are there"), "{cut}");
        for foreign in [&b""[..], b"VMRUNVM", b"QFI\xfb and so on, and on, and on", &[0; 100]] {
            assert!(message(foreign).ends_with("is not a saved VM"), "{foreign:?}");
        }
        let mut empty = whole.clone();
        empty[16..24].fill(0);
        assert!(message(&empty[..STREAM as usize]).ends_with("is cut off: 262144 of 262145 bytes are there"));
        let mut newer = whole.clone();
        newer[8] = 2;
        assert!(message(&newer).contains("saved by a newer vmrun (format 2"));
    }

    #[test]
    fn only_a_regular_file_of_ones_own_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = saved(folder.path());
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        for open_to_others in [0o620, 0o602, 0o666] {
            mode(open_to_others);
            let error = open(&path).unwrap_err();
            assert!(matches!(error, SavedError::OpenToOthers { .. }), "{error}");
            assert!(error.hint().unwrap().contains("chmod go-w"));
        }
        mode(0o644);
        open(&path).unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // a pipe without a writer would be waited for
        for special in [pipe.as_path(), folder.path(), Path::new("/dev/null")] {
            assert!(matches!(open(special), Err(SavedError::Special(_))), "{special:?}");
        }
        // root has files of others, and others have none that they may give away
        let theirs = if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            path.clone()
        } else {
            PathBuf::from("/etc/passwd")
        };
        let error = open(&theirs).unwrap_err();
        assert!(matches!(error, SavedError::Owner { .. }) && error.hint().is_some(), "{error}");
    }
}
