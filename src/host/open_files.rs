//! Which files a process has open, from Linux' `/proc`: what it opened, not what it was asked to open.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::image::file_id;
use crate::spec::FileId;

/// A file or block device that a process has open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub id: FileId,
    /// Leads to the file itself, whatever has become of its name.
    pub link: PathBuf,
}

/// All of them, each as often as it is open.
///
/// # Errors
/// The process has ended, or may not be looked at.
pub fn held_by(proc: &Path, pid: Pid) -> io::Result<Vec<Held>> {
    let mut held = Vec::new();
    for entry in fs::read_dir(proc.join(pid.to_string()).join("fd"))? {
        let link = entry?.path();
        match fs::metadata(&link) {
            Ok(facts) if facts.is_file() || facts.file_type().is_block_device() => {
                held.push(Held { id: file_id(&facts), link });
            }
            Ok(_) => {}
            // closed a moment ago
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_what_it_is_when_its_name_goes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        fs::write(&path, "a").unwrap();
        let open = fs::File::open(&path).unwrap();
        let id = file_id(&open.metadata().unwrap());
        fs::rename(&path, root.path().join("b")).unwrap();
        fs::write(&path, "another").unwrap();
        let held = held_by("/proc".as_ref(), Pid::this()).unwrap();
        let held = held.iter().find(|held| held.id == id).unwrap();
        assert_eq!(fs::read(&held.link).unwrap(), b"a");
        assert_ne!(file_id(&fs::metadata(&path).unwrap()), id);
    }
}
