//! The state directory: what must outlive a run of a VM.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::{AtFlags, OFlag};
use nix::unistd::{AccessFlags, faccessat};
use uuid::Uuid;

use super::directory::{Directory, Privacy};
use super::formats::Formats;
use super::{DirError, names};
use crate::host::image::ImageIdentity;
use crate::host::sys;
use crate::spec::{DeviceId, ImageFormat, MacAddress};

/// The network card's address, as linuxkit calls it.
const MAC_FILE: &str = "mac-addr";
/// QEMU's process, as linuxkit has QEMU write it down.
pub(super) const PID_FILE: &str = "qemu.pid";
const UUID_FILE: &str = "uuid";
const FORMATS_FILE: &str = "formats.json";

/// A state directory that is ours while we run. Reading and writing: see [`Directory`].
#[derive(Debug)]
pub struct StateDir {
    directory: Directory,
    lock: File,
    /// What [`Self::settle`] will write, by the files' names; none = everything is written at once.
    held: Mutex<Option<BTreeMap<String, Vec<u8>>>>,
}

impl Deref for StateDir {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        &self.directory
    }
}

impl StateDir {
    /// Opens (or makes, but not its parents) a state directory and locks it.
    ///
    /// # Errors
    /// It is a symlink, a file, not writable, someone else's, writable by others, or another VM's at this moment.
    pub fn open(path: &Path) -> Result<Self, DirError> {
        let absolute = std::path::absolute(path);
        let path =
            absolute.map_err(|source| DirError::Io { action: "find", path: path.to_owned(), source })?;
        Self::locked(Directory::create(&path, Privacy::ReadableByOthers)?)
    }

    /// Locks an open directory.
    pub(super) fn locked(directory: Directory) -> Result<Self, DirError> {
        let path = directory.path().to_owned();
        if faccessat(&directory, ".", AccessFlags::W_OK, AtFlags::AT_EACCESS).is_err() {
            return Err(DirError::NotWritable { path });
        }
        let io = |source| DirError::Io { action: "lock", path: path.join(names::LOCK), source };
        let lock = directory.open_file(names::LOCK, OFlag::O_RDWR | OFlag::O_CREAT).map_err(io)?;
        if sys::try_lock(&lock).map_err(io)? {
            Ok(Self { directory, lock, held: Mutex::default() })
        } else {
            Err(DirError::InUse { path })
        }
    }

    /// The same for one that is there; none if it is not.
    ///
    /// # Errors
    /// As of [`StateDir::open`].
    pub fn existing(path: &Path) -> Result<Option<Self>, DirError> {
        match Directory::open(path, Privacy::ReadableByOthers) {
            Ok(directory) => Self::locked(directory).map(Some),
            Err(DirError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps addresses and formats that are new in memory until [`Self::settle`]: a disk can take a tenth of a second and more
    /// to have something for good, in which a start need not wait, and what never starts writes nothing.
    pub fn hold(&self) {
        self.held().get_or_insert_default();
    }

    /// Writes what was held, for good; from now on nothing is held.
    ///
    /// # Errors
    /// Of the file system.
    pub fn settle(&self) -> Result<(), DirError> {
        let held = self.held().take().unwrap_or_default();
        held.iter().try_for_each(|(name, bytes)| self.write_file(name, bytes))
    }

    fn held(&self) -> MutexGuard<'_, Option<BTreeMap<String, Vec<u8>>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes QEMU's process down.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write_pid(&self, pid: i32) -> Result<(), DirError> {
        self.write_file(PID_FILE, format!("{pid}\n").as_bytes())
    }

    /// Takes it back, once it has ended.
    pub fn remove_pid(&self) {
        let _ = self.unlink(PID_FILE);
    }

    /// Lets another VM have it, although there still are those who read in it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn release(&self) -> io::Result<()> {
        self.lock.unlock()
    }

    /// The address of the network card from the start: the same in every run, made up in the first.
    ///
    /// # Errors
    /// The file does not hold an address, or of the file system.
    pub fn mac(&self) -> Result<MacAddress, DirError> {
        self.mac_in(MAC_FILE)
    }

    /// The address of a card that is plugged, which is the same whenever a card has this id.
    ///
    /// # Errors
    /// As [`Self::mac`].
    pub fn mac_of(&self, card: &DeviceId) -> Result<MacAddress, DirError> {
        self.mac_in(&format!("{MAC_FILE}-{card}"))
    }

    fn mac_in(&self, file: &str) -> Result<MacAddress, DirError> {
        self.kept(file, || MacAddress::from_random(rand::random()))
    }

    /// The machine's UUID: the same in every run, made up in the first. cloud-init takes a machine with another one for a new
    /// machine, which gets new host keys and runs everything once more.
    ///
    /// # Errors
    /// The file does not hold one, or of the file system.
    pub fn uuid(&self) -> Result<Uuid, DirError> {
        self.kept(UUID_FILE, Uuid::new_v4)
    }

    /// Gives the machine this UUID from now on.
    ///
    /// # Errors
    /// Of the file system.
    pub fn set_uuid(&self, uuid: Uuid) -> Result<(), DirError> {
        self.write_file(UUID_FILE, uuid.to_string().as_bytes())
    }

    /// A file of a state directory which is not ours to lock.
    pub fn read_at(path: &Path, name: &str) -> Option<Vec<u8>> {
        Directory::open(path, Privacy::ReadableByOthers).ok()?.read(name).ok()
    }

    /// The UUID that a state directory which is not ours to lock has, for a run that only borrows its identity.
    pub fn uuid_at(path: &Path) -> Option<Uuid> {
        let bytes = Self::read_at(path, UUID_FILE)?;
        std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
    }

    /// The same for the address of the network card from the start.
    pub fn mac_at(path: &Path) -> Option<MacAddress> {
        Self::mac_from(path, MAC_FILE)
    }

    /// The same for the address of another card.
    pub fn mac_of_at(path: &Path, card: &DeviceId) -> Option<MacAddress> {
        Self::mac_from(path, &format!("{MAC_FILE}-{card}"))
    }

    fn mac_from(path: &Path, file: &str) -> Option<MacAddress> {
        let bytes = Self::read_at(path, file)?;
        std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
    }

    /// What a file of one line holds; made up and written down if it is not there.
    fn kept<T>(&self, file: &str, make_up: impl FnOnce() -> T) -> Result<T, DirError>
    where
        T: FromStr<Err: ToString> + ToString,
    {
        if let Some(bytes) = self.read_if_there(file)? {
            let text = String::from_utf8_lossy(&bytes);
            return text.trim().parse().map_err(|why: T::Err| self.damaged(file, why.to_string()));
        }
        let value = make_up();
        self.write_file(file, value.to_string().as_bytes())?;
        Ok(value)
    }

    /// The format that an image was found to have in an earlier run.
    ///
    /// # Errors
    /// The list is damaged, or of the file system.
    pub fn remembered_format(&self, image: &ImageIdentity) -> Result<Option<ImageFormat>, DirError> {
        Ok(self.formats()?.get(image))
    }

    /// Writes down an image's format for all later runs.
    ///
    /// # Errors
    /// The list is damaged, or of the file system.
    pub fn remember_format(&self, image: &ImageIdentity, format: ImageFormat) -> Result<(), DirError> {
        let mut formats = self.formats()?;
        if !formats.set(image, format) {
            return Ok(());
        }
        let json = formats.to_json().map_err(|error| self.damaged(FORMATS_FILE, error.to_string()))?;
        self.write_file(FORMATS_FILE, &json)
    }

    fn formats(&self) -> Result<Formats, DirError> {
        match self.read_if_there(FORMATS_FILE)? {
            None => Ok(Formats::default()),
            Some(bytes) => {
                Formats::parse(&bytes).map_err(|error| self.damaged(FORMATS_FILE, error.to_string()))
            }
        }
    }

    fn read_if_there(&self, name: &str) -> Result<Option<Vec<u8>>, DirError> {
        let held = self.held().as_ref().and_then(|held| held.get(name).cloned());
        if held.is_some() {
            return Ok(held);
        }
        match self.read(name) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DirError::Io { action: "read", path: self.path().join(name), source }),
        }
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), DirError> {
        if let Some(held) = self.held().as_mut() {
            held.insert(name.to_owned(), bytes.to_owned());
            return Ok(());
        }
        let io = |source| DirError::Io { action: "write", path: self.path().join(name), source };
        self.write(name, bytes).map_err(io)
    }

    fn damaged(&self, name: &str, why: String) -> DirError {
        DirError::Damaged { path: self.path().join(name), why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn address_and_uuid_stay_the_same() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("vm-state");
        let first = StateDir::open(&path).unwrap().mac().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(StateDir::open(&path).unwrap().mac().unwrap(), first);
        fs::write(path.join("mac-addr"), "02:00:00:00:00:07\n").unwrap();
        assert_eq!(StateDir::open(&path).unwrap().mac().unwrap().to_string(), "02:00:00:00:00:07");
        let uuid = StateDir::open(&path).unwrap().uuid().unwrap();
        assert_eq!(StateDir::open(&path).unwrap().uuid().unwrap(), uuid);
        assert_eq!(StateDir::uuid_at(&path), Some(uuid));
        StateDir::open(&path).unwrap().set_uuid(Uuid::nil()).unwrap();
        assert_eq!(StateDir::open(&path).unwrap().uuid().unwrap(), Uuid::nil());
        fs::write(path.join("mac-addr"), "nonsense").unwrap();
        let error = StateDir::open(&path).unwrap().mac().unwrap_err();
        assert!(error.to_string().contains("mac-addr is damaged"), "{error}");
    }

    #[test]
    fn one_vm_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s");
        let first = StateDir::open(&path).unwrap();
        assert!(matches!(StateDir::open(&path), Err(DirError::InUse { .. })));
        drop(first);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn what_is_held_counts_at_once_and_is_written_once_settled() {
        let root = tempfile::tempdir().unwrap();
        let image = root.path().join("disk.img");
        fs::write(&image, "raw").unwrap();
        let identity = ImageIdentity::of(&image).unwrap();
        let path = root.path().join("s");
        let state = StateDir::open(&path).unwrap();
        state.hold();
        let mac = state.mac().unwrap();
        state.remember_format(&identity, ImageFormat::Raw).unwrap();
        assert_eq!(state.mac().unwrap(), mac);
        assert_eq!(state.remembered_format(&identity).unwrap(), Some(ImageFormat::Raw));
        let files =
            || fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(files(), ["lock"]);
        state.settle().unwrap();
        drop(state);
        let again = StateDir::open(&path).unwrap();
        assert_eq!(again.mac().unwrap(), mac);
        assert_eq!(again.remembered_format(&identity).unwrap(), Some(ImageFormat::Raw));
    }

    #[test]
    fn a_format_stays_what_it_was_even_if_the_guest_writes_another() {
        let root = tempfile::tempdir().unwrap();
        let image = root.path().join("disk.img");
        fs::write(&image, "raw").unwrap();
        let identity = ImageIdentity::of(&image).unwrap();
        let state = StateDir::open(&root.path().join("s")).unwrap();
        assert_eq!(state.remembered_format(&identity).unwrap(), None);
        state.remember_format(&identity, ImageFormat::Raw).unwrap();
        fs::write(&image, b"QFI\xfb").unwrap();
        let identity = ImageIdentity::of(&image).unwrap();
        assert_eq!(state.remembered_format(&identity).unwrap(), Some(ImageFormat::Raw));
        fs::remove_file(&image).unwrap();
        fs::write(root.path().join("other"), "").unwrap();
        fs::write(&image, "a new one").unwrap();
        assert_eq!(state.remembered_format(&ImageIdentity::of(&image).unwrap()).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_trusted_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("file"), "").unwrap();
        symlink(".", at("link")).unwrap();
        fs::create_dir(at("open")).unwrap();
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o775)).unwrap();
        assert!(matches!(StateDir::open(&at("file")), Err(DirError::NotADirectory { .. })));
        assert!(matches!(StateDir::open(&at("link")), Err(DirError::Symlink { .. })));
        assert!(matches!(StateDir::open(&at("open")), Err(DirError::Open { .. })));
        let error = StateDir::open(&at("no/parents")).unwrap_err();
        assert!(matches!(error, DirError::Missing { path } if path == at("no")));
        // linuxkit makes it 0755
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o755)).unwrap();
        StateDir::open(&at("open")).unwrap();
    }
}
