//! State directories whose image is gone: found, and removed where the user wants that.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::directory::{Directory, Privacy};
use super::own::{self, Holds};
use super::state::StateDir;
use super::{DirError, names};

/// What a state directory's name ends with, behind that of the image without its extension.
const SUFFIX: &str = "-state";
/// A state directory has one of these: a folder of the same name may be anybody's.
const EVIDENCE: [&str; 3] = ["mac-addr", "uuid", "outcome.json"];
/// What images are called behind the state directory's prefix.
const IMAGES: [&str; 4] = ["-kernel", "-initrd.img", "-squashfs.img", "-cmdline"];

/// A state directory without an image and without a VM; locked, so that no VM starts with it.
#[derive(Debug)]
pub struct Leftover {
    directory: StateDir,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The disks in it, which may hold what nobody has a copy of.
    pub disks: Vec<String>,
}

/// Finds those directly in a folder. What is not vmrun's, or in use, is none.
///
/// # Errors
/// The folder cannot be read.
pub fn find(folder: &Path) -> io::Result<Vec<Leftover>> {
    let folder = std::path::absolute(folder)?;
    let all: Vec<OsString> = std::fs::read_dir(&folder)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    let mut found: Vec<Leftover> = all
        .iter()
        .filter(|name| prefix(name).is_some_and(|prefix| !has_image(prefix, &all)))
        .filter_map(|name| leftover(&folder.join(name)))
        .collect();
    found.sort_by(|a, b| a.path().cmp(b.path()));
    Ok(found)
}

fn prefix(name: &OsStr) -> Option<&str> {
    name.to_str()?.strip_suffix(SUFFIX).filter(|prefix| !prefix.is_empty())
}

/// Whether an image is there that may have this state directory.
fn has_image(prefix: &str, all: &[OsString]) -> bool {
    all.iter().any(|name| {
        let name = name.to_string_lossy();
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || IMAGES.contains(&rest))
    })
}

fn leftover(path: &Path) -> Option<Leftover> {
    let directory = Directory::open(path, Privacy::ReadableByOthers).ok()?;
    let files = own::entries(&directory).ok()?;
    let is_own = files.iter().all(|name| Holds::State.is_own(name));
    let has_evidence = EVIDENCE.iter().any(|name| files.iter().any(|file| file == name));
    if !is_own || !has_evidence {
        return None;
    }
    let (mut size_bytes, mut disks) = (0, Vec::new());
    for name in &files {
        let facts = directory.open_file(name.to_str()?, OFlag::O_RDONLY).ok()?.metadata().ok()?;
        if !facts.is_file() {
            return None;
        }
        size_bytes += std::os::unix::fs::MetadataExt::blocks(&facts) * 512;
        if is_disk(name) {
            disks.push(name.to_string_lossy().into_owned());
        }
    }
    disks.sort();
    // an error: a VM has it
    let directory = StateDir::locked(directory).ok()?;
    Some(Leftover { directory, size_bytes, disks })
}

/// An image that vmrun has made from nothing, not one that it has unpacked.
fn is_disk(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let image = name.rsplit_once('.').is_some_and(|(_, extension)| {
        extension == "img" || extension.parse::<crate::spec::ImageFormat>().is_ok()
    });
    image && !name.starts_with("unpacked")
}

impl Leftover {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes it with everything in it. Its lock goes last.
    ///
    /// # Errors
    /// Something has come into it that is not vmrun's; or of the file system.
    pub fn remove(self) -> Result<(), DirError> {
        let path: PathBuf = self.path().to_owned();
        let failed = |source| DirError::Io { action: "remove", path: path.clone(), source };
        let files = own::entries(&self.directory).map_err(failed)?;
        if let Some(stranger) = files.iter().find(|name| !Holds::State.is_own(name)) {
            return Err(DirError::Stranger { path, name: stranger.clone() });
        }
        for name in files.iter().filter(|name| *name != names::LOCK) {
            own::remove(&*self.directory, name).map_err(failed)?;
        }
        own::remove(&*self.directory, names::LOCK.as_ref()).map_err(failed)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        let parent = std::fs::File::open(parent).map_err(failed)?;
        own::remove_empty(&parent, name).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn state(folder: &Path, name: &str, files: &[&str]) {
        fs::create_dir(folder.join(name)).unwrap();
        for file in files {
            fs::write(folder.join(name).join(file), "x").unwrap();
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let all = find(folder).unwrap();
        all.iter().map(|one| one.path().file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn only_state_without_an_image_is_left_over() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path();
        state(folder, "gone-state", &["uuid", "mac-addr", "console.log"]);
        state(folder, "disk-state", &["uuid", "disk.img", "unpacked.qcow2"]);
        // with an image of any kind, of other programs, with something of the user's
        for (name, image) in [("a", "a.qcow2"), ("b", "b"), ("c", "c-kernel"), ("d", "d.img.xz")] {
            state(folder, &format!("{name}-state"), &["uuid"]);
            fs::write(folder.join(image), "").unwrap();
        }
        state(folder, "other-state", &["lock"]);
        state(folder, "mine-state", &["uuid", "thesis.txt"]);
        fs::create_dir_all(folder.join("deep-state/uuid")).unwrap();
        std::os::unix::fs::symlink("gone-state", folder.join("link-state")).unwrap();
        assert_eq!(names(folder), ["disk-state", "gone-state"]);
        assert!(!folder.join("other-state/uuid").exists() && !folder.join("mine-state/lock").exists());
        let all = find(folder).unwrap();
        assert_eq!(all[0].disks, ["disk.img"]);
        // a second look finds them in use
        assert_eq!(names(folder), [""; 0]);
        // one that something came into stays
        fs::write(folder.join("disk-state/thesis.txt"), "").unwrap();
        let results: Vec<bool> = all.into_iter().map(|one| one.remove().is_ok()).collect();
        assert_eq!(results, [false, true]);
        assert!(folder.join("disk-state/disk.img").exists() && !folder.join("gone-state").exists());
    }
}
