//! Writing the file of a saved VM: under another name until it is whole, and never over a file that is there.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{HEAD, MAGIC, STREAM, SavedError, VERSION};

/// A file that is being written, under another name beside its place; it goes if it is not put there.
#[derive(Debug)]
pub struct Writing {
    path: PathBuf,
    part: PathBuf,
    file: File,
    /// How it is put in its place: tried in this folder already.
    placing: Placing,
}

/// A way to give a file a name only if the name is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placing {
    /// `renameat2` with `RENAME_NOREPLACE`: not in every FUSE file system.
    Rename,
    /// `link`: not on FAT, nor on some network file systems.
    Link,
    /// An empty file takes the name, and is replaced.
    Reserve,
}

impl Placing {
    const ALL: [Self; 3] = [Self::Rename, Self::Link, Self::Reserve];

    /// Moves a file to a name that is free.
    fn carry_out(self, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Self::Rename => rename_to_free_name(from, to),
            Self::Link => {
                fs::hard_link(from, to)?;
                // two names of one whole file are better than none
                let _ = fs::remove_file(from);
                Ok(())
            }
            Self::Reserve => {
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
                fs::rename(from, to).inspect_err(|_| {
                    let _ = fs::remove_file(to);
                })
            }
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn rename_to_free_name(from: &Path, to: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    Ok(renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)?)
}

/// Other C libraries have no such call.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn rename_to_free_name(_from: &Path, _to: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Moves a file to a name that is free by the first way that works, and tells which: a file system says only by trying.
fn probe(
    ways: &[Placing],
    carry_out: impl Fn(Placing) -> io::Result<()>,
) -> Result<Placing, Option<io::Error>> {
    for way in ways {
        match carry_out(*way) {
            Ok(()) => return Ok(*way),
            // these are answers to the name, not to the way
            Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::StorageFull) => {
                return Err(Some(error));
            }
            Err(error) => log::debug!("{way:?}: {error}"),
        }
    }
    Err(None)
}

impl Writing {
    /// Makes it, for its owner only. Whether it can be put in its place at the end is tried now.
    ///
    /// # Errors
    /// There is something at its place, or it cannot be made, or the file system has no way to put it there.
    pub fn create(path: &Path) -> Result<Self, SavedError> {
        Self::by(path, &Placing::ALL)
    }

    fn by(path: &Path, ways: &[Placing]) -> Result<Self, SavedError> {
        if fs::symlink_metadata(path).is_ok() {
            return Err(SavedError::Exists(path.to_owned()));
        }
        let io = |source| SavedError::Io { path: path.to_owned(), source };
        let (part, probed) = (part(path), probe_name(path));
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.read(true).write(true).create_new(true).mode(0o600).open(&probed).map_err(io)?;
        let placing = probe(ways, |way| way.carry_out(&probed, &part)).map_err(|error| {
            let _ = fs::remove_file(&probed);
            error.map_or_else(|| SavedError::NoPlacing { path: path.to_owned() }, io)
        })?;
        let seeked = file.seek(SeekFrom::Start(STREAM));
        let writing = Self { path: path.to_owned(), part, file, placing };
        seeked.map(|_| writing).map_err(io)
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
        self.placing.carry_out(&self.part, &self.path).map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists => SavedError::Exists(self.path.clone()),
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
    with_suffix(path, ".part")
}

/// Removes what a process that died has left of a file that was not whole.
pub fn remove_parts(path: &Path) {
    for left in [part(path), probe_name(path)] {
        let _ = fs::remove_file(left);
    }
}

/// What a file is called for a moment, until it is known how files get their names here.
fn probe_name(path: &Path) -> PathBuf {
    with_suffix(path, ".part0")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    /// Each of them alone, as where the others do not exist.
    #[test]
    fn every_way_puts_a_file_in_its_place_and_none_replaces_another() {
        for way in Placing::ALL {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("vm");
            let writing = Writing::by(&path, &[way]).unwrap();
            assert_eq!(names(folder.path()), ["vm.part"], "{way:?}");
            super::super::pump(&b"x"[..], writing.stream().unwrap(), |_| {}).unwrap();
            finish(&writing.stream().unwrap(), b"{}", 1).unwrap();
            writing.place().unwrap();
            assert_eq!(names(folder.path()), ["vm"], "{way:?}");
            super::super::open(&path).unwrap();

            assert!(matches!(Writing::by(&path, &[way]), Err(SavedError::Exists(_))), "{way:?}");
            fs::remove_file(&path).unwrap();
            let writing = Writing::by(&path, &[way]).unwrap();
            fs::write(&path, "theirs").unwrap();
            assert!(matches!(writing.place(), Err(SavedError::Exists(_))), "{way:?}");
            assert_eq!(
                (names(folder.path()), fs::read(&path).unwrap()),
                (vec!["vm".to_owned()], b"theirs".to_vec())
            );
        }
    }

    #[test]
    fn what_a_file_system_cannot_do_is_known_before_anything_is_written() {
        let without_links = |way| match way {
            Placing::Reserve => Ok(()),
            _ => Err(ErrorKind::PermissionDenied.into()),
        };
        assert!(matches!(probe(&Placing::ALL, without_links), Ok(Placing::Reserve)));
        assert!(matches!(probe(&Placing::ALL, |_| Err(ErrorKind::Unsupported.into())), Err(None)));
        // neither a full disk nor a taken name is overcome by another way
        for kind in [ErrorKind::StorageFull, ErrorKind::AlreadyExists] {
            let error = probe(&Placing::ALL, |_| Err(kind.into())).unwrap_err();
            assert_eq!(error.unwrap().kind(), kind);
        }
        let folder = tempfile::tempdir().unwrap();
        let error = Writing::by(&folder.path().join("vm"), &[]).unwrap_err();
        assert!(matches!(error, SavedError::NoPlacing { .. }) && error.hint().is_some(), "{error}");
        assert!(names(folder.path()).is_empty());
    }
}
