//! What a start has put into a state directory, to be taken back if it fails.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;

use super::directory::{Directory, Privacy};
use super::own::{self, Holds};

/// What was in a state directory before vmrun put anything into it.
#[derive(Debug)]
pub struct StateBefore {
    /// None: there was no such directory.
    names: Option<Vec<OsString>>,
}

impl StateBefore {
    /// What is there now. An error of looking at it is reported when it is opened.
    pub fn look(path: &Path) -> Self {
        let directory = Directory::open(path, Privacy::ReadableByOthers).ok();
        Self { names: directory.and_then(|directory| own::entries(&directory).ok()) }
    }

    /// To be taken back in this directory, which was opened or made since.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn of(self, state: &Directory) -> io::Result<StateMade> {
        Ok(StateMade { directory: state.try_clone()?, before: self })
    }
}

/// What vmrun has put into a state directory.
#[derive(Debug)]
pub struct StateMade {
    directory: Directory,
    before: StateBefore,
}

impl StateMade {
    /// Takes out of it what vmrun has put into it since; what is not vmrun's stays.
    pub fn take_back(self) {
        let was_there =
            |name: &&OsString| self.before.names.as_ref().is_some_and(|names| names.contains(name));
        let now = own::entries(&self.directory).unwrap_or_default();
        for name in now.iter().filter(|name| !was_there(name) && Holds::State.is_own(name)) {
            // best effort: what cannot be removed is of no use to anybody either
            let _ = own::remove(&self.directory, name);
        }
        let path = self.directory.path();
        if let (None, Some(folder), Some(name)) = (&self.before.names, path.parent(), path.file_name()) {
            let is_it = |folder: &File| {
                let there = fstatat(folder.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW).ok();
                let open = nix::sys::stat::fstat(&self.directory).ok();
                there.zip(open).is_some_and(|(a, b)| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
            };
            // stays if something is in it
            let _ = File::open(folder).map(|folder| is_it(&folder).then(|| own::remove_empty(&folder, name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use super::super::StateDir;

    #[test]
    fn a_failed_start_takes_its_own_back_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("vm-state");
        for is_new in [true, false] {
            let before = StateBefore::look(&path);
            let state = StateDir::open(&path).unwrap();
            let made = before.of(&state).unwrap();
            state.write("uuid", b"x").unwrap();
            fs::write(path.join("notes.txt"), "the user's").unwrap();
            fs::create_dir(path.join("folder")).unwrap();
            made.take_back();
            let mut left: Vec<_> =
                fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            left.sort();
            assert_eq!(
                left,
                if is_new { vec!["folder", "notes.txt"] } else { vec!["folder", "mac-addr", "notes.txt"] }
            );
            fs::remove_file(path.join("notes.txt")).unwrap();
            fs::write(path.join("mac-addr"), "of an earlier run").unwrap();
            fs::remove_dir(path.join("folder")).unwrap();
        }
        fs::remove_dir_all(&path).unwrap();
        let before = StateBefore::look(&path);
        before.of(&StateDir::open(&path).unwrap()).unwrap().take_back();
        assert!(!path.exists());
    }
}
