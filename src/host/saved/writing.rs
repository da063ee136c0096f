//! Writing the file of a saved VM: under another name until it is complete, and never over a file that is there.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{HEAD, MAGIC, STREAM, SavedError, VERSION};
use crate::host::made::{MadeFile, NewFile, folder_of};

/// A file that is being written, under another name beside its place; it goes if it is not put there.
#[derive(Debug)]
pub struct Writing {
    path: PathBuf,
    new: NewFile,
    ways: &'static [Placing],
    /// How it is put in its place, once that was tried in this folder.
    placing: Option<Placing>,
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
    fn carry_out(self, from: &MadeFile, to: &Path) -> io::Result<()> {
        from.check()?;
        match self {
            Self::Rename => rename_to_free_name(from.path(), to),
            Self::Link => {
                fs::hard_link(from.path(), to)?;
                // two names of one complete file are better than none
                from.remove();
                Ok(())
            }
            Self::Reserve => {
                let reserved = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
                let reserved = MadeFile::of(to, &reserved)?;
                fs::rename(from.path(), to).inspect_err(|_| reserved.remove())
            }
        }
    }
}

/// Gives a file or a folder a name that is free.
///
/// # Errors
/// The name is taken, or the file system (or the C library) cannot rename without replacing.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(in crate::host) fn rename_to_free_name(from: &Path, to: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    Ok(renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)?)
}

/// Other C libraries have no such call.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(in crate::host) fn rename_to_free_name(_from: &Path, _to: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Moves a file to a name that is free by the first way that works, and returns which one: what a file system can do shows only by trying.
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
    /// Makes it, for its owner only. Where the file system can, it has no name yet.
    ///
    /// # Errors
    /// There is something at its place, or it cannot be made.
    pub fn create(path: &Path) -> Result<Self, SavedError> {
        Self::by(path, &Placing::ALL)
    }

    fn by(path: &Path, ways: &'static [Placing]) -> Result<Self, SavedError> {
        if fs::symlink_metadata(path).is_ok() {
            return Err(SavedError::Exists(path.to_owned()));
        }
        let io = |source| SavedError::Io { path: path.to_owned(), source };
        let probed = probe_name(path);
        let new = NewFile::create(&probed).map_err(|error| taken(&probed, path, error))?;
        new.file().seek(SeekFrom::Start(STREAM)).map_err(io)?;
        Ok(Self { path: path.to_owned(), new, ways, placing: None })
    }

    /// Which file it is, for [`remove_parts`].
    pub fn made(&self) -> &MadeFile {
        self.new.made()
    }

    /// Gives it the name that it has until it is complete. Whether it can be put in its place at the end is tried with it.
    ///
    /// # Errors
    /// The name is taken, or the file system has no way to put it in its place.
    pub fn take_name(&mut self) -> Result<(), SavedError> {
        let (path, part) = (&self.path, part(&self.path));
        self.new.take_name().map_err(|error| taken(self.new.made().path(), path, error))?;
        let placing = probe(self.ways, |way| way.carry_out(self.new.made(), &part));
        self.placing = Some(placing.map_err(|error| match error {
            Some(error) => taken(&part, path, error),
            None => SavedError::NoPlacing { path: path.clone() },
        })?);
        self.new.moved_to(&part);
        Ok(())
    }

    /// To write the stream to, and for [`finish`].
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn stream(&self) -> io::Result<File> {
        self.new.file().try_clone()
    }

    /// Puts a finished file in its place, at once; [`sync_folder`] makes that last.
    ///
    /// # Errors
    /// Something has taken its place in the meantime; or another file that of the unfinished one, and stays.
    pub fn place(mut self) -> Result<(), SavedError> {
        if self.placing.is_none() {
            self.take_name()?;
        }
        let Self { path, new, placing, .. } = self;
        let Some(placing) = placing else { return Err(SavedError::NoPlacing { path }) };
        placing.carry_out(new.made(), &path).map_err(|error| taken(&path, &path, error))?;
        new.keep();
        Ok(())
    }
}

fn taken(name: &Path, path: &Path, source: io::Error) -> SavedError {
    match source.kind() {
        ErrorKind::AlreadyExists => SavedError::Exists(name.to_owned()),
        _ => SavedError::Io { path: path.to_owned(), source },
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
    File::open(folder_of(path))?.sync_all()
}

/// What a file is called until it is complete.
pub fn part(path: &Path) -> PathBuf {
    with_suffix(path, ".part")
}

/// Removes what a process that died has left of a file that was not complete: `made` under any of the names that it has had, and no
/// other file.
pub fn remove_parts(path: &Path, made: &MadeFile) {
    for left in [part(path), probe_name(path)] {
        made.at(&left).remove();
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
        const ONE: [&[Placing]; 3] = [&[Placing::Rename], &[Placing::Link], &[Placing::Reserve]];
        for way in ONE {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("vm");
            let mut writing = Writing::by(&path, way).unwrap();
            writing.take_name().unwrap();
            assert_eq!(names(folder.path()), ["vm.part"], "{way:?}");
            super::super::pump(&b"x"[..], writing.stream().unwrap(), |_| {}).unwrap();
            finish(&writing.stream().unwrap(), b"{}", 1).unwrap();
            writing.place().unwrap();
            assert_eq!(names(folder.path()), ["vm"], "{way:?}");
            super::super::open(&path).unwrap();

            assert!(matches!(Writing::by(&path, way), Err(SavedError::Exists(_))), "{way:?}");
            fs::remove_file(&path).unwrap();
            let mut writing = Writing::by(&path, way).unwrap();
            writing.take_name().unwrap();
            fs::write(&path, "theirs").unwrap();
            assert!(matches!(writing.place(), Err(SavedError::Exists(_))), "{way:?}");
            assert_eq!(
                (names(folder.path()), fs::read(&path).unwrap()),
                (vec!["vm".to_owned()], b"theirs".to_vec())
            );
            fs::remove_file(&path).unwrap();

            // another file has the name of the unfinished one by now: it is neither taken for it nor removed
            for placed in [true, false] {
                let mut writing = Writing::by(&path, way).unwrap();
                writing.take_name().unwrap();
                fs::rename(part(&path), folder.path().join("moved")).unwrap();
                fs::write(part(&path), "theirs").unwrap();
                match placed {
                    true => assert!(matches!(writing.place(), Err(SavedError::Io { .. })), "{way:?}"),
                    false => drop(writing),
                }
                assert_eq!(names(folder.path()), ["moved", "vm.part"], "{way:?}");
                assert_eq!(fs::read(part(&path)).unwrap(), b"theirs");
                fs::remove_file(part(&path)).unwrap();
            }
        }
    }

    #[test]
    fn a_name_that_is_taken_stays_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm");
        for taken in [part(&path), probe_name(&path)] {
            fs::write(&taken, "theirs").unwrap();
            let made = Writing::by(&path, &Placing::ALL).and_then(|mut writing| writing.take_name());
            assert!(matches!(&made, Err(SavedError::Exists(name)) if *name == taken), "{made:?}");
            assert_eq!(names(folder.path()).len(), 1);
            assert_eq!(fs::read(&taken).unwrap(), b"theirs");
            fs::remove_file(&taken).unwrap();
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
        let mut writing = Writing::by(&folder.path().join("vm"), &[]).unwrap();
        let error = writing.take_name().unwrap_err();
        drop(writing);
        assert!(matches!(error, SavedError::NoPlacing { .. }) && error.hint().is_some(), "{error}");
        assert!(names(folder.path()).is_empty());
    }
}
