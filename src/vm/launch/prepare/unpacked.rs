//! A compressed image, or one in an archive: the first run unpacks it into the state directory, and later runs use that.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::PROGRESS;
use crate::host::dirs::{StateDir, names};
use crate::host::files;
use crate::host::image::{self, ImageError, ImageIdentity};
use crate::host::raw_images::RawImages;
use crate::host::unpack::{self, Packing, Progress, Source, SourceState, UnpackError, Unpacked};
use crate::spec::{BootMode, ImageFormat, Request};

use super::boot;
use crate::vm::start_error::{StartError, system};

/// The name of the image while it is incomplete, on file systems without unnamed files.
const PART: &str = "unpacked.part";

/// An image that must be unpacked.
#[derive(Debug)]
pub(super) struct Packed {
    path: PathBuf,
    packing: Packing,
    is_iso: bool,
}

/// The record of an unpacked image.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    source: SourceState,
    /// SHA-256 of the source, in hexadecimal.
    sha256: String,
    /// File name of the unpacked image in the state directory.
    file: String,
}

impl Record {
    /// A state directory may have come with an image: neither the name nor a link may lead out of it.
    fn is_there(&self, state: &Path) -> bool {
        let is_own = self.file.starts_with("unpacked.") && !self.file.contains('/');
        is_own && state.join(&self.file).symlink_metadata().is_ok_and(|facts| facts.is_file())
    }
}

/// Whether the image is packed. An image that a guest has written to is not, whatever its content.
pub(super) fn look(request: &Request, raw: &RawImages) -> Result<Option<Packed>, StartError> {
    let Some(image) = request.image.as_ref().filter(|_| request.unpack) else { return Ok(None) };
    let path = std::path::absolute(image).map_err(system("the working directory"))?;
    let Some(packing) = packing(&path) else { return Ok(None) };
    if is_guests(&path, raw) {
        return Ok(None);
    }
    // `live.iso.xz`
    let is_iso =
        request.boot == BootMode::Iso || path.file_stem().is_some_and(|stem| boot::is_iso(Path::new(stem)));
    Ok(Some(Packed { path, packing, is_iso }))
}

/// The compression of an image, from its first bytes.
pub(super) fn packing(image: &Path) -> Option<Packing> {
    match image::inspect(image) {
        Err(ImageError::Foreign { foreign, .. }) => foreign.packing(),
        _ => None,
    }
}

/// Whether a file has been used as a raw disk: then its content is from a guest.
pub(super) fn is_guests(path: &Path, raw: &RawImages) -> bool {
    let known = || {
        let (open, _) = files::open(path).ok()?;
        raw.knows(&open, &ImageIdentity::of(path).ok()?, path).ok()
    };
    // if unknown, it may be
    known().unwrap_or(true)
}

/// The state directory that an image was unpacked into.
pub(super) fn state_with(image: &Path) -> Option<PathBuf> {
    let folder = image.parent()?;
    let record: Record = serde_json::from_slice(&StateDir::read_at(folder, names::UNPACKED)?).ok()?;
    (image.file_name() == Some(record.file.as_ref()) && record.is_there(folder)).then(|| folder.to_owned())
}

impl Packed {
    /// It contains a CD.
    pub(super) fn is_iso(&self) -> bool {
        self.is_iso
    }

    /// The unpacked image in this state directory, if it was unpacked from this source; makes nothing.
    pub(super) fn existing(&self, state: &Path) -> Result<Option<PathBuf>, StartError> {
        let Some(record) = StateDir::read_at(state, names::UNPACKED) else { return Ok(None) };
        let Ok(record) = serde_json::from_slice::<Record>(&record) else { return Ok(None) };
        let source = Source::open(&self.path).map_err(|error| self.failed(&error.into()))?;
        let path = state.join(&record.file);
        match record.is_there(state) {
            true => self.unchanged(&source, &record, &path).map(|_| Some(path)),
            false => Ok(None),
        }
    }

    /// The same in the VM's own state directory; unpacks the image there if needed.
    pub(super) fn unpacked(&self, state: &StateDir) -> Result<PathBuf, StartError> {
        let source = Source::open(&self.path).map_err(|error| self.failed(&error.into()))?;
        let record = match state.read(names::UNPACKED) {
            Ok(bytes) => serde_json::from_slice::<Record>(&bytes).ok(),
            Err(_) => None,
        };
        if let Some(record) = record.filter(|record| record.is_there(state.path())) {
            let path = state.path().join(&record.file);
            if !self.unchanged(&source, &record, &path)? {
                // the same bytes in another file, or with another time
                self.remember(state, &Record { source: source.state().clone(), ..record })?;
            }
            return Ok(path);
        }
        self.unpack(state, &source)
    }

    /// Whether the source is the file that was unpacked; refuses one with other content.
    fn unchanged(&self, source: &Source, record: &Record, path: &Path) -> Result<bool, StartError> {
        if *source.state() == record.source {
            return Ok(true);
        }
        match source.checksum() {
            Ok(sum) if sum == record.sha256 => Ok(false),
            Ok(_) => Err(StartError::File {
                what: "image",
                path: self.path.clone(),
                why: format!("it is not any more what {} was unpacked from", path.display()),
                hint: Some(format!(
                    "remove '{}' to have it unpacked again, without what the guest has written since",
                    path.display()
                )),
            }),
            Err(error) => Err(self.failed(&error.into())),
        }
    }

    fn unpack(&self, state: &StateDir, source: &Source) -> Result<PathBuf, StartError> {
        // left by a killed vmrun
        for left in [PART, "unpacked.part2", "unpacked.qcow2.part"] {
            state.unlink(left).map_err(|error| self.failed(&error.into()))?;
        }
        let shown = self.path.display();
        log::info!("unpacking {shown} into {}", state.path().display());
        let mut tell = |progress: Progress| {
            const MIB: u64 = 1 << 20;
            let done = progress.read_bytes.saturating_mul(100) / progress.of_bytes.max(1);
            log::warn!(target: PROGRESS, "unpacking {shown}: {} MiB, {}% read", progress.made_bytes / MIB, done.min(100));
        };
        let unpacked = unpack::unpack(source, self.packing, &state.path().join(PART), &mut tell);
        log::warn!(target: PROGRESS, "");
        let Unpacked { mut file, format, checksum } = unpacked.map_err(|error| self.failed(&error))?;
        let name = self.name(format);
        let path = state.path().join(&name);
        if path.symlink_metadata().is_ok() {
            return Err(StartError::File {
                what: "file",
                path,
                why: "it is in the place of the unpacked image, and vmrun does not know of what".to_owned(),
                hint: Some("move it away".to_owned()),
            });
        }
        // before the image: a record without its image has no effect, but an image without a record could be any file
        self.remember(state, &Record { source: source.state().clone(), sha256: checksum, file: name })?;
        file.take_name().and_then(|()| file.replace(&path)).map_err(|error| self.failed(&error.into()))?;
        log::info!("{shown} was unpacked to {}", path.display());
        Ok(path)
    }

    fn name(&self, format: ImageFormat) -> String {
        match format {
            ImageFormat::Raw if self.is_iso => names::UNPACKED_ISO.to_owned(),
            ImageFormat::Raw => "unpacked.img".to_owned(),
            format => format!("unpacked.{format}"),
        }
    }

    fn remember(&self, state: &StateDir, record: &Record) -> Result<(), StartError> {
        let written = serde_json::to_vec(record).map_err(std::io::Error::other);
        written
            .and_then(|json| state.write(names::UNPACKED, &json))
            .map_err(|error| self.failed(&error.into()))
    }

    fn failed(&self, error: &UnpackError) -> StartError {
        StartError::File {
            what: "image",
            path: self.path.clone(),
            why: format!("it cannot be unpacked: {error}"),
            hint: error.hint(),
        }
    }
}
