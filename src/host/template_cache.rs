//! The cache of templates: `$XDG_CACHE_HOME/vmrun/templates`, else `~/.cache/vmrun/templates`, with a folder for each, named by its key.
//!
//! It may be removed at any time. A template that a QEMU has open is not removed: it holds a shared lock on the memory file.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::libc;
use nix::unistd::{Uid, User};

use super::dirs::{DirError, Directory, Privacy};
use super::made::MadeFile;
use super::sys;
use super::template::{MACHINE, goes_when_unused, hold, is_named, remove_unused, users};

/// The most that the cache keeps on the disk, in bytes, while there is room.
pub const MOST_BYTES: u64 = 10 << 30;
/// The part of the free space that it may take.
const PART_OF_FREE: u64 = 5;

/// The cache.
#[derive(Debug)]
pub struct TemplateCache {
    folder: PathBuf,
}

/// The right to make a template.
#[derive(Debug)]
pub struct KeyLock {
    file: File,
    path: PathBuf,
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        match MadeFile::of(&self.path, &self.file) {
            Ok(lock) => lock.remove(),
            Err(error) => log::debug!("{} is left: {error}", self.path.display()),
        }
    }
}

/// A template that is about to be used.
#[derive(Debug)]
pub struct InUse {
    _lock: File,
}

/// A template in the cache.
#[derive(Debug, Clone)]
pub struct Cached {
    /// Its key: 32 hexadecimal digits.
    pub key: String,
    /// Its folder.
    pub path: PathBuf,
    /// What it takes on the disk, in bytes.
    pub disk_bytes: u64,
    /// When a fork of it was last started, or it was made.
    pub last_used: SystemTime,
}

impl Cached {
    /// How many QEMUs use it now: each has a shared lock of its own on the memory.
    pub fn forks(&self) -> usize {
        users(&self.path).unwrap_or(0)
    }

    /// Removes it, unless a QEMU uses it; whether it is gone.
    pub fn remove(&self) -> bool {
        remove_unused(&self.path)
    }
}

fn folder() -> io::Result<PathBuf> {
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|given| given.is_absolute());
    let home = |home: OsString| Some(PathBuf::from(home)).filter(|home| home.is_absolute());
    let listed = || User::from_uid(Uid::effective()).ok().flatten().map(|user| user.dir);
    let base = given.or_else(|| {
        let home = std::env::var_os("HOME").and_then(home).or_else(listed)?;
        Some(home.join(".cache"))
    });
    let none = || io::Error::other("there is no home directory, and $XDG_CACHE_HOME is not set");
    base.map(|base| base.join("vmrun/templates")).ok_or_else(none)
}

impl TemplateCache {
    /// Opens it, and makes it (mode 0700, its parents, too) if need be.
    ///
    /// # Errors
    /// There is no home; it cannot be made, is a symlink, someone else's or open to others.
    pub fn open() -> Result<Self, DirError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| DirError::Io { action: "create", path, source }
        };
        let path = folder().map_err(io(Path::new("~/.cache/vmrun/templates")))?;
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(io(&path))?;
        Directory::open(&path, Privacy::Private)?;
        Ok(Self { folder: path })
    }

    /// Opens it if it is there.
    ///
    /// # Errors
    /// It cannot be trusted.
    pub fn existing() -> Result<Option<Self>, DirError> {
        match folder().map(|path| (Directory::open(&path, Privacy::Private), path)) {
            Ok((Ok(_), folder)) => Ok(Some(Self { folder })),
            Ok((Err(DirError::Missing { .. }), _)) | Err(_) => Ok(None),
            Ok((Err(error), _)) => Err(error),
        }
    }

    /// Where the template of this key is, or would be.
    pub fn path(&self, key: &str) -> PathBuf {
        self.folder.join(key)
    }

    /// The template of this key, if there is one.
    pub fn find(&self, key: &str) -> Option<Cached> {
        let path = self.path(key);
        let machine = fs::symlink_metadata(path.join(MACHINE)).ok().filter(|facts| facts.is_file())?;
        let files = fs::read_dir(&path).ok()?.flatten().filter_map(|entry| entry.metadata().ok());
        Some(Cached {
            key: key.to_owned(),
            disk_bytes: files.map(|facts| facts.blocks() * 512).sum(),
            last_used: machine.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            path,
        })
    }

    /// Removes what there is of the template of this key, unless a QEMU uses it or it has foreign files; whether it is not there then. To
    /// be called with its lock.
    pub fn make_free(&self, key: &str) -> bool {
        let path = self.path(key);
        let there = Cached { key: key.to_owned(), path, disk_bytes: 0, last_used: SystemTime::UNIX_EPOCH };
        there.path.symlink_metadata().is_err() || there.remove()
    }

    /// Notes that the template is used now.
    pub fn touch(&self, key: &str) {
        let machine = File::options().append(true).open(self.path(key).join(MACHINE));
        if let Err(error) = machine.and_then(|machine| machine.set_modified(SystemTime::now())) {
            log::debug!("the use of template {key} is not noted: {error}");
        }
    }

    /// The lock of those that would make the template of this key. `busy` is called if someone has it, who is waited for. Its file goes
    /// with it.
    ///
    /// # Errors
    /// The lock's file cannot be made.
    pub fn lock(&self, key: &str, busy: impl FnOnce()) -> io::Result<KeyLock> {
        let mut busy = Some(busy);
        loop {
            let file = self.lock_file(key)?;
            if !sys::try_lock(&file)? {
                busy.take().into_iter().for_each(|busy| busy());
                sys::lock(&file)?;
            }
            if let Some(lock) = self.locked(key, file) {
                return Ok(lock);
            }
        }
    }

    /// The same lock, if it is free.
    fn try_lock(&self, key: &str) -> io::Result<Option<KeyLock>> {
        let file = self.lock_file(key)?;
        let is_free = sys::try_lock(&file)?;
        Ok(is_free.then(|| self.locked(key, file)).flatten())
    }

    fn lock_path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.lock"))
    }

    fn lock_file(&self, key: &str) -> io::Result<File> {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.lock_path(key))
    }

    /// A file that is locked is the lock if it still has its name: the process that had it before has removed it, and another may lock
    /// a new one.
    fn locked(&self, key: &str, file: File) -> Option<KeyLock> {
        let path = self.lock_path(key);
        is_named(&file, &path).then_some(KeyLock { file, path })
    }

    /// Takes a template into use: it is not removed as long as this is there. `None` if it is not there (any more).
    pub fn hold(&self, key: &str) -> Option<InUse> {
        hold(&self.path(key)).map(|file| InUse { _lock: file })
    }

    /// All templates, those first that were not used for longest.
    pub fn list(&self) -> Vec<Cached> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut all: Vec<Cached> =
            names.filter(|name| is_key(name)).filter_map(|key| self.find(&key)).collect();
        all.sort_by_key(|cached| cached.last_used);
        all
    }

    /// Removes templates that no QEMU uses: those unused for `older_than`, and then those unused for longest until all take at most
    /// `most_bytes`. Returns those that are gone.
    pub fn prune(&self, most_bytes: Option<u64>, older_than: Option<Duration>) -> Vec<Cached> {
        self.remove_stale_locks();
        let all = self.list();
        let mut total: u64 = all.iter().map(|cached| cached.disk_bytes).sum();
        let mut gone = Vec::new();
        for cached in all {
            let age = cached.last_used.elapsed().unwrap_or_default();
            let is_old = older_than.is_some_and(|limit| age >= limit);
            // its last user was killed
            let is_old = is_old || goes_when_unused(&cached.path);
            let is_too_much = most_bytes.is_some_and(|most| total > most);
            // not one that was made just now, and is about to be used
            let lock = || self.try_lock(&cached.key).ok().flatten();
            if (is_old || is_too_much) && lock().is_some_and(|_lock| cached.remove()) {
                total -= cached.disk_bytes;
                gone.push(cached);
            }
        }
        gone
    }

    /// Those of makers that were killed.
    fn remove_stale_locks(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        for name in names {
            if let Some(key) = name.strip_suffix(".lock").filter(|key| is_key(key)) {
                // it goes with its lock
                let _ = self.try_lock(key);
            }
        }
    }

    /// How much the cache may take: at most a fifth of what would be free without it.
    ///
    /// # Errors
    /// The file system does not tell.
    pub fn limit(&self) -> io::Result<u64> {
        let facts = nix::sys::statvfs::statvfs(&self.folder)?;
        let free = facts.blocks_available() * facts.fragment_size();
        let used: u64 = self.list().iter().map(|cached| cached.disk_bytes).sum();
        Ok(((free + used) / PART_OF_FREE).min(MOST_BYTES))
    }
}

fn is_key(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
