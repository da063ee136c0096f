//! What a start has made on the host, to be taken back if it fails.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Files and folders that were not there before, in the order they were made.
#[derive(Debug, Default)]
pub(in super::super) struct Made {
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
    /// A folder that was there, with the names that were in it.
    before: Option<(PathBuf, Vec<OsString>)>,
}

impl Made {
    /// A file was made.
    pub(super) fn file(&mut self, path: &Path) {
        self.files.push(path.to_owned());
    }

    /// A folder was made; whatever vmrun itself puts into it goes with it.
    pub(super) fn directory(&mut self, path: &Path) {
        self.directories.push(path.to_owned());
    }

    /// A folder is there and vmrun is about to put files into it: those that are new are taken out again.
    pub(super) fn inside(&mut self, path: &Path) {
        // one that cannot be read is left alone
        self.before = names(path).ok().map(|names| (path.to_owned(), names));
    }

    /// Takes it all back. Best effort: what cannot be removed is of no use to anybody either.
    pub(in super::super) fn undo(self) {
        for file in self.files.iter().rev() {
            let _ = std::fs::remove_file(file);
        }
        if let Some((directory, before)) = self.before {
            let now = names(&directory).unwrap_or_default();
            for new in now.iter().filter(|name| !before.contains(name)) {
                let _ = std::fs::remove_file(directory.join(new));
            }
        }
        for directory in self.directories.iter().rev() {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

fn names(directory: &Path) -> std::io::Result<Vec<OsString>> {
    std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
}
