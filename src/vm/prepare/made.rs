//! What a start has made on the host, to be taken back if it fails.

use std::path::{Path, PathBuf};

/// Files and folders that were not there before, in the order they were made.
#[derive(Debug, Default)]
pub(in super::super) struct Made {
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
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

    /// Takes it all back. Best effort: what cannot be removed is of no use to anybody either.
    pub(in super::super) fn undo(self) {
        for file in self.files.iter().rev() {
            let _ = std::fs::remove_file(file);
        }
        for directory in self.directories.iter().rev() {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}
