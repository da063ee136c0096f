//! The folder of a template: a booted VM, frozen.
//!
//! ```text
//! machine     description and device state, as the file of a saved VM (`saved.rs`); written last, so that a folder without it is none
//! console.log the end of what the guest had printed
//! memory      the guest's memory, byte for byte, with holes; not there where it is in the stream of `machine`
//! until-unused, kept   it goes with its last user, and does not after all
//! the rest    files of the VM's state directory that it was started with: overlays, firmware variables, the metadata CD
//! ```
//! Forks map `memory` privately, so that it stays as it is and its pages are in the machine's memory once.

mod copying;

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::dirs::{Directory, Holds, Privacy, empty, mark, remove_empty_in};
use super::made::folder_of;
use super::saved::writing::rename_to_free_name;
use super::sys;
pub use copying::dig_holes;
use copying::{copy_sparse, name_beside};

/// Description and device state.
pub const MACHINE: &str = "machine";
/// The guest's memory.
pub const MEMORY: &str = "memory";
/// The end of what the guest printed on its console.
const CONSOLE: &str = "console.log";
/// The most of it that is read.
const MOST_CONSOLE: u64 = 1 << 20;
/// An image that has the state of a paused VM while that is copied from it.
pub const STATE: &str = "state.qcow2";

/// A template with this file goes with the last VM that uses it, unless it has [`KEPT`] as well.
const UNTIL_UNUSED: &str = "until-unused";
/// A template with this file stays: disks of another template lie over its own.
const KEPT: &str = "kept";

/// By this name the kernel shows the memory of a VM that can be forked among its QEMU's open files.
const MEMORY_FILE: &str = "vmrun-guest-memory";

/// A new file for a guest's memory, which has no name anywhere and goes with its last user.
///
/// # Errors
/// No descriptor is left.
pub fn new_memory() -> io::Result<File> {
    Ok(memfd_create(MEMORY_FILE, MFdFlags::MFD_CLOEXEC)?.into())
}

/// The memory that [`new_memory`] made for this QEMU; none if it has none, as a fork, whose memory is private.
///
/// # Errors
/// The process is gone, or its files are a secret.
pub fn memory_of(pid: i32) -> io::Result<Option<File>> {
    let shown = format!("/memfd:{MEMORY_FILE} (deleted)");
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        if fs::read_link(&path).is_ok_and(|target| target.as_os_str() == shown.as_str()) {
            return File::options().read(true).write(true).open(path).map(Some);
        }
    }
    Ok(None)
}

/// A template's memory for a new fork, locked as in use as long as any copy of the descriptor is open, in QEMU too.
///
/// # Errors
/// It is not there, not this user's, others can write to it, or it is not as large as it was.
pub fn open_memory(folder: &Path, bytes: u64) -> io::Result<File> {
    let path = folder.join(MEMORY);
    // QEMU opens it for writing, although it maps it privately
    let file = File::options().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(&path)?;
    let facts = file.metadata()?;
    if !facts.is_file() || !is_only_ours(&facts) {
        return Err(io::Error::other("others than this user can write to it"));
    }
    if facts.len() != bytes {
        return Err(io::Error::other(format!("it has {} bytes instead of {bytes}", facts.len())));
    }
    sys::lock_shared(&file)?;
    Ok(file)
}

/// The file that is locked by those that use a template: its memory, or its description where the memory is in that.
fn lock_path(folder: &Path) -> PathBuf {
    let memory = folder.join(MEMORY);
    if memory.symlink_metadata().is_ok() { memory } else { folder.join(MACHINE) }
}

/// Takes a template into use, as long as any copy of the descriptor is open. `None` if it is not there (any more).
pub fn hold(folder: &Path) -> Option<File> {
    let path = lock_path(folder);
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(&path).ok()?;
    // another process removes it
    sys::lock_shared(&file).ok()?;
    is_named(&file, &path).then_some(file)
}

/// Whether a file has this name.
pub(super) fn is_named(file: &File, path: &Path) -> bool {
    let now = fs::symlink_metadata(path).ok().map(|facts| (facts.dev(), facts.ino()));
    now.is_some() && file.metadata().ok().map(|facts| (facts.dev(), facts.ino())) == now
}

/// Whether a folder is a whole template of this user.
pub fn is_template(folder: &Path) -> bool {
    let machine = fs::symlink_metadata(folder.join(MACHINE));
    machine.is_ok_and(|facts| facts.is_file() && is_only_ours(&facts)) && open(folder).is_ok()
}

/// From now on it stays until somebody removes it.
///
/// # Errors
/// Of the file system.
pub fn keep(folder: &Path) -> io::Result<()> {
    match folder.join(UNTIL_UNUSED).symlink_metadata() {
        Ok(_) => File::options().append(true).create(true).mode(0o600).open(folder.join(KEPT)).map(drop),
        Err(_) => Ok(()),
    }
}

/// Whether it goes with its last user.
pub fn goes_when_unused(folder: &Path) -> bool {
    let has = |name| folder.join(name).symlink_metadata().is_ok();
    has(UNTIL_UNUSED) && !has(KEPT)
}

/// Removes it if it goes with its last user and has none any more.
pub fn forget(folder: &Path) {
    if goes_when_unused(folder) && is_template(folder) {
        remove_unused(folder);
    }
}

/// Removes it, unless a QEMU uses it; whether it is gone.
pub fn remove_unused(folder: &Path) -> bool {
    // held until it is gone: a fork that wants it now finds none
    let lock = File::open(lock_path(folder));
    if lock.as_ref().is_ok_and(|lock| matches!(sys::try_lock(lock), Ok(false))) {
        return false;
    }
    take_back(folder);
    !folder.exists()
}

/// How many QEMUs use the template in this folder: each has a shared lock of its own. `None` if it is not there.
pub fn users(folder: &Path) -> Option<usize> {
    let facts = fs::metadata(lock_path(folder)).ok()?;
    let (major, minor) = (nix::sys::stat::major(facts.dev()), nix::sys::stat::minor(facts.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", facts.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let is_user = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.contains(&"FLOCK") && words.contains(&"READ") && words.contains(&file.as_str())
    };
    Some(locks.lines().filter(is_user).count())
}

/// What the guest of a template had printed last; empty if that is not there.
pub fn console_of(folder: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(folder.join(CONSOLE));
    // it is for people: a template without it is as good
    if let Err(error) = file.and_then(|file| file.take(MOST_CONSOLE).read_to_end(&mut text)) {
        log::debug!("no console in {}: {error}", folder.display());
    }
    text
}

fn is_only_ours(facts: &Metadata) -> bool {
    facts.uid() == nix::unistd::geteuid().as_raw() && facts.mode() & 0o022 == 0
}

/// A template that is being made, in a folder of another name, which goes with all that is in it unless it is finished.
///
/// Whoever makes one writes the other name down first ([`part`], [`take_back`]), so that none is left by a process that was killed.
#[derive(Debug)]
pub struct Making {
    path: PathBuf,
    part: PathBuf,
    copies: Vec<PathBuf>,
    is_finished: bool,
}

/// What the folder is called until it is whole: a name that nobody else has.
pub fn part(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.part-{:016x}", rand::random::<u64>()))
}

impl Making {
    /// Makes the folder, for its owner only. `copies` are the files that will be copied into it.
    ///
    /// # Errors
    /// There is a template already, or something else of this name, or its own folder cannot be written to.
    pub fn create(path: &Path, part: &Path, copies: Vec<PathBuf>) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists already"));
        }
        DirBuilder::new().mode(0o700).create(part)?;
        let making = Self { path: path.to_owned(), part: part.to_owned(), copies, is_finished: false };
        if let Err(error) = open(part).and_then(|folder| mark(&folder)) {
            let _ = fs::remove_dir(part);
            return Err(error);
        }
        Ok(making)
    }

    /// Its name for now.
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// Where a file is in the template, if it is one of those that are copied into it.
    pub fn new_place(&self, path: &Path) -> Option<PathBuf> {
        let name = path.file_name()?;
        self.copies.iter().any(|copy| copy == path).then(|| self.part.join(name))
    }

    /// It goes with the last VM that uses it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn until_unused(&self) -> io::Result<()> {
        new_file(&self.part.join(UNTIL_UNUSED)).map(drop)
    }

    /// Fills it; `console` is what the guest printed last. Returns how large the memory is, if it is in a file.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn fill(
        &self,
        memory: Option<&File>,
        console: &[u8],
        count: impl FnMut(u64),
    ) -> io::Result<Option<u64>> {
        for from in &self.copies {
            let Some(to) = self.new_place(from) else { continue };
            let to = new_file(&to)?;
            copy_sparse(&File::open(from)?, &to, |_| {})?;
            name_beside(&to, &self.copies)?;
        }
        new_file(&self.part.join(CONSOLE))?.write_all(console)?;
        let copy = |from: &File| copy_sparse(from, &new_file(&self.part.join(MEMORY))?, count);
        memory.map(copy).transpose()
    }

    /// Gives it its name: it is whole.
    ///
    /// # Errors
    /// Something else has taken the name meanwhile, or the file system cannot rename without replacing.
    pub fn finish(mut self) -> io::Result<()> {
        rename_to_free_name(&self.part, &self.path)?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.is_finished {
            take_back(&self.part);
        }
    }
}

fn open(folder: &Path) -> io::Result<Directory> {
    Directory::open(folder, Privacy::Private).map_err(io::Error::other)
}

fn new_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Removes a template that did not become whole. One whose mark is not there, or that has foreign files, stays.
pub fn take_back(part: &Path) {
    let (Ok(_), Some(name)) = (part.symlink_metadata(), part.file_name()) else { return };
    let emptied =
        Directory::open(part, Privacy::Private).and_then(|folder| empty(&folder, Holds::Template, &[]));
    if let Err(error) = emptied {
        log::warn!("{} is left: {error}", part.display());
    }
    let removed = File::open(folder_of(part)).and_then(|parent| remove_empty_in(&parent, name));
    if let Err(error) = removed {
        log::warn!("{} is left: {error}", part.display());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom};
    use std::os::unix::fs::{FileExt, PermissionsExt};

    use super::*;

    fn memory(bytes: u64, pieces: &[(u64, &[u8])]) -> File {
        let file = new_memory().unwrap();
        file.set_len(bytes).unwrap();
        for (at, text) in pieces {
            file.write_all_at(text, *at).unwrap();
        }
        file
    }

    #[test]
    fn memory_is_copied_with_its_holes() {
        let folder = tempfile::tempdir().unwrap();
        let memory = memory(64 << 20, &[(0, b"boot"), (5 << 20, b"kernel"), ((64 << 20) - 3, b"end")]);
        let making = making(folder.path(), Vec::new());
        let mut counted = 0;
        assert_eq!(making.fill(Some(&memory), b"login: ", |bytes| counted = bytes).unwrap(), Some(64 << 20));
        let copy = File::open(making.part().join(MEMORY)).unwrap();
        assert!(copy.metadata().unwrap().blocks() * 512 < 1 << 20, "holes stay holes");
        assert!(counted > 0 && counted < 1 << 20, "{counted}");
        let all = |mut file: &File| {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_end(&mut bytes).unwrap();
            bytes
        };
        assert!(all(&memory) == all(&copy), "byte for byte");
        assert_eq!(console_of(making.part()), b"login: ");
    }

    fn making(folder: &Path, copies: Vec<PathBuf>) -> Making {
        let path = folder.join("t");
        Making::create(&path, &part(&path), copies).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let names =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_not_finished_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (path, vars) = (folder.path().join("t"), folder.path().join("uefi-vars.fd"));
        fs::write(&vars, "variables").unwrap();
        let begun = making(folder.path(), vec![vars.clone()]);
        begun.fill(Some(&memory(1 << 20, &[])), b"", |_| {}).unwrap();
        assert_eq!(fs::read(begun.new_place(&vars).unwrap()).unwrap(), b"variables");
        assert!(!path.exists(), "it has its name when it is whole");
        drop(begun);
        assert_eq!(names(folder.path()), ["uefi-vars.fd"]);
        // a foreign file stays, and all that is beside it
        let begun = making(folder.path(), Vec::new());
        let part = begun.part().to_owned();
        fs::write(part.join("thesis"), "x").unwrap();
        begun.fill(Some(&memory(1 << 20, &[])), b"", |_| {}).unwrap();
        drop(begun);
        assert_eq!(names(&part), [".vmrun", "console.log", "memory", "thesis"]);
        // the name is taken meanwhile
        let begun = making(folder.path(), Vec::new());
        fs::create_dir(&path).unwrap();
        begun.finish().unwrap_err();
        assert!(path.is_dir() && names(&path).is_empty());
        let taken = Making::create(&path, &super::part(&path), Vec::new()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(names(folder.path()).len(), 3);
    }

    #[test]
    fn memory_is_taken_only_as_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let making = making(folder.path(), Vec::new());
        making.fill(Some(&memory(1 << 20, &[(7, b"x")])), b"", |_| {}).unwrap();
        making.finish().unwrap();
        let path = folder.path().join("t");
        open_memory(&path, 1 << 20).unwrap();
        open_memory(&path, 2 << 20).unwrap_err();
        fs::set_permissions(path.join(MEMORY), fs::Permissions::from_mode(0o666)).unwrap();
        open_memory(&path, 1 << 20).unwrap_err();
        fs::rename(path.join(MEMORY), path.join("m")).unwrap();
        std::os::unix::fs::symlink("m", path.join(MEMORY)).unwrap();
        open_memory(&path, 1 << 20).unwrap_err();
        let mut new = new_memory().unwrap();
        new.write_all(b"x").unwrap();
        assert!(memory_of(i32::try_from(std::process::id()).unwrap()).unwrap().is_some());
    }
}
