//! State directories of runs that leave nothing: `<base>/ephemeral-<name>/`, one for each, so that many runs of one image need
//! not know of each other. What a killed run left is swept up by the next.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::directory::{Directory, Privacy};
use super::{DirError, StateDir, names};
use crate::host::sys;
use crate::spec::VmName;

/// Held while directories are made or removed.
const LOCK: &str = "ephemeral.lock";
const PREFIX: &str = "ephemeral-";
/// The base directory can vanish under our hands as often as another run ends.
const ATTEMPTS: u32 = 50;

/// Where a run's own directory is.
pub fn ephemeral_path(base: &Path, name: &VmName) -> PathBuf {
    base.join(format!("{PREFIX}{name}"))
}

/// Makes (and locks) a run's own directory, and removes those of runs that are dead.
///
/// # Errors
/// As [`StateDir::open`].
pub fn open_ephemeral(base: &Path, name: &VmName) -> Result<StateDir, DirError> {
    let (_directory, _lock) = lock(base)?;
    sweep(base);
    StateDir::open(&ephemeral_path(base, name))
}

/// Removes a run's own directory while it is still locked, and the base with it if nothing else is in it.
pub fn remove_ephemeral(state: &StateDir) {
    let Some(base) = state.path().parent() else { return };
    let Ok((_directory, _lock)) = lock(base) else { return };
    // best effort: the next run sweeps
    let _ = fs::remove_dir_all(state.path());
    let alone = fs::read_dir(base)
        .is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK)));
    if alone {
        let _ = fs::remove_file(base.join(LOCK));
        let _ = fs::remove_dir(base);
    }
}

/// The base directory with its lock, waiting for others who make or remove.
fn lock(base: &Path) -> Result<(Directory, File), DirError> {
    let io = |source| DirError::Io { action: "lock", path: base.join(LOCK), source };
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let directory = Directory::create(base, Privacy::ReadableByOthers)?;
        let opened = directory.open_file(LOCK, OFlag::O_RDWR | OFlag::O_CREAT);
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                last = Some(error);
                continue;
            }
        };
        file.lock().map_err(io)?;
        if directory.is_in_place() && directory.is_entry(LOCK, &file) {
            return Ok((directory, file));
        }
    }
    Err(io(last.unwrap_or_else(|| std::io::ErrorKind::ResourceBusy.into())))
}

fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // whoever lives holds the lock
        if let Ok(dead) = StateDir::open(&entry.path()) {
            if is_in_use(dead.path()) {
                continue;
            }
            log::info!("removing what a killed run left: {}", entry.path().display());
            let _ = fs::remove_dir_all(dead.path());
        }
    }
}

/// Whether a QEMU still has an image in this directory: its supervisor may have died, and a new one will want it.
fn is_in_use(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    entries
        .flatten()
        .filter(|entry| entry.file_name() != names::LOCK)
        .any(|entry| File::open(entry.path()).is_ok_and(|file| sys::is_range_locked(&file).unwrap_or(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_their_own_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("image-state");
        let name = |text: &str| text.parse::<VmName>().unwrap();
        let a = open_ephemeral(&base, &name("a")).unwrap();
        let b = open_ephemeral(&base, &name("b")).unwrap();
        fs::write(b.path().join("overlay"), "x").unwrap();
        let path = b.path().to_owned();
        // killed: the lock goes, the files stay
        drop(b);
        assert!(path.exists());
        let c = open_ephemeral(&base, &name("c")).unwrap();
        assert!(!path.exists() && a.path().exists());
        remove_ephemeral(&a);
        assert!(base.exists());
        remove_ephemeral(&c);
        assert!(!base.exists());
    }
}
