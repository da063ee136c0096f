//! What vmrun may remove: files of its own, closed list of names, in a folder that bears its mark, through open descriptors.
//! Whatever else is found there stays, and everything with it.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::libc;
use nix::sys::stat::fstatat;
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

use super::directory::Directory;
use super::{DirError, names};
use crate::spec::{DeviceId, ImageFormat};

/// What the mark says to a person who finds it, and by what it is known.
const MARK_TEXT: &[u8] = b"vmrun made this folder, and removes it with its own files in it.\n";

/// Files of a run directory that have one name only.
const RUN_FILES: [&str; 13] = [
    names::CONTROL,
    names::QMP,
    names::QMP_SHARED,
    names::AGENT,
    names::SERIAL_IN,
    names::SERIAL_OUT,
    names::RUN,
    names::VM,
    names::PENDING,
    names::PLUGGED,
    names::CONSOLE_LOG,
    names::MAC,
    names::LOCK,
];

/// Files of a state directory that have one name only.
const STATE_FILES: [&str; 20] = [
    "mac-addr",
    "uuid",
    "formats.json",
    "outcome.json",
    "snapshots.json",
    "console.log",
    "console.log.1",
    "metadata.iso",
    "data.iso",
    super::state::PID_FILE,
    "uefi-vars.fd",
    names::UNPACKED,
    names::UNPACKED_ISO,
    // under which they are while they are unpacked, where a file cannot be without a name
    "unpacked.part",
    "unpacked.part2",
    "unpacked.qcow2.part",
    names::UKI_KERNEL,
    names::UKI_INITRD,
    super::ephemeral::RUN_FILE,
    names::LOCK,
];

/// Files of a template that have one name only; its description has two others while it is written.
const TEMPLATE_FILES: [&str; 7] =
    ["machine", "machine.part", "machine.part0", "memory", "state.qcow2", "until-unused", "kept"];

/// Whose files a folder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::host) enum Holds {
    /// A running VM's.
    Run,
    /// A VM's that outlive it.
    State,
    /// A template's, among them some of the state of the VM that was frozen.
    Template,
}

impl Holds {
    /// Whether a file of this name is vmrun's own.
    pub(super) fn is_own(self, name: &OsStr) -> bool {
        let Some(name) = name.to_str() else { return false };
        self.is_final(name) || temporary(name).is_some_and(|of| self.is_final(of))
    }

    fn is_final(self, name: &str) -> bool {
        if name == names::MARK {
            return true;
        }
        match self {
            Self::Run => {
                RUN_FILES.contains(&name)
                    || name.strip_prefix("share").is_some_and(is_number)
                    || name.strip_prefix("image-").is_some_and(is_number)
                    || name.strip_prefix("screenshot-").is_some_and(is_picture)
            }
            Self::Template => TEMPLATE_FILES.contains(&name) || Self::State.is_final(name),
            Self::State => {
                STATE_FILES.contains(&name)
                    || name.strip_prefix("mac-addr-").is_some_and(is_id)
                    || name.rsplit_once('.').is_some_and(|(id, extension)| is_id(id) && is_image(extension))
            }
        }
    }
}

/// The temporary name of a file that is written in one step: `.NAME.PID-RANDOM`.
fn temporary(name: &str) -> Option<&str> {
    let (name, unique) = name.strip_prefix('.')?.rsplit_once('.')?;
    let (pid, random) = unique.split_once('-')?;
    (is_number(pid) && is_random(random)).then_some(name)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_picture(text: &str) -> bool {
    text.strip_suffix(".png").is_some_and(is_random)
}

fn is_random(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_id(text: &str) -> bool {
    text.parse::<DeviceId>().is_ok()
}

fn is_image(extension: &str) -> bool {
    extension == "img" || extension.parse::<ImageFormat>().is_ok()
}

/// Puts the mark into a folder that was just made. On failure (a full disk) nothing is in it.
pub(in crate::host) fn mark(folder: &Directory) -> io::Result<()> {
    let marked = folder.create_new(names::MARK)?.write_all(MARK_TEXT);
    if marked.is_err() {
        // half a mark would make it a folder of somebody else
        let _ = folder.unlink(names::MARK);
    }
    marked
}

/// Whether a folder was made by vmrun. A checkout or a copy of other files has no such file, and a link does not count.
pub(super) fn bears_mark(folder: &Directory) -> bool {
    let Ok(file) = folder.open_file(names::MARK, OFlag::O_RDONLY) else { return false };
    let own = |facts: std::fs::Metadata| facts.is_file() && facts.uid() == Uid::effective().as_raw();
    let mut text = Vec::new();
    let read = |text: &mut Vec<u8>| (&file).take(MARK_TEXT.len() as u64 + 1).read_to_end(text);
    file.metadata().is_ok_and(own) && read(&mut text).is_ok() && text == MARK_TEXT
}

/// Whether a folder is one whose maker did not come to mark it: it has at most a part of the mark, the lock, and `file`, which comes
/// before the mark.
pub(super) fn is_begun(folder: &Directory, file: &str) -> bool {
    let begins_mark = || {
        let Ok(mark) = folder.open_file(names::MARK, OFlag::O_RDONLY) else { return false };
        let mut text = Vec::new();
        let read = mark.take(MARK_TEXT.len() as u64 + 1).read_to_end(&mut text);
        read.is_ok() && text.len() < MARK_TEXT.len() && MARK_TEXT.starts_with(&text)
    };
    entries(folder).is_ok_and(|all| {
        all.iter().all(|name| {
            let Some(text) = name.to_str() else { return false };
            let known = match text {
                names::MARK => begins_mark(),
                names::LOCK => true,
                _ => text == file || temporary(text) == Some(file),
            };
            known && !is_directory(folder, name)
        })
    })
}

/// The names in a folder.
pub(super) fn entries(folder: &Directory) -> io::Result<Vec<OsString>> {
    folder.names()
}

/// Removes the files of a folder of vmrun's but for `keep`; nothing at all if there is one in it that is not vmrun's.
pub(in crate::host) fn empty(folder: &Directory, holds: Holds, keep: &[&str]) -> Result<(), DirError> {
    let path = folder.path();
    let io = |source| DirError::Io { action: "clean up", path: path.to_owned(), source };
    let all = entries(folder).map_err(io)?;
    if let Some(name) = all.iter().find(|name| !holds.is_own(name) || is_directory(folder, name)) {
        return Err(DirError::Stranger { path: path.to_owned(), name: name.clone() });
    }
    if !bears_mark(folder) {
        return Err(DirError::NotOurs { path: path.to_owned() });
    }
    for name in all.iter().filter(|name| keep.iter().all(|keep| name.as_os_str() != *keep)) {
        remove(folder, name).map_err(io)?;
    }
    Ok(())
}

/// Removes a file; one that is not there any more is fine.
pub(in crate::host) fn remove(folder: impl AsFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes a folder in another; one that has something in it stays, and one that is not there any more is fine.
pub(in crate::host) fn remove_empty(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_directory(folder: &Directory, name: &OsStr) -> bool {
    fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|facts| facts.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStringExt;

    use super::super::directory::Privacy;

    #[test]
    fn the_list_is_closed() {
        let own = |holds: Holds, name: &str| holds.is_own(OsStr::new(name));
        for name in ["vm.json", "lock", "mac", ".vmrun", "share0", "image-12", ".vm.json.123-0123abcd"] {
            assert!(own(Holds::Run, name), "{name}");
        }
        for name in
            ["thesis.txt", "share", "sharex", "image-", ".x.1-0123abcd", "vm.json.", ".git", "overlay.img"]
        {
            assert!(!own(Holds::Run, name), "{name}");
        }
        for name in [
            "overlay-image.qcow2",
            "disk1.img",
            "mac-addr-nic1",
            "console.log.1",
            ".uuid.1-00000000",
            "unpacked.json",
            "unpacked.img",
            "unpacked.part",
        ] {
            assert!(own(Holds::State, name), "{name}");
        }
        for name in ["notes.md", "a b.img", "mac-addr-", "qmp"] {
            assert!(!own(Holds::State, name), "{name}");
        }
        assert!(!Holds::Run.is_own(&OsString::from_vec(b"qmp\xff".to_vec())));
    }

    #[test]
    fn all_or_nothing_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        let folder = Directory::create(&path, Privacy::Private).unwrap();
        fs::write(path.join("qmp"), "").unwrap();
        assert!(matches!(empty(&folder, Holds::Run, &[]), Err(DirError::NotOurs { .. })));
        // a link to a mark is none
        fs::write(root.path().join("mark"), MARK_TEXT).unwrap();
        std::os::unix::fs::symlink("../mark", path.join(names::MARK)).unwrap();
        assert!(matches!(empty(&folder, Holds::Run, &[]), Err(DirError::NotOurs { .. })));
        fs::remove_file(path.join(names::MARK)).unwrap();
        mark(&folder).unwrap();
        fs::write(path.join("thesis.txt"), "x").unwrap();
        assert!(matches!(empty(&folder, Holds::Run, &[]), Err(DirError::Stranger { .. })));
        fs::remove_file(path.join("thesis.txt")).unwrap();
        fs::create_dir(path.join("control")).unwrap();
        assert!(matches!(empty(&folder, Holds::Run, &[]), Err(DirError::Stranger { .. })));
        assert!(path.join("qmp").exists());
        fs::remove_dir(path.join("control")).unwrap();
        empty(&folder, Holds::Run, &[names::MARK]).unwrap();
        assert_eq!(entries(&folder).unwrap(), [names::MARK]);
    }
}
