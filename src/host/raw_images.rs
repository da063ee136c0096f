//! Which images have once been opened as raw. They stay raw: what their bytes look like may be the guest's work.
//!
//! The memory belongs to the image, not to a VM: a file for each image in `formats/` of the user's store, named after the image's
//! identity, and an extended attribute on the image, which goes along with it to other users and other machines. Either is enough.
//! Neither can say anything but "raw": a user who can set the attribute of an image can at most have it opened as bytes.
//!
//! A file each, not one list: hundreds of VMs that start at once need no lock, and nothing that is damaged loses the others.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;
use xattr::FileExt;

use super::dirs::{Directory, StoreEnvironment, StoreError, existing_user_store, user_store};
use super::image::ImageIdentity;

/// The attribute on an image. Of its values only [`RAW`] counts.
const ATTRIBUTE: &str = "user.vmrun.format";
const RAW: &[u8] = b"raw";
/// The folder in the user's store.
const FOLDER: &str = "formats";
/// As many images are remembered at most: at 4 KiB each, no more than a small image needs.
const MAX_IMAGES: usize = 10_000;
/// So many of the oldest are looked at for one whose image is gone, before the very oldest has to go.
const CANDIDATES: usize = 64;

/// Whether the guest can write to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestAccess {
    /// It can put a header of any format there.
    Writes,
    /// It cannot: not remembering the image does no harm.
    Reads,
}

/// Why an image that the guest can write to could not be remembered as raw.
#[derive(Debug, Error)]
#[error("{store}; and extended attributes of the image cannot be set ({attribute})")]
pub struct NotRemembered {
    /// Why the user's store did not take it.
    pub store: StoreError,
    /// Why the image did not.
    pub attribute: io::Error,
}

/// The images that are known to be raw.
#[derive(Debug)]
pub struct RawImages {
    environment: StoreEnvironment,
    limit: usize,
}

impl RawImages {
    /// Those that a user's store and the images themselves know of. Nothing is made.
    pub fn new(environment: StoreEnvironment) -> Self {
        Self { environment, limit: MAX_IMAGES }
    }

    /// Whether an image was once opened as raw. `file` is the image, opened in any way; `path` leads to it.
    ///
    /// # Errors
    /// The image does not say so itself, and the user's store cannot be looked into.
    pub fn knows(&self, file: &File, identity: &ImageIdentity, path: &Path) -> Result<bool, StoreError> {
        if is_marked(file) {
            return Ok(true);
        }
        let Some(folder) = self.existing()? else { return Ok(false) };
        for name in names(identity, path) {
            if folder.age_rank(name.as_ref()).map_err(unreadable(&folder))?.is_some() {
                // at worst it goes sooner
                let _ = folder.touch(&name);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Remembers an image as raw. An image that the guest only reads is not touched.
    ///
    /// # Errors
    /// The guest can write to it, and neither the store nor the attribute can be written.
    pub fn remember(&self, file: &File, path: &Path, access: GuestAccess) -> Result<(), NotRemembered> {
        // first: it can be this that makes an image a file of its own (overlayfs)
        let attribute = match access {
            GuestAccess::Writes => mark(file),
            GuestAccess::Reads => Ok(()),
        };
        match (self.write_down(file, path), attribute) {
            (Ok(()), _) => Ok(()),
            (Err(store), Ok(())) => {
                log::debug!("{} is not in the user's store: {store}", path.display());
                Ok(())
            }
            (Err(store), Err(attribute)) => Err(NotRemembered { store, attribute }),
        }
    }

    /// Forgets an image, since the user says that it is something else now.
    ///
    /// # Errors
    /// It will still be known to be raw.
    pub fn forget(&self, file: &File, identity: &ImageIdentity, path: &Path) -> io::Result<()> {
        if let Some(folder) = self.existing().map_err(io::Error::other)? {
            names(identity, path).iter().try_for_each(|name| folder.unlink(name))?;
        }
        match is_marked(file) {
            true => file.remove_xattr(ATTRIBUTE),
            false => Ok(()),
        }
    }

    fn existing(&self) -> Result<Option<Directory>, StoreError> {
        let Some(store) = existing_user_store(&self.environment)? else { return Ok(None) };
        Ok(store.existing_subdirectory(FOLDER)?)
    }

    fn write_down(&self, file: &File, path: &Path) -> Result<(), StoreError> {
        let folder = user_store(&self.environment)?.subdirectory(FOLDER)?;
        let io = unreadable(&folder);
        let real = path.canonicalize().map_err(io)?;
        let mut text = b"raw\n".to_vec();
        text.extend_from_slice(real.as_os_str().as_bytes());
        text.push(b'\n');
        // what is open, should its name lead elsewhere by now; and what the name leads to, should opening it to write have made that a
        // file of its own (overlayfs)
        let opened = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let mut entries = Vec::new();
        for image in [&opened, &real] {
            let identity = ImageIdentity::of(image).map_err(|error| io(io::Error::other(error)))?;
            entries.extend(names(&identity, &real));
        }
        entries.dedup();
        for name in entries {
            if folder.age_rank(name.as_ref()).map_err(io)?.is_none() {
                make_room(&folder, self.limit).map_err(io)?;
                folder.write_for_now(&name, &text).and_then(|()| folder.sync(&name)).map_err(io)?;
            }
        }
        Ok(())
    }
}

fn unreadable(folder: &Directory) -> impl Fn(io::Error) -> StoreError + Copy + use<'_> {
    |source| {
        let path = folder.path().to_owned();
        StoreError::Unusable(super::dirs::DirError::Io { action: "use", path, source })
    }
}

/// Whether the image itself says that it is raw. One that cannot be asked does not say so.
fn is_marked(file: &File) -> bool {
    file.get_xattr(ATTRIBUTE).ok().flatten().is_some_and(|value| value == RAW)
}

fn mark(file: &File) -> io::Result<()> {
    if is_marked(file) { Ok(()) } else { file.set_xattr(ATTRIBUTE, RAW) }
}

/// What an image's entries are called. Where a file system knows no births its number tells an image only until it is mounted anew:
/// there the path counts as well.
fn names(identity: &ImageIdentity, path: &Path) -> Vec<String> {
    let text = identity.as_str();
    let mut names = vec![file_name(text)];
    if let Some((inode, _)) = text.split_once(" device ") {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let hash = Sha256::digest(real.as_os_str().as_bytes());
        let hash: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        names.push(file_name(&format!("{inode} at {hash}")));
    }
    names
}

/// Two texts with the same name would be one image, and raw: harmless.
fn file_name(text: &str) -> String {
    const LONGEST: usize = 200;
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' };
    text.chars().rev().take(LONGEST).map(plain).collect::<Vec<_>>().into_iter().rev().collect()
}

/// Lets the oldest entry go if there are too many, rather one whose image is gone.
fn make_room(folder: &Directory, limit: usize) -> io::Result<()> {
    let names = folder.names()?;
    let Some(surplus) = (names.len() + 1).checked_sub(limit).filter(|surplus| *surplus > 0) else {
        return Ok(());
    };
    let mut ages = Vec::new();
    for name in names {
        if let Some(rank) = folder.age_rank(&name)? {
            ages.push((rank, name));
        }
    }
    ages.sort();
    for _ in 0..surplus {
        let gone = ages.iter().take(CANDIDATES).position(|(_, name)| is_gone(folder, name));
        if ages.is_empty() {
            break;
        }
        let (_, name) = ages.remove(gone.unwrap_or(0));
        folder.unlink(&name.to_string_lossy())?;
    }
    Ok(())
}

/// Whether the image of an entry is not where it was any more.
fn is_gone(folder: &Directory, name: &std::ffi::OsStr) -> bool {
    let Ok(text) = folder.read(&name.to_string_lossy()) else { return false };
    let Some(path) = text.strip_prefix(b"raw\n").and_then(|rest| rest.strip_suffix(b"\n")) else {
        return true;
    };
    let path = PathBuf::from(std::ffi::OsString::from_vec(path.to_owned()));
    !ImageIdentity::of(&path).is_ok_and(|there| names(&there, &path).iter().any(|own| name == own.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::FileExt as _;
    use std::time::{Duration, SystemTime};

    struct Fixture {
        root: tempfile::TempDir,
        raw: RawImages,
    }

    impl Fixture {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let raw = RawImages::new(StoreEnvironment::from_env_or(Some(&root.path().join("state"))));
            Self { root, raw }
        }

        fn image(&self, name: &str) -> PathBuf {
            let path = self.root.path().join(name);
            fs::write(&path, "raw").unwrap();
            path
        }

        fn knows(&self, path: &Path) -> bool {
            let (file, identity) = (File::open(path).unwrap(), ImageIdentity::of(path).unwrap());
            self.raw.knows(&file, &identity, path).unwrap()
        }

        fn remember(&self, path: &Path, access: GuestAccess) {
            self.raw.remember(&File::open(path).unwrap(), path, access).unwrap();
        }

        fn folder(&self) -> PathBuf {
            self.root.path().join("state/vmrun/formats")
        }

        fn entries(&self) -> usize {
            fs::read_dir(self.folder()).unwrap().count()
        }
    }

    /// Makes an entry look as if it had been used last so long ago.
    fn age(path: &Path, hours: u64) {
        let time = SystemTime::now() - Duration::from_secs(hours * 3600);
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn the_memory_is_the_images() {
        let fixture = Fixture::new();
        let image = fixture.image("disk");
        assert!(!fixture.knows(&image) && !fixture.root.path().join("state").exists());
        fixture.remember(&image, GuestAccess::Reads);
        assert!(fixture.knows(&image));
        assert_eq!(File::open(&image).unwrap().get_xattr(ATTRIBUTE).unwrap(), None);
        // whatever it is called, and whatever is in it
        let moved = fixture.root.path().join("moved");
        fs::rename(&image, &moved).unwrap();
        File::options().write(true).open(&moved).unwrap().write_all_at(b"QFI\xfb", 0).unwrap();
        assert!(fixture.knows(&moved));
        // another file under its name is another image
        fixture.image("disk");
        assert!(!fixture.knows(&image));
    }

    #[test]
    fn the_attribute_alone_is_enough_and_says_nothing_but_raw() {
        let fixture = Fixture::new();
        let image = fixture.image("disk");
        fixture.remember(&image, GuestAccess::Writes);
        assert_eq!(xattr::get(&image, ATTRIBUTE).unwrap().as_deref(), Some(RAW));
        fs::remove_dir_all(fixture.root.path().join("state")).unwrap();
        assert!(fixture.knows(&image));
        for (number, other) in ["qcow2", "", "raw\n", "RAW"].into_iter().enumerate() {
            let image = fixture.image(&number.to_string());
            xattr::set(&image, ATTRIBUTE, other.as_bytes()).unwrap();
            assert!(!fixture.knows(&image), "{other:?}");
            // and it takes nothing away
            fixture.remember(&image, GuestAccess::Reads);
            assert!(fixture.knows(&image), "{other:?}");
        }
    }

    #[test]
    fn what_is_said_anew_is_forgotten_in_both_places() {
        let fixture = Fixture::new();
        let image = fixture.image("disk");
        fixture.remember(&image, GuestAccess::Writes);
        let (file, identity) = (File::open(&image).unwrap(), ImageIdentity::of(&image).unwrap());
        fixture.raw.forget(&file, &identity, &image).unwrap();
        assert!(!fixture.knows(&image));
        fixture.raw.forget(&file, &identity, &image).unwrap();
    }

    #[test]
    fn the_oldest_goes_and_never_all() {
        let mut fixture = Fixture::new();
        fixture.raw.limit = 3;
        let entry_of = |path: &Path| file_name(ImageIdentity::of(path).unwrap().as_str());
        let images: Vec<PathBuf> = ["a", "b", "c"].map(|name| fixture.image(name)).into();
        for (image, hours) in images.iter().zip([50, 40, 30]) {
            fixture.remember(image, GuestAccess::Reads);
            age(&fixture.folder().join(entry_of(image)), hours);
        }
        // one whose image is gone goes first
        let gone = images[1].clone();
        fs::rename(&gone, fixture.root.path().join("elsewhere")).unwrap();
        let d = fixture.image("d");
        fixture.remember(&d, GuestAccess::Reads);
        assert!(fixture.knows(&images[0]) && fixture.knows(&images[2]) && fixture.knows(&d));
        assert_eq!(fixture.entries(), 3);
        // to be known made the first two new again, on either side of the last
        age(&fixture.folder().join(entry_of(&images[2])), 100);
        let e = fixture.image("e");
        fixture.remember(&e, GuestAccess::Reads);
        assert!(fixture.knows(&images[0]) && !fixture.knows(&images[2]) && fixture.knows(&e));
        assert_eq!(fixture.entries(), 3);
    }

    #[test]
    fn many_at_once_lose_nothing() {
        let fixture = Fixture::new();
        let images: Vec<PathBuf> = (0..64).map(|number| fixture.image(&number.to_string())).collect();
        std::thread::scope(|scope| {
            for image in &images {
                scope.spawn(|| fixture.remember(image, GuestAccess::Reads));
            }
        });
        assert!(images.iter().all(|image| fixture.knows(image)));
        assert_eq!(fixture.entries(), images.len());
    }

    #[test]
    fn a_damaged_entry_still_counts() {
        let fixture = Fixture::new();
        let image = fixture.image("disk");
        fixture.remember(&image, GuestAccess::Reads);
        let entry = fs::read_dir(fixture.folder()).unwrap().next().unwrap().unwrap().path();
        assert_eq!(fs::read(&entry).unwrap(), format!("raw\n{}\n", image.display()).into_bytes());
        fs::write(&entry, "").unwrap();
        assert!(fixture.knows(&image));
    }

    #[test]
    fn without_a_store_the_image_remembers() {
        let fixture = Fixture::new();
        let image = fixture.image("disk");
        let nowhere = RawImages::new(StoreEnvironment::default());
        let file = File::open(&image).unwrap();
        nowhere.remember(&file, &image, GuestAccess::Reads).unwrap();
        assert!(!nowhere.knows(&file, &ImageIdentity::of(&image).unwrap(), &image).unwrap());
        nowhere.remember(&file, &image, GuestAccess::Writes).unwrap();
        assert!(nowhere.knows(&file, &ImageIdentity::of(&image).unwrap(), &image).unwrap());
    }

    #[test]
    fn a_store_that_cannot_be_trusted_is_an_error_and_not_no_memory() {
        use std::os::unix::fs::PermissionsExt;
        let fixture = Fixture::new();
        let image = fixture.image("disk");
        fixture.remember(&image, GuestAccess::Reads);
        let store = fixture.root.path().join("state/vmrun");
        fs::set_permissions(&store, fs::Permissions::from_mode(0o777)).unwrap();
        let (file, identity) = (File::open(&image).unwrap(), ImageIdentity::of(&image).unwrap());
        fixture.raw.knows(&file, &identity, &image).unwrap_err();
    }

    #[test]
    fn a_file_system_without_births_goes_by_the_path_too() {
        let fixture = Fixture::new();
        let path = fixture.image("disk");
        let names = |text: &str| names(&ImageIdentity::from_text(text), &path);
        let (before, after) = (names("inode 5 device 40"), names("inode 5 device 41"));
        assert_eq!(before.len(), 2);
        assert!(before[0] != after[0] && before[1] == after[1]);
        assert_ne!(before[1], names("inode 6 device 40")[1]);
        assert_eq!(names("inode 5 born 17.000000001"), ["inode-5-born-17.000000001"]);
    }
}
