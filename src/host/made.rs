//! Files that vmrun makes where the user's own files are, and may have to remove again: this file, and no other that has its name by
//! then. Nothing outside a folder of vmrun's own is removed in another way.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use super::dirs::remove_file_in;
use super::sys;
use crate::spec::FileId;

/// Which file was made, and where. It can be written down, and outlive the process that made the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeFile {
    #[serde(with = "crate::spec::fields::path")]
    path: PathBuf,
    device: u64,
    inode: u64,
    /// In nanoseconds since 1970, where the file system knows: inodes are given to other files.
    born_ns: Option<u128>,
}

impl MadeFile {
    /// This open file, which was made at this path.
    ///
    /// # Errors
    /// Of the file system.
    pub fn of(path: &Path, file: &File) -> io::Result<Self> {
        Ok(Self::from_facts(path, &file.metadata()?))
    }

    fn from_facts(path: &Path, facts: &Metadata) -> Self {
        let born = facts.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self {
            path: path.to_owned(),
            device: facts.dev(),
            inode: facts.ino(),
            born_ns: born.map(|born| born.as_nanos()),
        }
    }

    /// The same file under another name.
    pub fn at(&self, path: &Path) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    /// Where it was made.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which file it is.
    pub fn id(&self) -> FileId {
        FileId { device: self.device, inode: self.inode }
    }

    /// Removes it, if it still is at its path; whatever else is there stays.
    pub fn remove(&self) {
        if let Err(error) = self.try_remove() {
            log::warn!("{} is left: {error}", self.path.display());
        }
    }

    fn try_remove(&self) -> io::Result<()> {
        let Some(name) = self.path.file_name() else { return Ok(()) };
        let folder = match File::open(folder_of(&self.path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let there = match openat(&folder, name, flags, Mode::empty()).map_err(io::Error::from) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => File::from(other?),
        };
        match Self::of(&self.path, &there)? == *self {
            true => remove_file_in(&folder, name),
            false => Ok(()),
        }
    }

    /// That it still is at its path.
    ///
    /// # Errors
    /// It is not there any more, or something else is.
    pub fn check(&self) -> io::Result<()> {
        match Self::from_facts(&self.path, &self.path.symlink_metadata()?) == *self {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "{} is not the file any more that was written",
                self.path.display()
            ))),
        }
    }
}

/// A file that is being made for its owner only (mode 0600). It goes again, unless it is kept.
///
/// It has no name at first, where the file system can do that (`O_TMPFILE`): which file it will be can be written down before it is there.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    made: MadeFile,
    is_named: bool,
}

impl NewFile {
    /// Makes an empty file for this path.
    ///
    /// # Errors
    /// There is something at the path (`AlreadyExists`), or of the file system.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let unnamed = without_name(folder_of(path));
        let is_named = unnamed.is_none();
        let file = match unnamed {
            Some(file) => file,
            None => File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?,
        };
        let made = MadeFile::of(path, &file)?;
        let new = Self { file, made, is_named };
        // whatever the umask took
        new.file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(new)
    }

    /// To write to, and to read from.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Which file it is.
    pub fn made(&self) -> &MadeFile {
        &self.made
    }

    /// Puts it at its path, if it is not there yet.
    ///
    /// # Errors
    /// Something has taken its place (`AlreadyExists`), or of the file system.
    pub fn take_name(&mut self) -> io::Result<()> {
        if !self.is_named {
            sys::give_name(&self.file, &self.made.path)?;
            self.is_named = true;
        }
        Ok(())
    }

    /// Puts it in the place of what has this name, if anything has.
    ///
    /// # Errors
    /// Of the file system; or another file has its name by now.
    pub fn replace(self, path: &Path) -> io::Result<()> {
        self.made.check()?;
        fs::rename(&self.made.path, path)?;
        self.keep();
        Ok(())
    }

    /// It has got another name.
    pub fn moved_to(&mut self, path: &Path) {
        self.made = self.made.at(path);
    }

    /// It stays.
    pub fn keep(mut self) -> MadeFile {
        self.is_named = false;
        self.made.clone()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.is_named {
            self.made.remove();
        }
    }
}

/// The folder of a path.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(target_os = "linux")]
fn without_name(folder: &Path) -> Option<File> {
    let flags = OFlag::O_TMPFILE.bits();
    // to get a name later, it needs /proc
    let named_later = Path::new("/proc/self/fd").is_dir();
    let open = || File::options().read(true).write(true).custom_flags(flags).mode(0o600).open(folder).ok();
    named_later.then(open)?
}

#[cfg(not(target_os = "linux"))]
fn without_name(_folder: &Path) -> Option<File> {
    None
}

/// Which file has this name, if it is a regular one.
#[cfg(test)]
pub(crate) fn made_at(path: &Path) -> MadeFile {
    MadeFile::from_facts(path, &path.symlink_metadata().unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn another_file_of_the_same_name_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("disk.img");
        fs::write(&path, "").unwrap();
        let made = made_at(&path);
        fs::rename(&path, root.path().join("moved")).unwrap();
        made.remove();
        fs::write(&path, "the user's").unwrap();
        made.remove();
        assert!(made.check().is_err());
        assert!(path.exists() && root.path().join("moved").exists());
        let made = made_at(&path);
        made.check().unwrap();
        made.remove();
        made.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_link_to_it_and_a_file_with_its_inode_stay() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("disk.img");
        fs::write(&path, "").unwrap();
        let made = made_at(&path);
        let moved = root.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, &path).unwrap();
        made.remove();
        assert!(path.is_symlink() && moved.exists());
        // its inode was given to a file that is younger
        let older = MadeFile { born_ns: made.born_ns.map(|born| born - 1), ..made.at(&moved) };
        older.remove();
        assert!(made.born_ns.is_none() || moved.exists());
    }

    #[test]
    fn what_is_made_has_no_name_before_it_is_given_and_goes_unless_it_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("new");
        let mut new = NewFile::create(&path).unwrap();
        assert_eq!(path.exists(), new.is_named);
        new.file().write_all(b"x").unwrap();
        new.take_name().unwrap();
        new.take_name().unwrap();
        assert_eq!(new.made(), &made_at(&path));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(new);
        assert!(!path.exists());

        let mut new = NewFile::create(&path).unwrap();
        new.take_name().unwrap();
        let made = new.keep();
        assert!(path.exists());
        assert_eq!(NewFile::create(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        let written: MadeFile = serde_json::from_value(serde_json::to_value(&made).unwrap()).unwrap();
        written.remove();
        assert!(!path.exists());

        // the name is taken meanwhile
        let mut new = NewFile::create(&path).unwrap();
        if !new.is_named {
            fs::write(&path, "theirs").unwrap();
            assert_eq!(new.take_name().unwrap_err().kind(), ErrorKind::AlreadyExists);
            drop(new);
            assert_eq!(fs::read(&path).unwrap(), b"theirs");
        }
    }
}
