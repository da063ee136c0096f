//! Which files QEMU has open, and which of them a name in its answers refers to. The kernel is asked, since a name may refer to
//! another file by now.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::host::image::file_id;
use crate::host::open_files::held_by;
use crate::spec::FileId;

/// The open files of a process.
#[derive(Debug)]
pub(in crate::vm) struct OpenFiles {
    /// By device and inode: a path to the open file itself, whatever has its name now. `None`: the kernel does not show them.
    held: Option<HashMap<FileId, PathBuf>>,
    /// The folder that relative names refer to.
    working_directory: PathBuf,
}

impl OpenFiles {
    /// Asks the kernel.
    pub(in crate::vm) fn of(pid: i32) -> Self {
        let held = held_by("/proc".as_ref(), Pid::from_raw(pid)).ok();
        Self {
            held: held.map(|held| held.into_iter().map(|held| (held.id, held.link)).collect()),
            working_directory: format!("/proc/{pid}/cwd").into(),
        }
    }

    /// A path to an open file.
    pub(in crate::vm) fn way_to(&self, id: FileId) -> Option<&Path> {
        self.held.as_ref()?.get(&id).map(PathBuf::as_path)
    }

    /// Whether it is open, or may be.
    pub(in crate::vm) fn may_have(&self, id: FileId) -> bool {
        self.held.as_ref().is_none_or(|held| held.contains_key(&id))
    }

    /// The identity of the file with this name in the process's view, if the process has it open; otherwise it has opened another
    /// file under that name.
    pub(in crate::vm) fn named(&self, name: &str) -> Option<FileId> {
        let facts = std::fs::metadata(self.working_directory.join(name)).ok()?;
        Some(file_id(&facts)).filter(|id| self.may_have(*id))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_by_now_means_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.img");
        let name = path.to_str().unwrap();
        fs::write(&path, "the disk").unwrap();
        let file = fs::File::open(&path).unwrap();
        let id = file_id(&file.metadata().unwrap());
        let of_this_process = || OpenFiles::of(i32::try_from(std::process::id()).unwrap());
        assert_eq!(of_this_process().named(name), Some(id));
        fs::rename(&path, folder.path().join("moved")).unwrap();
        assert_eq!(of_this_process().named(name), None);
        fs::write(&path, "another").unwrap();
        let open = of_this_process();
        assert_eq!(open.named(name), None);
        assert_eq!(fs::read(open.way_to(id).unwrap()).unwrap(), b"the disk");
        drop(file);
        assert!(!of_this_process().may_have(id));
        // unknown: accept the name
        let unknown = OpenFiles { held: None, ..open };
        assert!(unknown.may_have(id) && unknown.named(name).is_some_and(|other| other != id));
    }
}
