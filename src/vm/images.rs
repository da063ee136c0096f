//! The one door for images: whatever QEMU is to open passes here first, at the start and while the VM runs.
//!
//! An image's format is given to QEMU explicitly. That an image is raw is found once and remembered ever after ([`RawImages`]): its bytes
//! belong to a guest, and are not looked at again for what they are. Images of other formats have a header that no guest can write.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::unistd::{AccessFlags, access};

use crate::host::HINTED;
use crate::host::dirs::StateDir;
use crate::host::files;
use crate::host::image::{self, BackingError, CreateError, ImageError, ImageFacts, ImageIdentity};
use crate::host::made::{MadeFile, NewFile};
use crate::host::programs::{self, ProgramError, SearchPath};
use crate::host::raw_images::{GuestAccess, RawImages};
use crate::spec::{DiskSpec, FileId, HostFile, Image, ImageFormat, Size};

use super::error::{ChangeError, Why};
use super::image_holder;
use super::inventory::{Inventory, Kind};
use super::open_files::OpenFiles;

/// An image that may be opened.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    /// With all that it leads to; its paths are absolute and UTF-8: what QEMU is told.
    pub(super) image: Image,
    /// What people are told.
    pub(super) shown: String,
    /// Virtual size, where it is simple to know.
    pub(super) size_bytes: Option<u64>,
    /// Which file it is; of an overlay, the image under it. None in a dry run.
    pub(super) identity: Option<FileId>,
    /// We may write to it.
    pub(super) writable: bool,
}

/// What a disk's image is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// The disk itself.
    Disk,
    /// To lie under an overlay: it is only read.
    Below,
}

/// Opens and makes images. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Images(Arc<Inner>, GuestAccess);

#[derive(Debug)]
struct Inner {
    /// Where something may be written; none in a dry run.
    folders: Option<Folders>,
    /// Which images have been opened as raw before, by whatever VM.
    raw: RawImages,
    /// Images that are to be remembered by [`Images::settle`]; none = each is remembered at once.
    held: Mutex<Option<Vec<Raw>>>,
    links: AtomicU32,
}

/// An image that is to be remembered as raw.
#[derive(Debug)]
struct Raw {
    open: File,
    identity: ImageIdentity,
    file: PathBuf,
    access: GuestAccess,
    /// The user said so.
    asked: bool,
}

#[derive(Debug)]
struct Folders {
    /// Where overlays are made, and formats were once remembered.
    state: Arc<StateDir>,
    /// Whether the state directory outlives the VM.
    lasting: bool,
    /// Where links for names that JSON cannot hold are made.
    run: PathBuf,
}

/// What the overlay of an ephemeral VM's disk is called.
pub(super) fn overlay_name(id: &str) -> String {
    format!("overlay-{id}.qcow2")
}

impl Images {
    pub(super) fn new(state: Arc<StateDir>, lasting: bool, run: &Path, raw: RawImages) -> Self {
        let folders = Some(Folders { state, lasting, run: run.to_owned() });
        Self(
            Arc::new(Inner { folders, raw, held: Mutex::default(), links: AtomicU32::new(0) }),
            GuestAccess::Writes,
        )
    }

    /// Looks only: nothing is made or written down.
    pub(super) fn dry(raw: RawImages) -> Self {
        Self(
            Arc::new(Inner { folders: None, raw, held: Mutex::default(), links: AtomicU32::new(0) }),
            GuestAccess::Reads,
        )
    }

    /// The same for images that the guest cannot write to.
    pub(super) fn for_reading(&self) -> Self {
        Self(Arc::clone(&self.0), GuestAccess::Reads)
    }

    /// Until [`Self::settle`] nothing is remembered: what never starts leaves nothing, and a start need not wait for the disk.
    pub(super) fn hold(&self) {
        self.held().get_or_insert_default();
    }

    /// Remembers what was found; from now on everything is remembered at once. Before the guest runs.
    pub(super) fn settle(&self) -> Result<(), ChangeError> {
        let held = self.held().take().unwrap_or_default();
        held.into_iter().try_for_each(|raw| self.remember(raw))
    }

    fn held(&self) -> MutexGuard<'_, Option<Vec<Raw>>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at an image that exists and decides its format. The other files that it leads to must be in its own folder, or
    /// be or lie in something of `allow`.
    pub(super) fn open(
        &self,
        file: &Path,
        asked: Option<ImageFormat>,
        allow: &[PathBuf],
    ) -> Result<Opened, ChangeError> {
        let size = image::look(file).map_err(from_image)?;
        let identity = ImageIdentity::of(file).map_err(from_image)?;
        let (format, virtual_size) = self.format(file, asked, &identity)?;
        // what lies under it is only read: where nothing can be known of it, its header counts
        let known = |open: &File, identity: &ImageIdentity, file: &Path| {
            self.was_raw(open, identity, file).unwrap_or(false).then_some(ImageFormat::Raw)
        };
        let image =
            image::resolve(file, format, allow, &known).map_err(ChangeError::hinted(BackingError::hint))?;
        let raw_size = (format == ImageFormat::Raw).then_some(size);
        Ok(Opened {
            identity: image.identity,
            image: self.told_to_qemu(image)?,
            shown: file.display().to_string(),
            size_bytes: raw_size.or(virtual_size),
            writable: access(file, AccessFlags::W_OK).is_ok(),
        })
    }

    /// The paths as QEMU can be told them.
    fn told_to_qemu(&self, image: Image) -> Result<Image, ChangeError> {
        // QEMU looks for extents by itself, from the image's own folder
        let is_text = |file: &HostFile| file.path.to_str().is_some();
        for layer in image.layers().filter(|layer| !layer.extents.is_empty()) {
            if layer.file.to_str().is_none() || !layer.extents.iter().all(is_text) {
                let message = format!(
                    "QEMU cannot find the parts of {}: not all of their names are UTF-8",
                    layer.file.display()
                );
                return Err(ChangeError::unsupported(message).hint("rename them, or the folder"));
            }
        }
        image.with_paths(&mut |path: &Path| self.utf8(path))
    }

    /// Begins to make the image of a disk, if it is not there and a size is given: what is made can be written down before it has a name.
    pub(super) fn begin(&self, disk: &DiskSpec, file: &Path) -> Result<Option<NewFile>, ChangeError> {
        if disk.size.is_none() || !is_missing(file) || self.0.folders.is_none() {
            return Ok(None);
        }
        self.check_name(file)?;
        image::begin(file).map(Some).map_err(ChangeError::hinted(CreateError::hint))
    }

    /// The image of a disk: what is there, or the new one that [`Self::begin`] has begun. Tells which file was made.
    pub(super) fn open_disk(
        &self,
        disk: &DiskSpec,
        file: &Path,
        new: Option<NewFile>,
        allow: &[PathBuf],
        access: Access,
    ) -> Result<(Opened, Option<MadeFile>), ChangeError> {
        let made = match (new, disk.size) {
            (Some(new), Some(size)) => Some(finish(new, disk.format, size)?),
            (_, None) if is_missing(file) => {
                let error = ChangeError::host(ImageError::Missing(file.to_owned()));
                return Err(error.hint("to have it made, say how large: `size=10G`"));
            }
            (None, Some(size)) if self.0.folders.is_none() && is_missing(file) => {
                return Ok((not_made(disk, file, size), None));
            }
            _ => None,
        };
        let images = if disk.readonly { self.for_reading() } else { self.clone() };
        let opened = images.open(file, disk.format, allow).and_then(|opened| match access {
            Access::Disk if !disk.readonly => writable_enough(opened),
            Access::Disk | Access::Below => Ok(opened),
        });
        let opened = match made {
            None => opened.and_then(|opened| self.fitted(opened, disk, access)),
            Some(_) => opened,
        };
        match opened {
            Ok(opened) => Ok((opened, made)),
            Err(error) => {
                made.iter().for_each(MadeFile::remove);
                Err(error)
            }
        }
    }

    /// An image that is there, of which a size was said: it is made as large if it is to grow, and otherwise what it is is told.
    fn fitted(&self, opened: Opened, disk: &DiskSpec, access: Access) -> Result<Opened, ChangeError> {
        let wanted = disk.size.map(|size| size.bytes().next_multiple_of(image::SECTOR));
        let (Some(wanted), Some(now), Some(_)) = (wanted, opened.size_bytes, &self.0.folders) else {
            return Ok(opened);
        };
        let (shown, size) = (&opened.shown, Size(now));
        match now.cmp(&wanted) {
            std::cmp::Ordering::Equal => return Ok(opened),
            std::cmp::Ordering::Greater => {
                log::warn!("{shown} is larger than `size={}`, and stays so: it has {size}", Size(wanted));
                return Ok(opened);
            }
            std::cmp::Ordering::Less if !disk.grow => {
                log::warn!(
                    target: HINTED,
                    "{shown} is smaller than `size={}`, and stays so: it has {size}\nhint: `grow=on` makes it larger",
                    Size(wanted)
                );
                return Ok(opened);
            }
            std::cmp::Ordering::Less => {}
        }
        // an overlay is made as large as it is to be
        if access == Access::Disk {
            let qemu_img = programs::qemu_img(&SearchPath::from_env())
                .map_err(ChangeError::hinted(ProgramError::hint))?;
            image::grow(&qemu_img, &opened.image, wanted).map_err(|error| self.not_grown(&opened, error))?;
        }
        log::info!(
            "{shown} has grown from {size} to {}: its partitions are for the guest to grow",
            Size(wanted)
        );
        Ok(Opened { size_bytes: Some(wanted), ..opened })
    }

    fn not_grown(&self, opened: &Opened, error: CreateError) -> ChangeError {
        let error = ChangeError::hinted(CreateError::hint)(error);
        let root = self.0.folders.as_ref().and_then(|folders| folders.run.parent());
        let file = std::iter::once(opened.image.file.as_path());
        match image_holder::find(root, file, &error.message, 0) {
            Some((path, holder)) => image_holder::named(error, &path, &holder),
            None => error,
        }
    }

    /// Makes an overlay over an image, which then is only read.
    pub(super) fn overlay(&self, opened: &Opened, id: &str) -> Result<Opened, ChangeError> {
        let Some(folders) = &self.0.folders else { return Ok(opened.clone()) };
        let path = folders.state.path().join(overlay_name(id));
        let qemu_img =
            programs::qemu_img(&SearchPath::from_env()).map_err(ChangeError::hinted(ProgramError::hint))?;
        let below = &opened.image;
        // qemu-img would follow what the image names
        if opened.size_bytes.is_none() && !below.is_alone() {
            let message = format!("{} does not tell how large it is", opened.shown);
            return Err(ChangeError::unsupported(message).hint("`qemu-img convert` makes one image of it"));
        }
        let made = image::create_overlay(&qemu_img, &path, &below.file, below.format, opened.size_bytes)
            .map_err(ChangeError::hinted(CreateError::hint))?;
        let overlay = Image {
            identity: Some(made.id()),
            backing: Some(Box::new(below.clone())),
            ..Image::alone(self.utf8(&path)?, ImageFormat::Qcow2)
        };
        Ok(Opened { image: overlay, writable: true, ..opened.clone() })
    }

    /// The format, and how large the guest will see the image where its header says so.
    fn format(
        &self,
        file: &Path,
        asked: Option<ImageFormat>,
        identity: &ImageIdentity,
    ) -> Result<(ImageFormat, Option<u64>), ChangeError> {
        let (open, facts) = files::open(file).map_err(|error| unreadable(file, &error))?;
        let was_raw = self.was_raw(&open, identity, file);
        let found = image::inspect(file);
        let looks_raw = found.as_ref().is_ok_and(|facts| facts.format == ImageFormat::Raw);
        let raw = match (asked, was_raw) {
            (Some(asked), _) => asked == ImageFormat::Raw,
            (None, Ok(was_raw)) => was_raw || looks_raw,
            (None, Err(_)) if looks_raw => true,
            (None, Err(error)) => return Err(not_known(file, &error)),
        };
        if raw {
            // its bytes are the guest's: they mean nothing, not even if they are a damaged header
            if asked.is_none() {
                warn_of_header(file, &found);
            }
            let access = match access(file, AccessFlags::W_OK) {
                Ok(()) => self.1,
                Err(_) => GuestAccess::Reads,
            };
            let (identity, file) = (identity.clone(), file.to_owned());
            let raw = Raw { open, identity, file, access, asked: asked.is_some() };
            let at_once = match self.held().as_mut() {
                Some(held) => {
                    held.push(raw);
                    None
                }
                None => Some(raw),
            };
            at_once.map_or(Ok(()), |raw| self.remember(raw))?;
            return Ok((ImageFormat::Raw, None));
        }
        let found = found.map_err(from_image)?;
        match asked {
            Some(asked) => {
                image::check_format(file, asked, found.format).map_err(|error| {
                    let hint = error.hint();
                    ChangeError { hint, ..ChangeError::invalid("format", error) }
                })?;
                self.forget(&open, identity, file, asked)?;
            }
            // its name may be another device's after the next boot: that it was never raw cannot be known
            None if facts.file_type().is_block_device() => {
                return Err(device_with_header(file, found.format));
            }
            None => {}
        }
        Ok((asked.unwrap_or(found.format), found.virtual_size_bytes))
    }

    /// Whether an image was opened as raw before, by this VM or any other.
    fn was_raw(&self, open: &File, identity: &ImageIdentity, file: &Path) -> Result<bool, String> {
        if let Some(folders) = &self.0.folders {
            // as versions before the user's store did
            let remembered = folders.state.remembered_format(identity).map_err(|error| error.told())?;
            if remembered == Some(ImageFormat::Raw) {
                return Ok(true);
            }
        }
        self.0.raw.knows(open, identity, file).map_err(|error| error.told())
    }

    /// Remembers an image as raw: it must never be looked at again for what it is, since the guest can write anything there.
    fn remember(&self, raw: Raw) -> Result<(), ChangeError> {
        let Raw { open, identity, file, access, asked } = raw;
        let Some(folders) = &self.0.folders else { return Ok(()) };
        let Err(error) = self.0.raw.remember(&open, &file, access) else { return Ok(()) };
        let hint = error.store.hint().unwrap_or_default();
        let shown = file.display();
        match (folders.lasting, asked) {
            (true, _) => {
                if folders.state.remembered_format(&identity).map_err(ChangeError::host)?
                    != Some(ImageFormat::Raw)
                {
                    folders.state.remember_format(&identity, ImageFormat::Raw).map_err(ChangeError::host)?;
                }
                log::warn!(
                    target: HINTED,
                    "only VMs with the state directory {} will know that {shown} is raw: {error}\nhint: {hint}",
                    folders.state.path().display()
                );
                Ok(())
            }
            (false, true) => {
                log::warn!(
                    target: HINTED,
                    "nothing will know later that {shown} is raw: {error}\nhint: {hint}, or always say `format=raw`"
                );
                Ok(())
            }
            (false, false) => {
                let message = format!(
                    "{shown} is raw, and nothing would know that after the guest has written to it: {error}"
                );
                Err(ChangeError::host(message).hint(format!("{hint}, or say `format=raw` now and always")))
            }
        }
    }

    /// Remembers the raw disks of a VM that somebody else has put together: its guest has written to them already, perhaps.
    pub(super) fn saw(&self, inventory: &Inventory, open: &OpenFiles) {
        for entry in inventory.devices() {
            let Kind::Disk(facts) = &entry.kind else { continue };
            let raw = facts.format == Some(ImageFormat::Raw) && facts.foreign && !facts.readonly;
            let Some(file) = facts.file.as_deref().filter(|_| raw).map(Path::new) else { continue };
            // what QEMU has open, whatever has its name by now
            let Some(id) = facts.identity else { continue };
            let way = open.way_to(id).unwrap_or(file);
            let remembered = files::open(way).map_err(|error| error.to_string()).and_then(|(open, _)| {
                self.0.raw.remember(&open, way, GuestAccess::Writes).map_err(|error| error.to_string())
            });
            if let Err(error) = remembered {
                log::warn!("nothing will know later that {} is raw: {error}", file.display());
            }
        }
    }

    /// The user says that an image is not raw, or not any more.
    fn forget(
        &self,
        open: &File,
        identity: &ImageIdentity,
        file: &Path,
        format: ImageFormat,
    ) -> Result<(), ChangeError> {
        let Some(folders) = &self.0.folders else { return Ok(()) };
        if let Err(error) = self.0.raw.forget(open, identity, file) {
            log::warn!(
                "{} will be taken for raw where no `format={format}` is said: {error}",
                file.display()
            );
        }
        match folders.state.remembered_format(identity).map_err(ChangeError::host)? {
            Some(ImageFormat::Raw) => {
                folders.state.remember_format(identity, format).map_err(ChangeError::host)
            }
            _ => Ok(()),
        }
    }

    /// Whether QEMU can be told this name, or that of a link to it.
    fn check_name(&self, file: &Path) -> Result<(), ChangeError> {
        let run = self.0.folders.as_ref().map(|folders| &folders.run);
        let Some(run) = run.filter(|run| file.to_str().is_none() && run.to_str().is_none()) else {
            return Ok(());
        };
        let message = format!(
            "QEMU can only be told names that are UTF-8: neither {} is, nor {}, where a link to it would be",
            file.display(),
            run.display()
        );
        Err(ChangeError::unsupported(message)
            .hint("set VMRUN_RUNTIME_DIR to a folder with a plain name, or rename the file"))
    }

    /// QEMU's JSON can only hold UTF-8: any other path gets a link with a plain name in the run directory.
    fn utf8(&self, file: &Path) -> Result<PathBuf, ChangeError> {
        let Some(folders) = self.0.folders.as_ref().filter(|_| file.to_str().is_none()) else {
            return Ok(file.to_owned());
        };
        self.check_name(file)?;
        loop {
            let number = self.0.links.fetch_add(1, Ordering::Relaxed);
            let link = folders.run.join(format!("image-{number}"));
            match std::os::unix::fs::symlink(file, &link) {
                Ok(()) => return Ok(link),
                // made by the supervisor before this one
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(unreadable(&link, &error)),
            }
        }
    }
}

/// An image that looks like a format, where nobody can say whether a guest has made it look so.
fn not_known(file: &Path, why: &str) -> ChangeError {
    let message = format!("whether {} was a raw image before cannot be looked up: {why}", file.display());
    ChangeError::host(message).hint("mend that, or say what the image is: `format=qcow2`, for example")
}

fn device_with_header(file: &Path, format: ImageFormat) -> ChangeError {
    let message =
        format!("{} begins like {format}, which a guest could have written to a raw device", file.display());
    ChangeError::host(message).hint(format!("say which it is: `format={format}` or `format=raw`"))
}

/// Says that a raw image does not look like one any more.
fn warn_of_header(file: &Path, found: &Result<ImageFacts, ImageError>) {
    let (like, way_out) = match found {
        Ok(facts) if facts.format == ImageFormat::Raw => return,
        Ok(facts) => {
            (facts.format.to_string(), format!("; if it really was converted, say `format={}`", facts.format))
        }
        Err(ImageError::Foreign { foreign, .. }) => (foreign.what.to_owned(), String::new()),
        Err(ImageError::Luks(_)) => ("an encrypted volume (LUKS)".to_owned(), String::new()),
        Err(_) => ("a damaged image of another format".to_owned(), String::new()),
    };
    log::warn!(
        "{} was a raw image and now begins like {like}: it stays raw, since a guest could have written that{way_out}",
        file.display()
    );
}

/// What a dry run tells of an image that would be made.
fn not_made(disk: &DiskSpec, file: &Path, size: Size) -> Opened {
    Opened {
        image: Image::alone(file, disk.format.unwrap_or_else(|| format_for_new(file))),
        shown: file.display().to_string(),
        size_bytes: Some(size.bytes()),
        identity: None,
        writable: true,
    }
}

fn is_missing(file: &Path) -> bool {
    std::fs::symlink_metadata(file).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn finish(new: NewFile, format: Option<ImageFormat>, size: Size) -> Result<MadeFile, ChangeError> {
    let format = format.unwrap_or_else(|| format_for_new(new.made().path()));
    let qemu_img = match format {
        ImageFormat::Raw => PathBuf::new(),
        _ => programs::qemu_img(&SearchPath::from_env()).map_err(ChangeError::hinted(ProgramError::hint))?,
    };
    image::finish(new, &qemu_img, format, size).map_err(ChangeError::hinted(CreateError::hint))
}

/// A new image's format, from its name.
pub(super) fn format_for_new(file: &Path) -> ImageFormat {
    let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "qcow2" => ImageFormat::Qcow2,
        "vmdk" => ImageFormat::Vmdk,
        "vdi" => ImageFormat::Vdi,
        "vhdx" => ImageFormat::Vhdx,
        "vhd" => ImageFormat::Vpc,
        _ => ImageFormat::Raw,
    }
}

fn writable_enough(opened: Opened) -> Result<Opened, ChangeError> {
    if opened.writable {
        return Ok(opened);
    }
    let message = format!("there is no permission to write to {}", opened.shown);
    Err(ChangeError::host(message).hint("attach it with `readonly=on`, or make it writable"))
}

fn from_image(error: ImageError) -> ChangeError {
    ChangeError::hinted(ImageError::hint)(error)
}

fn unreadable(file: &Path, error: &std::io::Error) -> ChangeError {
    ChangeError::host(format!("{}: {error}", file.display()))
}
