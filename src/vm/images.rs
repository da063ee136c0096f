//! The one door for images: whatever QEMU is to open passes here first, at the start and while the VM runs.
//!
//! An image's format is found once, written down, and given to QEMU explicitly ever after.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::{AccessFlags, access};

use crate::host::dirs::StateDir;
use crate::host::image::{self, BackingError, CreateError, ImageError, ImageFacts, ImageIdentity};
use crate::host::programs::{self, ProgramError, SearchPath};
use crate::spec::{DiskSpec, ImageFormat, Size};

use super::error::ChangeError;

/// An image that may be opened.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    /// Absolute, UTF-8: what QEMU is told.
    pub(super) path: PathBuf,
    /// What people are told.
    pub(super) shown: String,
    pub(super) format: ImageFormat,
    /// Virtual size, where it is simple to know.
    pub(super) size_bytes: Option<u64>,
    /// Device and inode.
    pub(super) identity: (u64, u64),
    /// We may write to it.
    pub(super) writable: bool,
}

/// Opens and makes images. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Images(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Where something may be written; none in a dry run.
    folders: Option<Folders>,
    links: AtomicU32,
}

#[derive(Debug)]
struct Folders {
    /// Where formats are remembered.
    state: Arc<StateDir>,
    /// Where links for names that JSON cannot hold are made.
    run: PathBuf,
}

/// What the overlay of an ephemeral VM's disk is called.
pub(super) fn overlay_name(id: &str) -> String {
    format!("overlay-{id}.qcow2")
}

impl Images {
    pub(super) fn new(state: Arc<StateDir>, run: &Path) -> Self {
        let folders = Some(Folders { state, run: run.to_owned() });
        Self(Arc::new(Inner { folders, links: AtomicU32::new(0) }))
    }

    /// Looks only: nothing is made or written down.
    pub(super) fn dry() -> Self {
        Self(Arc::new(Inner { folders: None, links: AtomicU32::new(0) }))
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
        if format != ImageFormat::Raw {
            image::check_backing(file, allow).map_err(ChangeError::hinted(BackingError::hint))?;
        }
        let metadata = std::fs::metadata(file).map_err(|error| unreadable(file, &error))?;
        let raw_size = (format == ImageFormat::Raw).then_some(size);
        Ok(Opened {
            path: self.utf8(file)?,
            shown: file.display().to_string(),
            format,
            size_bytes: raw_size.or(virtual_size),
            identity: (metadata.dev(), metadata.ino()),
            writable: access(file, AccessFlags::W_OK).is_ok(),
        })
    }

    /// The image of a disk; made if it is not there and a size is given. Tells whether it was made.
    pub(super) fn open_or_create(
        &self,
        disk: &DiskSpec,
        file: &Path,
        allow: &[PathBuf],
    ) -> Result<(Opened, bool), ChangeError> {
        let missing =
            std::fs::symlink_metadata(file).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        let made = match (missing, disk.size) {
            (true, Some(size)) if self.0.folders.is_none() => return Ok((not_made(disk, file, size), false)),
            (true, Some(size)) => {
                create(file, disk.format, size)?;
                true
            }
            (true, None) => {
                let error = ChangeError::host(ImageError::Missing(file.to_owned()));
                return Err(error.hint("to have it made, say how large: `size=10G`"));
            }
            (false, _) => false,
        };
        let opened = self.open(file, disk.format, allow).and_then(|opened| writable_enough(opened, disk));
        match opened {
            Ok(opened) => Ok((opened, made)),
            Err(error) => {
                if made {
                    let _ = std::fs::remove_file(file);
                }
                Err(error)
            }
        }
    }

    /// Makes an overlay over an image, which then is only read.
    pub(super) fn overlay(&self, opened: &Opened, id: &str) -> Result<Opened, ChangeError> {
        let Some(folders) = &self.0.folders else { return Ok(opened.clone()) };
        let path = folders.state.path().join(overlay_name(id));
        let qemu_img =
            programs::qemu_img(&SearchPath::from_env()).map_err(ChangeError::hinted(ProgramError::hint))?;
        image::create_overlay(&qemu_img, &path, &opened.path, opened.format)
            .map_err(ChangeError::hinted(CreateError::hint))?;
        Ok(Opened { path: self.utf8(&path)?, format: ImageFormat::Qcow2, writable: true, ..opened.clone() })
    }

    /// The format, and how large the guest will see the image where its header says so.
    fn format(
        &self,
        file: &Path,
        asked: Option<ImageFormat>,
        identity: &ImageIdentity,
    ) -> Result<(ImageFormat, Option<u64>), ChangeError> {
        let state = self.0.folders.as_ref().map(|folders| &folders.state);
        let remembered = match state {
            Some(state) => state.remembered_format(identity).map_err(ChangeError::host)?,
            None => None,
        };
        let found = image::inspect(file);
        if asked.or(remembered) == Some(ImageFormat::Raw) {
            // its bytes are the guest's: they mean nothing, not even if they are a damaged header
            if asked.is_none() {
                warn_of_header(file, &found);
            }
            remember(state, identity, remembered, ImageFormat::Raw)?;
            return Ok((ImageFormat::Raw, None));
        }
        let found = found.map_err(from_image)?;
        if let Some(asked) = asked {
            image::check_format(file, asked, found.format).map_err(|error| {
                let hint = error.hint();
                ChangeError { hint, ..ChangeError::invalid("format", error) }
            })?;
        }
        let format = asked.or(remembered).unwrap_or(found.format);
        remember(state, identity, remembered, format)?;
        Ok((format, found.virtual_size_bytes))
    }

    /// QEMU's JSON can only hold UTF-8: any other path gets a link with a plain name in the run directory.
    fn utf8(&self, file: &Path) -> Result<PathBuf, ChangeError> {
        let Some(folders) = self.0.folders.as_ref().filter(|_| file.to_str().is_none()) else {
            return Ok(file.to_owned());
        };
        let number = self.0.links.fetch_add(1, Ordering::Relaxed);
        let link = folders.run.join(format!("image-{number}"));
        std::os::unix::fs::symlink(file, &link).map_err(|error| unreadable(&link, &error))?;
        Ok(link)
    }
}

fn remember(
    state: Option<&Arc<StateDir>>,
    identity: &ImageIdentity,
    remembered: Option<ImageFormat>,
    format: ImageFormat,
) -> Result<(), ChangeError> {
    match state.filter(|_| remembered != Some(format)) {
        Some(state) => state.remember_format(identity, format).map_err(ChangeError::host),
        None => Ok(()),
    }
}

/// Says that a raw image does not look like one any more.
fn warn_of_header(file: &Path, found: &Result<ImageFacts, ImageError>) {
    let (like, way_out) = match found {
        Ok(facts) if facts.format == ImageFormat::Raw => return,
        Ok(facts) => {
            (facts.format.to_string(), format!("; if it really was converted, say `format={}`", facts.format))
        }
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
        path: file.to_owned(),
        shown: file.display().to_string(),
        format: disk.format.unwrap_or_else(|| format_for_new(file)),
        size_bytes: Some(size.bytes()),
        identity: (0, 0),
        writable: true,
    }
}

fn create(file: &Path, format: Option<ImageFormat>, size: Size) -> Result<(), ChangeError> {
    let format = format.unwrap_or_else(|| format_for_new(file));
    let qemu_img = match format {
        ImageFormat::Raw => PathBuf::new(),
        _ => programs::qemu_img(&SearchPath::from_env()).map_err(ChangeError::hinted(ProgramError::hint))?,
    };
    image::create(&qemu_img, file, format, size).map_err(ChangeError::hinted(CreateError::hint))
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

fn writable_enough(opened: Opened, disk: &DiskSpec) -> Result<Opened, ChangeError> {
    if opened.writable || disk.readonly {
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
