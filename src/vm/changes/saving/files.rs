//! The files that a saved VM needs again, and how to detect that one has changed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::HINTED;
use crate::host::image::{ImageIdentity, file_id};
use crate::spec::FileId;

use crate::vm::error::ChangeError;
use crate::vm::state::open_files::OpenFiles;

/// A file, with what shows that it is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::vm) struct FileFacts {
    #[serde(with = "crate::spec::fields::path")]
    pub(in crate::vm) path: PathBuf,
    identity: String,
    size_bytes: u64,
    modified_unix_s: i64,
    modified_ns: i64,
}

impl FileFacts {
    /// The file that has this name now.
    pub(in crate::vm) fn of(path: &Path) -> Result<Self, ChangeError> {
        Self::through(path, path)
    }

    /// The file that has (or had) the name `path`, reached through another path.
    fn through(path: &Path, way: &Path) -> Result<Self, ChangeError> {
        let facts = std::fs::metadata(way)
            .map_err(|error| ChangeError::host(format!("{}: {error}", path.display())))?;
        Ok(Self {
            path: path.to_owned(),
            identity: ImageIdentity::of(way).map_err(ChangeError::host)?.as_str().to_owned(),
            size_bytes: facts.len(),
            modified_unix_s: facts.mtime(),
            modified_ns: facts.mtime_nsec(),
        })
    }
}

impl OpenFiles {
    /// The file that QEMU has open under this name. `opened`: the file that had the name when it was opened, if known.
    pub(in crate::vm) fn facts(&self, path: &Path, opened: Option<FileId>) -> Result<FileFacts, ChangeError> {
        let now = identity(path);
        let Some(in_use) = opened.or(now) else {
            return Err(ChangeError::host(format!("{} is not there any more", path.display()))
                .hint("put it back under that name"));
        };
        if now != Some(in_use) {
            log::warn!(
                target: HINTED,
                "{} is not the file any more that the VM uses\nhint: put that one back before the saved VM is restored",
                path.display()
            );
        }
        match self.way_to(in_use) {
            Some(way) => FileFacts::through(path, way),
            None if now == Some(in_use) => FileFacts::of(path),
            None => Err(ChangeError::host(format!(
                "{} is not the file any more that the VM was given",
                path.display()
            ))
            .hint("put that one back under its name")),
        }
    }
}

fn identity(path: &Path) -> Option<FileId> {
    std::fs::metadata(path).ok().map(|facts| file_id(&facts))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_what_was_opened_and_not_what_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("a.img"), folder.path().join("moved"));
        fs::write(&path, "the disk").unwrap();
        let _held = fs::File::open(&path).unwrap();
        let opened = identity(&path);
        let pid = i32::try_from(std::process::id()).unwrap();
        let before = OpenFiles::of(pid).facts(&path, opened).unwrap();
        assert_eq!(before, FileFacts::of(&path).unwrap());

        fs::rename(&path, &moved).unwrap();
        assert_eq!(OpenFiles::of(pid).facts(&path, opened).unwrap(), before);
        fs::write(&path, "another").unwrap();
        let facts = OpenFiles::of(pid).facts(&path, opened).unwrap();
        assert_eq!(facts, before);
        assert_ne!(facts, FileFacts::of(&path).unwrap());
        // even if it was deleted, it is still what the VM uses
        fs::remove_file(&moved).unwrap();
        assert_eq!(OpenFiles::of(pid).facts(&path, opened).unwrap(), before);
        // a file that QEMU does not have open is not mistaken for it
        let gone = OpenFiles::of(0).facts(&path, opened).unwrap_err();
        assert!(gone.message.contains("not the file any more"), "{gone}");
    }
}
