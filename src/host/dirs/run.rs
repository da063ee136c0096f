//! The run directory of one VM. Whoever holds its lock owns it; a held lock means a living supervisor.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::mkfifoat;

use super::directory::{Directory, Privacy};
use super::holder::holder;
use super::own::{self, Holds};
use super::{DirError, RunId, names};
use crate::host::HINTED;
use crate::host::sys;
use crate::spec::VmName;

/// The mode of sockets and pipes: 0600.
const PRIVATE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);
/// How often a lock is tried before it counts as taken: [`RunDir::probe`] of another process holds it for microseconds,
/// and a directory can vanish under our hands when its VM ends.
const ATTEMPTS: u32 = 10;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(10);

/// How the name of a run directory begins while it is made or removed: no VM's does.
const PART: &str = ".part-";

/// Whether a VM's supervisor is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It holds its lock.
    Alive,
    /// Nobody does: there is no such VM, or its supervisor was killed.
    Free,
}

/// A run directory that we own. Reading and writing: see [`Directory`].
#[derive(Debug)]
pub struct RunDir {
    name: VmName,
    /// The folder of run directories.
    root: Directory,
    directory: Directory,
    // closed last: until then nobody else takes the name
    _lock: File,
}

impl Deref for RunDir {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        &self.directory
    }
}

/// What became of an attempt to get a run directory that is there.
enum Attempt {
    Taken(Directory, File),
    /// Another process has its lock.
    Held,
    Missing,
}

impl RunDir {
    /// Makes `<root>/<name>/` (or takes over what a killed supervisor left) and locks it. `root` is that of
    /// [`runtime_root`](super::runtime_root).
    ///
    /// # Errors
    /// [`DirError::Taken`] while another supervisor has the name; else why the directory cannot be used.
    pub fn create(root: &Path, name: &VmName) -> Result<Self, DirError> {
        Self::get(root, name, true)?.ok_or_else(|| DirError::Missing { path: root.join(name.as_str()) })
    }

    /// Takes over what a killed supervisor left; none if there is no such directory.
    ///
    /// # Errors
    /// As of [`RunDir::create`].
    pub fn take(root: &Path, name: &VmName) -> Result<Option<Self>, DirError> {
        Self::get(root, name, false)
    }

    fn get(root: &Path, name: &VmName, make: bool) -> Result<Option<Self>, DirError> {
        let root = Directory::open(root, Privacy::ReadableByOthers)?;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                thread::sleep(BETWEEN_ATTEMPTS);
            }
            let made = match attempt_on(&root, name.as_str())? {
                Attempt::Taken(directory, lock) => Some((directory, lock)),
                Attempt::Missing if make => make_in(&root, name.as_str())?,
                Attempt::Missing => return Ok(None),
                Attempt::Held => None,
            };
            if let Some((directory, lock)) = made {
                return Ok(Some(Self { name: name.clone(), root, directory, _lock: lock }));
            }
        }
        Err(DirError::Taken { name: name.to_string() })
    }

    /// Whether a VM of this name is alive. Looks without changing anything.
    pub fn probe(root: &Path, name: &VmName) -> Liveness {
        RunClient::open(root, name).map_or(Liveness::Free, |client| client.liveness())
    }

    /// The names of all run directories, sorted, whether their VMs are alive or not.
    ///
    /// # Errors
    /// The root cannot be read; one that is not there has none.
    pub fn list(root: &Path) -> io::Result<Vec<VmName>> {
        let Some(root) = open_root(root)? else { return Ok(Vec::new()) };
        let (mut names, _) = named_as_vms(&root)?;
        names.sort_by(|a: &VmName, b| a.as_str().cmp(b.as_str()));
        Ok(names)
    }

    /// Removes what a process that was killed while it made or removed a run directory has left, and tells of the folders that
    /// are named as a VM could be and are not vmrun's: nobody touches these.
    ///
    /// # Errors
    /// The root cannot be read.
    pub fn tidy(root: &Path) -> io::Result<Vec<PathBuf>> {
        let Some(root) = open_root(root)? else { return Ok(Vec::new()) };
        for name in own::entries(&root)? {
            if let Some(part) = name.to_str().filter(|name| name.starts_with(PART)) {
                dissolve_part(&root, part);
            }
        }
        Ok(named_as_vms(&root)?.1)
    }

    /// The VM's name.
    pub fn name(&self) -> &VmName {
        &self.name
    }

    /// Writes a file in it as [`Directory::write`] does, without waiting for the disk: what is said of a running VM is worth nothing
    /// after the machine's end.
    ///
    /// # Errors
    /// Of the file system; the old file is as it was.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.directory.write_for_now(name, bytes)
    }

    /// The id of the VM's run: made up at its start, the same for all its supervisors. To be there before a client can connect.
    ///
    /// # Errors
    /// Of the file system.
    pub fn ensure_run_id(&self) -> io::Result<RunId> {
        match self.run_id() {
            Some(run) => Ok(run),
            None => {
                let run = RunId::random();
                self.write(names::RUN, run.to_string().as_bytes())?;
                Ok(run)
            }
        }
    }

    /// Binds a socket in it (mode 0600), in place of one that was left over.
    ///
    /// # Errors
    /// Of the system.
    pub fn bind(&self, name: &str) -> io::Result<UnixListener> {
        self.unlink(name)?;
        let listener = UnixListener::bind(self.short_path(name))?;
        self.make_private(name)?;
        Ok(listener)
    }

    /// Makes a pipe in it (mode 0600), in place of one that was left over. It is opened with [`Directory::open_pipe`].
    ///
    /// # Errors
    /// Of the system.
    pub fn make_pipe(&self, name: &str) -> io::Result<()> {
        self.unlink(name)?;
        mkfifoat(&self.directory, name, PRIVATE)?;
        self.make_private(name)
    }

    /// Whatever the umask gave what was just made, or took from it; until then the directory's 0700 protects it.
    fn make_private(&self, name: &str) -> io::Result<()> {
        Ok(fchmodat(&self.directory, name, PRIVATE, FchmodatFlags::FollowSymlink)?)
    }

    /// Empties the directory but for the lock: what a killed supervisor left.
    ///
    /// # Errors
    /// There is something in it that is not vmrun's, and nothing was removed; or of the file system.
    pub fn clear(&self) -> Result<(), DirError> {
        // left by a supervisor that was killed in a moment (see `nowhere`); not removed if anything is in it
        let _ = own::remove_empty(&self.directory, names::EMPTY.as_ref());
        own::empty(&self.directory, Holds::Run, &[names::LOCK, names::MARK])
    }

    /// Removes everything, then gives the name back.
    ///
    /// # Errors
    /// As of [`RunDir::clear`]; the name is given back all the same.
    pub fn remove_all(self) -> Result<(), DirError> {
        self.clear()?;
        let name = self.name.as_str();
        if !self.root.is_entry(name, &self.directory) {
            // somebody has moved it: not ours any more
            return Ok(());
        }
        let io = |source| DirError::Io { action: "remove", path: self.directory.path().to_owned(), source };
        let part = part();
        // from here on the name is free, and whoever comes next makes a directory of his own
        renameat(&self.root, name, &self.root, part.as_str()).map_err(|errno| io(errno.into()))?;
        dissolve(&self.root, &part, &self.directory).map_err(io)
    }

    /// As [`RunDir::remove_all`], where there is nobody to tell: it is logged if something stays.
    pub fn discard(self) {
        if let Err(error) = self.remove_all() {
            warn_of(&error);
        }
    }
}

/// Says that something stays where it is, and what to do about it.
pub fn warn_of(error: &DirError) {
    let source = std::error::Error::source(error).map(|why| format!(": {why}")).unwrap_or_default();
    match error.hint() {
        Some(hint) => log::warn!(target: HINTED, "{error}{source}\nhint: {hint}"),
        None => log::warn!("{error}{source}"),
    }
}

/// Takes the lock of a run directory that is there, if it is vmrun's.
fn attempt_on(root: &Directory, name: &str) -> Result<Attempt, DirError> {
    let directory = match Directory::open_in(root, name, Privacy::Private) {
        Err(DirError::Missing { .. }) => return Ok(Attempt::Missing),
        other => other?,
    };
    let marked = own::bears_mark(&directory);
    // its last holder may have removed it since we opened it
    if !root.is_entry(name, &directory) {
        return Ok(Attempt::Missing);
    }
    if !marked {
        return Err(DirError::NotOurs { path: directory.path().to_owned() });
    }
    let io = |source| DirError::Io { action: "lock", path: directory.path().join(names::LOCK), source };
    let lock = match directory.open_file(names::LOCK, OFlag::O_RDWR) {
        // removed just now; or by somebody's hand, if the directory is still in its place
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !root.is_entry(name, &directory) {
                return Ok(Attempt::Missing);
            }
            directory.open_file(names::LOCK, OFlag::O_RDWR | OFlag::O_CREAT).map_err(io)?
        }
        other => other.map_err(io)?,
    };
    let held = sys::try_lock(&lock).map_err(io)?;
    match held && directory.is_entry(names::LOCK, &lock) && root.is_entry(name, &directory) {
        true => Ok(Attempt::Taken(directory, lock)),
        false => Ok(Attempt::Held),
    }
}

/// Makes a run directory under another name, with its lock held and marked as vmrun's, and only then gives it its own: there never is one
/// that is half made. None if somebody else was faster.
fn make_in(root: &Directory, name: &str) -> Result<Option<(Directory, File)>, DirError> {
    let part = part();
    let directory = match Directory::create_in(root, &part, Privacy::Private) {
        // swept away as what a killed process had left
        Err(DirError::Missing { path }) if path != root.path() => return Ok(None),
        other => other?,
    };
    let fill = || {
        let lock = directory.open_file(names::LOCK, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)?;
        let held = sys::try_lock(&lock)?;
        own::mark(&directory)?;
        Ok((held, lock))
    };
    let filled = match fill() {
        Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => return Ok(None),
        Ok((true, lock)) => match renameat(root, part.as_str(), root, name) {
            Ok(()) => Ok(lock),
            Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => Err(None),
            Err(errno) => Err(Some(errno.into())),
        },
        Ok((false, _)) => Err(None),
        Err(error) => Err(Some(error)),
    };
    match filled {
        Ok(lock) => Ok(Some((directory.renamed(root.path().join(name)), lock))),
        Err(failed) => {
            let _ = dissolve(root, &part, &directory);
            let path = root.path().join(name);
            failed.map_or(Ok(None), |source| Err(DirError::Io { action: "create", path, source }))
        }
    }
}

/// What a run directory is called while it is made or removed.
fn part() -> String {
    format!("{PART}{}-{:08x}", std::process::id(), rand::random::<u32>())
}

/// Removes a run directory in which only lock and mark are left.
fn dissolve(root: &Directory, part: &str, directory: &Directory) -> io::Result<()> {
    own::remove(directory, names::LOCK.as_ref())?;
    own::remove(directory, names::MARK.as_ref())?;
    own::remove_empty(root, part.as_ref())
}

/// The same for one whose process was killed.
fn dissolve_part(root: &Directory, part: &str) {
    // one that was only just made
    if own::remove_empty(root, part.as_ref()).is_err() {
        return;
    }
    let Ok(directory) = Directory::open_in(root, part, Privacy::Private) else { return };
    // who makes or removes it has the lock, and the mark comes after that and goes after it
    let lock = directory.open_file(names::LOCK, OFlag::O_RDWR);
    let held = lock.as_ref().is_ok_and(|lock| sys::try_lock(lock).is_ok_and(|free| !free));
    if own::bears_mark(&directory)
        && !held
        && own::empty(&directory, Holds::Run, &[names::LOCK, names::MARK]).is_ok()
    {
        let _ = dissolve(root, part, &directory);
    }
}

fn open_root(root: &Path) -> io::Result<Option<Directory>> {
    match Directory::open(root, Privacy::ReadableByOthers) {
        Ok(root) => Ok(Some(root)),
        Err(DirError::Missing { .. }) => Ok(None),
        Err(DirError::Io { source, .. }) => Err(source),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// The run directories in the folder of these, and what is named as one could be and is none.
fn named_as_vms(root: &Directory) -> io::Result<(Vec<VmName>, Vec<PathBuf>)> {
    let (mut names, mut strangers) = (Vec::new(), Vec::new());
    for entry in own::entries(root)? {
        let Some(name) = entry.to_str().and_then(|name| name.parse::<VmName>().ok()) else { continue };
        match Directory::open_in(root, name.as_str(), Privacy::Private) {
            Ok(directory) if own::bears_mark(&directory) => names.push(name),
            Ok(directory) if root.is_entry(name.as_str(), &directory) => {
                strangers.push(directory.path().to_owned());
            }
            Err(DirError::Foreign { path, .. } | DirError::Open { path, .. }) => strangers.push(path),
            _ => {}
        }
    }
    Ok((names, strangers))
}

/// Someone else's view of a run directory: to connect and to read. See [`Directory`].
#[derive(Debug)]
pub struct RunClient {
    directory: Directory,
    run: Option<RunId>,
}

impl Deref for RunClient {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        &self.directory
    }
}

impl RunClient {
    /// Opens `<root>/<name>/`.
    ///
    /// # Errors
    /// [`DirError::Missing`] if there is no such VM; else why the directory is not to be trusted.
    pub fn open(root: &Path, name: &VmName) -> Result<Self, DirError> {
        let root = Directory::open(root, Privacy::ReadableByOthers)?;
        let directory = Directory::open_in(&root, name.as_str(), Privacy::Private)?;
        match own::bears_mark(&directory) {
            true => {
                let run = directory.run_id();
                Ok(Self { directory, run })
            }
            false if root.is_entry(name.as_str(), &directory) => {
                Err(DirError::NotOurs { path: directory.path().to_owned() })
            }
            // removed just now
            false => Err(DirError::Missing { path: directory.path().to_owned() }),
        }
    }

    /// The run whose directory it was when it was opened; none where that was not written down yet.
    pub fn run(&self) -> Option<&RunId> {
        self.run.as_ref()
    }

    /// Whether its VM's supervisor is alive. Looks without changing anything.
    pub fn liveness(&self) -> Liveness {
        let lock = self.open_file(names::LOCK, OFlag::O_RDWR);
        let held = lock.is_ok_and(|lock| sys::try_lock(&lock).is_ok_and(|free| !free));
        if held { Liveness::Alive } else { Liveness::Free }
    }

    /// The process of its VM's supervisor, if the system tells: the one that holds the lock.
    pub fn supervisor(&self) -> Option<i32> {
        holder(&self.open_file(names::LOCK, OFlag::O_RDWR).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{Read, Write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use crate::host::dirs::PipeEnd;

    fn name(text: &str) -> VmName {
        text.parse().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_name_is_taken_until_its_directory_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let vm = name("web");
        assert_eq!(RunDir::probe(root.path(), &vm), Liveness::Free);
        let first = RunDir::create(root.path(), &vm).unwrap();
        assert_eq!(mode(first.path()), 0o700);
        assert_eq!(RunDir::probe(root.path(), &vm), Liveness::Alive);
        assert!(matches!(RunDir::create(root.path(), &vm), Err(DirError::Taken { name }) if name == "web"));
        first.write("vm.json", b"{}").unwrap();
        first.remove_all().unwrap();
        assert!(RunDir::list(root.path()).unwrap().is_empty());
        RunDir::create(root.path(), &vm).unwrap();
    }

    #[test]
    fn what_a_killed_supervisor_left_is_taken_over() {
        let root = tempfile::tempdir().unwrap();
        let vm = name("web");
        let killed = RunDir::create(root.path(), &vm).unwrap();
        killed.write("vm.json", b"old").unwrap();
        drop(killed);
        assert_eq!(RunDir::probe(root.path(), &vm), Liveness::Free);
        assert_eq!(RunDir::list(root.path()).unwrap(), std::slice::from_ref(&vm));
        let heir = RunDir::create(root.path(), &vm).unwrap();
        assert_eq!(heir.read("vm.json").unwrap(), b"old");
        heir.clear().unwrap();
        assert_eq!(heir.read("vm.json").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(RunDir::probe(root.path(), &vm), Liveness::Alive);
    }

    #[test]
    fn sockets_work_under_long_paths() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("x".repeat(200));
        Directory::create(&root, Privacy::Private).unwrap();
        let run = RunDir::create(&root, &name("a")).unwrap();
        for _ in 0..2 {
            let listener = run.bind(names::CONTROL).unwrap();
            assert_eq!(mode(&run.path().join(names::CONTROL)), 0o600);
            let client = RunClient::open(&root, &name("a")).unwrap();
            client.connect(names::CONTROL).unwrap().write_all(b"hello").unwrap();
            let mut text = String::new();
            listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
    }

    #[test]
    fn pipes_replace_what_was_there_and_are_opened_without_waiting() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), &name("a")).unwrap();
        fs::write(root.path().join("secret"), "s").unwrap();
        symlink("../secret", run.path().join(names::SERIAL_OUT)).unwrap();
        for _ in 0..2 {
            run.make_pipe(names::SERIAL_OUT).unwrap();
            assert_eq!(mode(&run.path().join(names::SERIAL_OUT)), 0o600);
            let nobody_reads = run.open_pipe(names::SERIAL_OUT, PipeEnd::Write).unwrap_err();
            assert_eq!(nobody_reads.raw_os_error(), Some(Errno::ENXIO as i32));
            let mut reads = run.open_pipe(names::SERIAL_OUT, PipeEnd::Read).unwrap();
            let mut writes = run.open_pipe(names::SERIAL_OUT, PipeEnd::Write).unwrap();
            writes.write_all(b"hello").unwrap();
            drop(writes);
            let mut text = String::new();
            reads.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
        let mut endless = run.open_pipe(names::SERIAL_OUT, PipeEnd::Both).unwrap();
        let nothing_yet = endless.read(&mut [0]).unwrap_err();
        assert_eq!(nothing_yet.kind(), io::ErrorKind::WouldBlock);
        symlink("../secret", run.path().join("link")).unwrap();
        assert!(run.open_pipe("link", PipeEnd::Read).is_err());
        assert_eq!(fs::read(root.path().join("secret")).unwrap(), b"s");
    }

    #[test]
    fn files_are_private_and_replaced_in_one_step() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), &name("a")).unwrap();
        run.write(names::VM, b"one").unwrap();
        run.write(names::VM, b"two").unwrap();
        assert_eq!(run.read(names::VM).unwrap(), b"two");
        assert_eq!(mode(&run.path().join(names::VM)), 0o600);
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 3, "with lock and mark");
        fs::write(root.path().join("secret"), "s").unwrap();
        symlink("../secret", run.path().join("link")).unwrap();
        assert!(run.read("link").is_err());
    }

    #[test]
    fn what_others_could_have_prepared_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("open")).unwrap();
        fs::set_permissions(root.path().join("open"), fs::Permissions::from_mode(0o750)).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        symlink("/tmp", root.path().join("link")).unwrap();
        let error = |vm: &str| RunDir::create(root.path(), &name(vm)).unwrap_err();
        assert!(matches!(error("open"), DirError::Open { mode: 0o750, .. }));
        assert!(matches!(error("file"), DirError::NotADirectory { .. }));
        assert!(matches!(error("link"), DirError::Symlink { .. }));
        fs::set_permissions(root.path().join("open"), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(matches!(error("open"), DirError::NotOurs { .. }), "vmrun has not made it");
    }

    #[test]
    fn what_is_not_vmruns_stays_with_all_that_is_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let vm = name("web");
        let run = RunDir::create(root.path(), &vm).unwrap();
        run.write(names::VM, b"{}").unwrap();
        fs::write(run.path().join("thesis.txt"), "x").unwrap();
        let path = run.path().to_owned();
        assert!(matches!(run.remove_all(), Err(DirError::Stranger { name, .. }) if name == "thesis.txt"));
        for left in ["thesis.txt", names::VM, names::LOCK, names::MARK] {
            assert!(path.join(left).exists(), "{left}");
        }
        fs::remove_file(path.join("thesis.txt")).unwrap();
        RunDir::take(root.path(), &vm).unwrap().unwrap().remove_all().unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        assert!(RunDir::take(root.path(), &vm).unwrap().is_none());
        // a folder of somebody else's is no run directory
        let folder = root.path().join("proj");
        Directory::create(&folder, Privacy::Private).unwrap();
        fs::write(folder.join(names::LOCK), "a file of the user's").unwrap();
        assert!(RunDir::list(root.path()).unwrap().is_empty());
        assert!(matches!(RunClient::open(root.path(), &name("proj")), Err(DirError::NotOurs { .. })));
        assert!(matches!(RunDir::take(root.path(), &name("proj")), Err(DirError::NotOurs { .. })));
        assert_eq!(RunDir::tidy(root.path()).unwrap(), [folder]);
    }

    #[test]
    fn what_was_half_made_goes() {
        let root = tempfile::tempdir().unwrap();
        let parts: Vec<_> =
            (0..4).map(|number| root.path().join(format!("{PART}1-0000000{number}"))).collect();
        let made: Vec<_> =
            parts.iter().map(|path| Directory::create(path, Privacy::Private).unwrap()).collect();
        let lock = made[1].create_new(names::LOCK).unwrap();
        own::mark(&made[1]).unwrap();
        own::mark(&made[2]).unwrap();
        made[3].create_new("thesis.txt").unwrap();
        own::mark(&made[3]).unwrap();
        assert!(sys::try_lock(&lock).unwrap());
        let left = || parts.iter().map(|path| path.exists()).collect::<Vec<_>>();
        RunDir::tidy(root.path()).unwrap();
        assert_eq!(left(), [false, true, false, true], "somebody is at work in the second");
        drop(lock);
        RunDir::tidy(root.path()).unwrap();
        assert_eq!(left(), [false, false, false, true]);
    }

    #[test]
    fn many_racers_hold_a_name_one_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let inside = std::sync::atomic::AtomicU32::new(0);
        let won = std::sync::atomic::AtomicU32::new(0);
        let order = std::sync::atomic::Ordering::SeqCst;
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..40 {
                        RunDir::probe(root.path(), &name("a"));
                        match RunDir::create(root.path(), &name("a")) {
                            Ok(run) => {
                                assert_eq!(inside.fetch_add(1, order), 0);
                                run.write(names::VM, b"x").unwrap();
                                won.fetch_add(1, order);
                                inside.fetch_sub(1, order);
                                run.remove_all().unwrap();
                            }
                            Err(DirError::Taken { .. }) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                });
            }
        });
        assert!(won.into_inner() > 0);
    }
}
