//! A folder in which there is nothing, and never will be: one that has no name any more.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use nix::libc;

use super::{Directory, names, own};

/// Makes one, for a program's working directory: a relative name leads to nothing in it, and nothing can be made there.
///
/// # Errors
/// Nothing can be made in `directory`.
pub fn nowhere(directory: &Directory) -> io::Result<OwnedFd> {
    let path = directory.short_path(names::EMPTY);
    match DirBuilder::new().mode(0o700).create(&path) {
        // left by a supervisor that was killed here
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let opened = File::options().read(true).custom_flags(flags).open(&path)?;
    own::remove_empty(directory, names::EMPTY.as_ref())?;
    if directory.is_entry(names::EMPTY, &opened) {
        return Err(io::ErrorKind::DirectoryNotEmpty.into());
    }
    Ok(opened.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;

    use super::super::directory::Privacy;
    use super::*;

    #[test]
    fn nothing_can_be_made_in_it() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::create(&root.path().join("run"), Privacy::Private).unwrap();
        for _ in 0..2 {
            let nowhere = nowhere(&directory).unwrap();
            let within = format!("/proc/self/fd/{}/x", nowhere.as_raw_fd());
            assert_eq!(fs::write(within, "x").unwrap_err().kind(), io::ErrorKind::NotFound);
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
            // not with something in it
            fs::create_dir_all(directory.path().join(names::EMPTY).join("x")).unwrap();
            assert_eq!(super::nowhere(&directory).unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
            fs::remove_dir(directory.path().join(names::EMPTY).join("x")).unwrap();
            fs::remove_dir(directory.path().join(names::EMPTY)).unwrap();
            // what is left of a killed one is used up
            fs::create_dir(directory.path().join(names::EMPTY)).unwrap();
        }
    }
}
