//! State directories of runs that leave nothing: on this machine and this user's, since images lie on folders that are shared,
//! or that can only be read.
//!
//! ```text
//! $TMPDIR (else /var/tmp) / vmrun-UID / ephemeral-HOST-MACHINE-BOOT-NAME-RANDOM /
//! ```
//! What a killed run left is removed by the next one, if it is of this host and not in use: no supervisor holds its lock, and no
//! QEMU has its monitor or an image in it open.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::Uid;

use super::directory::{Directory, Privacy};
use super::own::{self, Holds};
use super::run::warn_of;
use super::{DirError, StateDir, names};
use crate::host::sys;
use crate::spec::VmName;

const PREFIX: &str = "ephemeral-";
/// The path of the run directory that it belongs to.
pub(super) const RUN_FILE: &str = "run-directory";
/// The folder of these directories can vanish under our hands as often as another run ends.
const ATTEMPTS: u32 = 50;
/// So much of the host's name is part of a directory's; a file name can have 255 bytes.
const HOST_LETTERS: usize = 32;
/// So many digits of the ids of machine and boot, which tell hosts of one name apart.
const ID_DIGITS: usize = 8;

/// What decides where these directories are, and what they are called.
#[derive(Debug, Clone)]
pub struct EphemeralEnvironment {
    /// `$TMPDIR`.
    pub tmpdir: Option<OsString>,
    /// `/var/tmp`, which is no memory.
    pub var_tmp: PathBuf,
    /// `/tmp`, where there is no `/var/tmp`.
    pub tmp: PathBuf,
    /// The root of the file system, in which the host's name and ids are.
    pub root: PathBuf,
}

impl EphemeralEnvironment {
    /// This process's.
    pub fn from_env() -> Self {
        Self {
            tmpdir: std::env::var_os("TMPDIR"),
            var_tmp: "/var/tmp".into(),
            tmp: "/tmp".into(),
            root: "/".into(),
        }
    }

    fn base(&self) -> Result<PathBuf, DirError> {
        let given = self.tmpdir.clone().filter(|given| !given.is_empty()).map(PathBuf::from);
        let temporary = match given {
            Some(given) => std::path::absolute(&given).map_err(|source| DirError::Io {
                action: "find",
                path: given,
                source,
            })?,
            None if self.var_tmp.is_dir() => self.var_tmp.clone(),
            None => self.tmp.clone(),
        };
        Ok(temporary.join(format!("vmrun-{}", Uid::effective())))
    }

    /// Host, machine and boot, as part of a name. A machine without an id is another one after each boot.
    fn host(&self) -> (String, String) {
        let read = |file: &str| fs::read_to_string(self.root.join(file)).unwrap_or_default();
        let plain = |text: &str, most: usize| -> String {
            text.trim().chars().filter(|letter| letter.is_ascii_alphanumeric()).take(most).collect()
        };
        let host = plain(&read("proc/sys/kernel/hostname"), HOST_LETTERS);
        let machine = plain(&read("etc/machine-id"), ID_DIGITS);
        let boot = plain(&read("proc/sys/kernel/random/boot_id"), ID_DIGITS);
        match machine.is_empty() {
            true => (format!("{PREFIX}{host}-none-{boot}-"), String::new()),
            false => (format!("{PREFIX}{host}-{machine}-"), format!("{boot}-")),
        }
    }
}

/// The path of a run's own directory, which no other run ever has. Nothing is made.
///
/// # Errors
/// There is no working directory, which a relative `$TMPDIR` needs.
pub fn ephemeral_path(environment: &EphemeralEnvironment, name: &VmName) -> Result<PathBuf, DirError> {
    let (host, boot) = environment.host();
    Ok(environment.base()?.join(format!("{host}{boot}{name}-{:08x}", rand::random::<u32>())))
}

/// Makes (and locks) a run's own directory at a path of [`ephemeral_path`], or opens the one that its last supervisor has made; removes
/// those of runs that are dead. `run` is the run directory.
///
/// # Errors
/// As [`StateDir::open`]; or the folder for temporary files belongs to another user.
pub fn open_ephemeral(
    environment: &EphemeralEnvironment,
    path: &Path,
    run: &Path,
) -> Result<StateDir, DirError> {
    let (Some(base), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) else {
        return Err(DirError::Missing { path: path.to_owned() });
    };
    for _ in 0..ATTEMPTS {
        let opened = open_base(base).and_then(|base| {
            sweep(&base, &environment.host().0, name);
            // until it is marked, as `sweep` would remove it otherwise; a file system without locks has no such sweep either
            let _ = sys::wait_lock_shared(&base);
            let directory = Directory::create_in(&base, name, Privacy::Private)?;
            own_directory(&base, name, directory, run)
        });
        match opened {
            // the run before has just ended, and has removed the folder
            Err(DirError::Missing { path }) if path.starts_with(base) => {}
            other => return other,
        }
    }
    Err(DirError::Missing { path: base.to_owned() })
}

fn open_base(base: &Path) -> Result<Directory, DirError> {
    let (parent, name) = (base.parent().unwrap_or(base), base.file_name().and_then(OsStr::to_str));
    let hint = || "set TMPDIR to a folder of your own".to_owned();
    let parent = Directory::open_shared(parent, "folder for temporary files", hint)?;
    Directory::create_in(&parent, name.unwrap_or("vmrun"), Privacy::Private)
}

/// The mark comes last: what bears it is locked, or was left. What cannot be completed, on a full disk, is removed.
fn own_directory(
    base: &Directory,
    name: &str,
    directory: Directory,
    run: &Path,
) -> Result<StateDir, DirError> {
    let io = |path: &Path, source| DirError::Io { action: "make", path: path.to_owned(), source };
    let is_new = !own::bears_mark(&directory);
    let there = own::entries(&directory).map_err(|error| io(directory.path(), error))?;
    if is_new && !there.is_empty() {
        return Err(DirError::NotOurs { path: directory.path().to_owned() });
    }
    let state = StateDir::locked(directory)?;
    // systemd-tmpfiles(8) takes nothing out of a folder that is locked, however old it is
    let _ = sys::try_lock(&*state);
    if is_new {
        let text = run.as_os_str().as_bytes();
        let filled = state.write_for_now(RUN_FILE, text).and_then(|()| own::mark(&state));
        filled.map_err(|error| {
            for file in [RUN_FILE, names::MARK, names::LOCK] {
                let _ = own::remove(&*state, file.as_ref());
            }
            if base.is_entry(name, &*state) {
                let _ = own::remove_empty(base, name.as_ref());
            }
            io(state.path(), error)
        })?;
    }
    Ok(state)
}

/// Removes a run's own directory while it is still locked, and the folder of these with it if nothing else is in it. Says so where
/// something has to stay.
pub fn remove_ephemeral(state: &StateDir) {
    if let Err(error) = try_remove(state) {
        warn_of(&error);
    }
}

fn try_remove(state: &StateDir) -> Result<(), DirError> {
    let path = state.path();
    let (Some(base), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let base = Directory::open(base, Privacy::Private)?;
    dissolve(&base, name, state)?;
    // of no use any more if it is empty; else the run that ends last removes it
    if let (Some(parent), Some(name)) = (base.path().parent(), base.path().file_name()) {
        let _ = File::open(parent).and_then(|parent| own::remove_empty(&parent, name));
    }
    Ok(())
}

fn dissolve(base: &Directory, name: &OsStr, directory: &Directory) -> Result<(), DirError> {
    own::empty(directory, Holds::State, &[names::LOCK, names::MARK])?;
    let io = |source| DirError::Io { action: "remove", path: directory.path().to_owned(), source };
    own::remove(directory, names::LOCK.as_ref()).map_err(io)?;
    own::remove(directory, names::MARK.as_ref()).map_err(io)?;
    match name.to_str().is_some_and(|name| base.is_entry(name, directory)) {
        true => own::remove_empty(base, name).map_err(io),
        // it was moved
        false => Ok(()),
    }
}

/// Removes what killed runs of this host have left.
fn sweep(base: &Directory, host: &str, but: &str) {
    let entries = own::entries(base).unwrap_or_default();
    for name in entries.iter().filter_map(|name| name.to_str()) {
        if !name.starts_with(host) || name == but {
            continue;
        }
        let Ok(directory) = Directory::open_in(base, name, Privacy::Private) else { continue };
        if !own::bears_mark(&directory) {
            remove_unmarked(base, name, &directory);
            continue;
        }
        // a living supervisor holds the lock
        let Ok(dead) = StateDir::locked(directory) else { continue };
        if !is_in_use(&dead) {
            log::info!("removing what a killed run left: {}", dead.path().display());
            if let Err(error) = dissolve(base, name.as_ref(), &dead) {
                warn_of(&error);
            }
        }
    }
}

/// Removes a folder whose maker was killed before it was marked, or whose remover was killed after it took the mark away: nothing but
/// the beginnings of one of these is in it. One that is being made stays: its maker shares the lock of `base`, which is kept here until
/// `base` is closed or its lock shared.
fn remove_unmarked(base: &Directory, name: &str, directory: &Directory) {
    if !sys::try_lock(base).unwrap_or(false) {
        return;
    }
    // it may have been marked meanwhile
    if own::is_begun(directory, RUN_FILE) {
        log::info!("removing what a killed run began: {}", directory.path().display());
        let names = own::entries(directory).unwrap_or_default();
        let removed = names.iter().try_for_each(|file| own::remove(directory, file));
        if let Err(source) = removed.and_then(|()| own::remove_empty(base, name.as_ref())) {
            warn_of(&DirError::Io { action: "remove", path: directory.path().to_owned(), source });
        }
    }
}

/// Whether there is a QEMU that belongs to it: its supervisor may have died, and a new one will want it.
fn is_in_use(directory: &Directory) -> bool {
    has_monitor(directory) || has_locked_image(directory)
}

fn has_monitor(directory: &Directory) -> bool {
    let Ok(run) = directory.read(RUN_FILE) else { return false };
    Directory::open(Path::new(&OsString::from_vec(run)), Privacy::Private)
        .is_ok_and(|run| own::bears_mark(&run) && run.is_listened_on(names::QMP))
}

fn has_locked_image(directory: &Directory) -> bool {
    let entries = own::entries(directory).unwrap_or_default();
    entries.iter().filter_map(|name| name.to_str()).filter(|name| *name != names::LOCK).any(|name| {
        let file: io::Result<File> = directory.open_file(name, OFlag::O_RDONLY);
        file.is_ok_and(|file| sys::is_range_locked(&file).unwrap_or(false))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::fs::PermissionsExt;

    use super::super::RunDir;

    fn environment(root: &Path, host: &str) -> EphemeralEnvironment {
        for (file, text) in [
            ("proc/sys/kernel/hostname", host),
            ("proc/sys/kernel/random/boot_id", "01234567-89ab"),
            ("etc/machine-id", "fedcba9876543210"),
        ] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), text).unwrap();
        }
        EphemeralEnvironment {
            tmpdir: Some(root.as_os_str().to_owned()),
            var_tmp: root.join("var"),
            tmp: root.join("tmp"),
            root: root.to_owned(),
        }
    }

    fn name(text: &str) -> VmName {
        text.parse().unwrap()
    }

    fn open(environment: &EphemeralEnvironment, vm: &str) -> StateDir {
        let path = ephemeral_path(environment, &name(vm)).unwrap();
        open_ephemeral(environment, &path, Path::new("/none")).unwrap()
    }

    #[test]
    fn runs_have_their_own_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let environment = environment(folder.path(), "node-1");
        let a = open(&environment, "a");
        let b = open(&environment, "a");
        assert_ne!(a.path(), b.path(), "one name in two runtime directories");
        let base = a.path().parent().unwrap().to_owned();
        assert_eq!(base, folder.path().join(format!("vmrun-{}", Uid::effective())));
        let called = a.path().file_name().unwrap().to_str().unwrap();
        assert!(called.starts_with("ephemeral-node1-fedcba98-01234567-a-"), "{called}");
        fs::write(b.path().join("overlay-image.qcow2"), "x").unwrap();
        let path = b.path().to_owned();
        // killed: the lock goes, the files stay
        drop(b);
        let c = open(&environment, "c");
        assert!(!path.exists() && a.path().exists());
        remove_ephemeral(&a);
        assert!(base.exists());
        remove_ephemeral(&c);
        assert!(!base.exists());
    }

    #[test]
    fn only_what_is_of_this_host_and_dead_and_vmruns_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let here = environment(folder.path(), "node");
        let runtime = folder.path().join("run");
        fs::create_dir(&runtime).unwrap();
        let run = RunDir::create(&runtime, &name("orphan")).unwrap();
        let listener = run.bind(names::QMP).unwrap();
        // its supervisor has died, and its QEMU lives
        let path = ephemeral_path(&here, &name("orphan")).unwrap();
        let orphan = open_ephemeral(&here, &path, run.path()).unwrap().path().to_owned();
        let elsewhere = open(&environment(folder.path(), "other"), "a").path().to_owned();
        let here = environment(folder.path(), "node");
        let own = open(&here, "a").path().to_owned();
        fs::write(own.join("thesis.txt"), "x").unwrap();
        let foreign = own.with_file_name(format!("{}copy", here.host().0));
        fs::create_dir(&foreign).unwrap();
        fs::set_permissions(&foreign, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(foreign.join("console.log"), "x").unwrap();
        let next = open(&here, "next");
        for left in [&orphan, &elsewhere, &own, &foreign.join("console.log"), &own.join("lock")] {
            assert!(left.exists(), "{}", left.display());
        }
        fs::remove_file(own.join("thesis.txt")).unwrap();
        drop(listener);
        drop(open(&here, "next"));
        assert!(!own.exists() && !orphan.exists() && next.path().exists());
        assert!(elsewhere.exists() && foreign.exists());
    }

    #[test]
    fn what_was_killed_before_its_mark_or_after_it_is_swept_unless_it_is_being_made() {
        let folder = tempfile::tempdir().unwrap();
        let environment = environment(folder.path(), "node");
        let first = open(&environment, "first");
        let base = first.path().parent().unwrap().to_owned();
        let begun = |suffix: &str, files: &[(&str, &[u8])]| {
            let path = base.join(format!("{}{suffix}", environment.host().0));
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            for (file, text) in files {
                fs::write(path.join(file), text).unwrap();
            }
            path
        };
        let run: (&str, &[u8]) = (RUN_FILE, b"/run/vmrun/a");
        let left = [
            begun("1", &[]),
            begun("2", &[(names::LOCK, b"")]),
            begun("3", &[(names::LOCK, b""), (".run-directory.12-0123abcd", b"/ru")]),
            begun("4", &[(names::LOCK, b""), run]),
            begun("5", &[(names::LOCK, b""), run, (names::MARK, b"vmrun made")]),
        ];
        let others = [
            begun("6", &[(names::LOCK, b""), run, (names::MARK, b"another text")]),
            begun("7", &[(names::LOCK, b""), run, ("thesis.txt", b"x")]),
        ];
        // while one is made, it cannot be told from those that are dead
        let maker = File::open(&base).unwrap();
        sys::wait_lock_shared(&maker).unwrap();
        drop(open(&environment, "second"));
        assert!(left.iter().all(|path| path.exists()));
        drop(maker);
        drop(open(&environment, "third"));
        assert_eq!(left.iter().filter(|path| path.exists()).collect::<Vec<_>>(), <[&PathBuf; 0]>::default());
        assert!(others.iter().all(|path| path.exists()));
    }

    #[test]
    fn a_new_supervisor_gets_the_same_again() {
        let folder = tempfile::tempdir().unwrap();
        let environment = environment(folder.path(), "node");
        let path = ephemeral_path(&environment, &name("a")).unwrap();
        let open = || open_ephemeral(&environment, &path, Path::new("/none"));
        let first = open().unwrap();
        first.write("uuid", b"x").unwrap();
        assert!(matches!(open(), Err(DirError::InUse { .. })));
        drop(first);
        assert_eq!(open().unwrap().read("uuid").unwrap(), b"x");
    }
}
