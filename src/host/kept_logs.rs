//! What is kept of a run when its VM ends: the console's log and the outcome, in a new folder of the user's.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::spec::VmName;

/// The console's output.
const CONSOLE: &str = "console.log";
/// How the VM ended, as JSON.
const OUTCOME: &str = "outcome.json";

/// Whether folders can be made in this one, which may not be there yet. Nothing is made.
///
/// # Errors
/// They cannot, and why.
pub fn check(folder: &Path) -> io::Result<()> {
    let folder = std::path::absolute(folder)?;
    let existing = folder.ancestors().find(|path| path.symlink_metadata().is_ok());
    let existing = existing.ok_or(io::ErrorKind::NotFound)?;
    if !fs::metadata(existing)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(access(existing, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

/// Keeps the logs of a run in a new folder `NAME`, or `NAME.1` and so on if that is there already; returns its path.
///
/// # Errors
/// Of the file system.
pub fn keep(
    folder: &Path,
    name: &VmName,
    console: impl Iterator<Item = Vec<u8>>,
    outcome: &[u8],
) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let own = new_folder(folder, name)?;
    let mut log = File::create_new(own.join(CONSOLE))?;
    for piece in console {
        log.write_all(&piece)?;
    }
    File::create_new(own.join(OUTCOME))?.write_all(outcome)?;
    Ok(own)
}

fn new_folder(folder: &Path, name: &VmName) -> io::Result<PathBuf> {
    let names = std::iter::once(name.to_string()).chain((1_u32..).map(|number| format!("{name}.{number}")));
    for name in names {
        let path = folder.join(name);
        // what a guest prints is for its owner
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| path),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_a_folder_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("a/logs");
        check(&logs).unwrap();
        assert!(!logs.exists(), "a check makes nothing");
        let name: VmName = "vm".parse().unwrap();
        let mut kept = Vec::new();
        for text in ["one", "two", "three"] {
            kept.push(keep(&logs, &name, [text.into(), b"!".to_vec()].into_iter(), b"{}").unwrap());
        }
        assert_eq!(kept, ["vm", "vm.1", "vm.2"].map(|name| logs.join(name)));
        let read = |path: &Path| fs::read_to_string(path.join(CONSOLE)).unwrap();
        assert_eq!(kept.iter().map(|path| read(path)).collect::<Vec<_>>(), ["one!", "two!", "three!"]);
    }

    #[test]
    fn a_file_is_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for wrong in [file.clone(), file.join("below"), PathBuf::new()] {
            check(&wrong).unwrap_err();
        }
    }
}
