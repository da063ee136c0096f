//! All images that QEMU opens pass the checks here, at the start and while the VM runs.
//!
//! QEMU always gets an image's format explicitly. That an image is raw is detected once and recorded forever ([`RawImages`]): its
//! content belongs to a guest, and is never probed again. Images of other formats have a header that no guest can write.

mod names;
mod raw;

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};

use nix::unistd::{AccessFlags, access};

use crate::host::HINTED;
use crate::host::dirs::StateDir;
use crate::host::image::{self, BackingError, CreateError, ImageError, ImageIdentity};
use crate::host::made::{MadeFile, NewFile};
use crate::host::programs::{self, ProgramError, SearchPath};
use crate::host::raw_images::{GuestAccess, RawImages};
use crate::spec::{DiskSpec, FileId, Image, ImageFormat, Size};

use crate::vm::error::ChangeError;
use crate::vm::state::image_holder;
use raw::Raw;

/// An image that may be opened.
#[derive(Debug, Clone)]
pub(in crate::vm) struct Opened {
    /// With its whole backing chain; paths are absolute and UTF-8, as QEMU needs them.
    pub(in crate::vm) image: Image,
    /// Its name in messages.
    pub(in crate::vm) shown: String,
    /// Virtual size in bytes, if the header has it.
    pub(in crate::vm) size_bytes: Option<u64>,
    /// The file's identity; of an overlay, that of the image under it. `None` in a dry run.
    pub(in crate::vm) identity: Option<FileId>,
    /// This process may write to it.
    pub(in crate::vm) writable: bool,
}

/// What a disk's image is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vm) enum Access {
    /// As the disk itself.
    Disk,
    /// As the backing file of an overlay: read-only.
    Below,
}

/// Opens and makes images. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::vm) struct Images(Arc<Inner>, GuestAccess);

#[derive(Debug)]
struct Inner {
    /// Folders for new files; `None` in a dry run.
    folders: Option<Folders>,
    /// The record of images that any VM has used as raw.
    raw: RawImages,
    /// Images to be recorded by [`Images::settle`]; `None` = each is recorded at once.
    held: Mutex<Option<Vec<Raw>>>,
    links: AtomicU32,
}

#[derive(Debug)]
struct Folders {
    /// Where overlays are made; older versions recorded formats here, too.
    state: Arc<StateDir>,
    /// Whether the state directory outlives the VM.
    lasting: bool,
    /// Where links are made for names that JSON cannot hold.
    run: PathBuf,
}

/// File name of the overlay of an ephemeral VM's disk.
pub(in crate::vm) fn overlay_name(id: &str) -> String {
    format!("overlay-{id}.qcow2")
}

impl Images {
    pub(in crate::vm) fn new(state: Arc<StateDir>, lasting: bool, run: &Path, raw: RawImages) -> Self {
        let folders = Some(Folders { state, lasting, run: run.to_owned() });
        Self(
            Arc::new(Inner { folders, raw, held: Mutex::default(), links: AtomicU32::new(0) }),
            GuestAccess::Writes,
        )
    }

    /// For dry runs: nothing is made or recorded.
    pub(in crate::vm) fn dry(raw: RawImages) -> Self {
        Self(
            Arc::new(Inner { folders: None, raw, held: Mutex::default(), links: AtomicU32::new(0) }),
            GuestAccess::Reads,
        )
    }

    /// The same for images that the guest cannot write to.
    pub(in crate::vm) fn for_reading(&self) -> Self {
        Self(Arc::clone(&self.0), GuestAccess::Reads)
    }

    /// Inspects an existing image and decides its format. Other files that it refers to must be in its own folder, or be or be
    /// below a path in `allow`.
    pub(in crate::vm) fn open(
        &self,
        file: &Path,
        asked: Option<ImageFormat>,
        allow: &[PathBuf],
    ) -> Result<Opened, ChangeError> {
        self.open_with_hint(file, asked, allow, BackingError::hint)
    }

    /// The same with another hint if files that an image refers to are refused: not every command has `--allow-backing`.
    pub(in crate::vm) fn open_with_hint(
        &self,
        file: &Path,
        asked: Option<ImageFormat>,
        allow: &[PathBuf],
        hint: fn(&BackingError) -> Option<String>,
    ) -> Result<Opened, ChangeError> {
        let size = image::look(file).map_err(from_image)?;
        let identity = ImageIdentity::of(file).map_err(from_image)?;
        let (format, virtual_size) = self.format(file, asked, &identity)?;
        // a backing file is opened read-only: if its history is unknown, its header is trusted
        let known = |open: &File, identity: &ImageIdentity, file: &Path| {
            self.was_raw(open, identity, file).unwrap_or(false).then_some(ImageFormat::Raw)
        };
        let image = image::resolve(file, format, allow, &known).map_err(ChangeError::hinted(hint))?;
        let raw_size = (format == ImageFormat::Raw).then_some(size);
        Ok(Opened {
            identity: image.identity,
            image: self.told_to_qemu(image)?,
            shown: file.display().to_string(),
            size_bytes: raw_size.or(virtual_size),
            writable: access(file, AccessFlags::W_OK).is_ok(),
        })
    }

    /// Starts to make the image of a disk, if it does not exist and a size is given: the new file can be journalled before it has a
    /// name.
    pub(in crate::vm) fn begin(&self, disk: &DiskSpec, file: &Path) -> Result<Option<NewFile>, ChangeError> {
        if disk.size.is_none() || !is_missing(file) || self.0.folders.is_none() {
            return Ok(None);
        }
        self.check_name(file)?;
        image::begin(file).map(Some).map_err(ChangeError::hinted(CreateError::hint))
    }

    /// The image of a disk: the existing one, or the new one from [`Self::begin`]. Returns which file was made.
    pub(in crate::vm) fn open_disk(
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

    /// An existing image with a requested size: it is grown if needed; otherwise its real size is reported.
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
        // an overlay is made with its final size
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
            Some(holder) => holder.refusal_of(error),
            None => error,
        }
    }

    /// Makes an overlay over an image, which is read-only from then on.
    pub(in crate::vm) fn overlay(&self, opened: &Opened, id: &str) -> Result<Opened, ChangeError> {
        let Some(folders) = &self.0.folders else { return Ok(opened.clone()) };
        let path = folders.state.path().join(overlay_name(id));
        let qemu_img =
            programs::qemu_img(&SearchPath::from_env()).map_err(ChangeError::hinted(ProgramError::hint))?;
        let below = &opened.image;
        // qemu-img would open the files that the image names
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
}

/// For a dry run: an image that would be made.
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
pub(in crate::vm) fn format_for_new(file: &Path) -> ImageFormat {
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
