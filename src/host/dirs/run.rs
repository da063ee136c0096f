//! The run directory of one VM. Whoever holds its lock owns it; a held lock means a living supervisor.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{UnlinkatFlags, mkfifoat, unlinkat};

use super::directory::{Directory, Privacy};
use super::holder::holder;
use super::{DirError, names};
use crate::host::sys;
use crate::spec::VmName;

/// The mode of sockets and pipes: 0600.
const PRIVATE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);
/// How often a lock is tried before it counts as taken: [`RunDir::probe`] of another process holds it for microseconds,
/// and a directory can vanish under our hands when its VM ends.
const ATTEMPTS: u32 = 10;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(10);

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

impl RunDir {
    /// Makes `<root>/<name>/` (or takes over what a killed supervisor left) and locks it. `root` is that of
    /// [`runtime_root`](super::runtime_root).
    ///
    /// # Errors
    /// [`DirError::Taken`] while another supervisor has the name; else why the directory cannot be used.
    pub fn create(root: &Path, name: &VmName) -> Result<Self, DirError> {
        let path = root.join(name.as_str());
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                thread::sleep(BETWEEN_ATTEMPTS);
            }
            let directory = Directory::create(&path, Privacy::Private);
            let directory = match directory {
                // the last VM of this name ended between two of our steps
                Err(DirError::Missing { path: missing }) if missing == path => continue,
                other => other?,
            };
            let io = |source| DirError::Io { action: "lock", path: path.join(names::LOCK), source };
            let lock = match directory.open_file(names::LOCK, OFlag::O_RDWR | OFlag::O_CREAT) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(io)?,
            };
            let held = sys::try_lock(&lock).map_err(io)?;
            // its last holder may have removed both since we opened them
            if held && directory.is_in_place() && directory.is_entry(names::LOCK, &lock) {
                return Ok(Self { name: name.clone(), directory, _lock: lock });
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
        let entries = match std::fs::read_dir(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_str().and_then(|name| name.parse().ok());
            names.extend(name.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())));
        }
        names.sort_by(|a: &VmName, b| a.as_str().cmp(b.as_str()));
        Ok(names)
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
    /// Of the file system, or when there is a directory in it (which is not ours to remove).
    pub fn clear(&self) -> io::Result<()> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut entries = Dir::openat(&self.directory, ".", flags, Mode::empty())?;
        for entry in entries.iter() {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b".." | b"lock") {
                unlinkat(&self.directory, entry.file_name(), UnlinkatFlags::NoRemoveDir)?;
            }
        }
        Ok(())
    }

    /// Removes everything, then gives the name back.
    ///
    /// # Errors
    /// Of the file system; the name is given back all the same.
    pub fn remove_all(self) -> io::Result<()> {
        self.clear()?;
        self.unlink(names::LOCK)?;
        match std::fs::remove_dir(self.path()) {
            // someone who waits for the name made a new lock file: the directory is theirs now
            Err(error) if error.raw_os_error() == Some(Errno::ENOTEMPTY as i32) => Ok(()),
            // and may have had a whole life with it by now
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Someone else's view of a run directory: to connect and to read. See [`Directory`].
#[derive(Debug)]
pub struct RunClient {
    directory: Directory,
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
        Ok(Self { directory: Directory::open(&root.join(name.as_str()), Privacy::Private)? })
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
        fs::create_dir(&root).unwrap();
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
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 2);
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
