//! The images of a saved VM: each must be unchanged and passes the same checks as at a start.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::qemu::Machine;
use crate::qemu::quote;
use crate::qemu::replug::{RecordedImage, What};
use crate::spec::{Boot, Disk, Firmware, Image, ImageFormat, Request, VmSpec};

use super::{devices, nonsense};
use crate::vm::changes::saving::{FileFacts, Saved};
use crate::vm::error::{ChangeError, ErrorChain};
use crate::vm::start_error::StartError;
use crate::vm::state::images::{Images, Opened};

/// Refuses if a file in the description has changed, or if QEMU would open a file that is not in it.
pub(super) fn check(saved: &Saved, spec: &VmSpec, request: &Request) -> Result<(), StartError> {
    for file in &saved.files {
        unchanged(file)?;
    }
    let mut used: Vec<&Path> = spec.disks.iter().map(|disk| disk.image.file.as_path()).collect();
    match &spec.boot {
        Boot::Disk | Boot::Firmware => {}
        Boot::Iso { path } => used.push(path),
        Boot::Kernel { kernel, initrd, .. } => {
            used.push(kernel);
            used.extend(initrd.as_deref());
        }
        Boot::Squashfs { kernel, squashfs, .. } => used.extend([kernel.as_path(), squashfs]),
    }
    used.extend(spec.metadata.as_deref());
    if let Some(Firmware::Flash { code, vars, .. }) = &spec.firmware {
        used.push(code);
        used.extend(vars.as_deref());
    }
    let plugged = devices::read(&saved.record, &Machine::of(spec))?;
    let plugged = plugged.iter().filter_map(|plug| match &plug.what {
        What::Disk { image, .. } | What::Stick(image) => Some(image.file.as_path()),
        What::Controller(_) | What::Nic { .. } | What::Other(_) => None,
    });
    used.extend(plugged);
    let own = saved.template.as_ref().map(|template| &template.folder);
    for path in used {
        if own.is_some_and(|folder| path.starts_with(folder)) {
            continue;
        }
        if !saved.files.iter().any(|file| file.path == path) {
            return Err(nonsense(format!("it does not say what {} was", shown(path))));
        }
        meant(path, request)?;
    }
    Ok(())
}

fn shown(path: &Path) -> String {
    quote::word(path.as_os_str())
}

/// The guest has the content of its disks in its caches: a changed disk would be corrupted.
pub(super) fn unchanged(then: &FileFacts) -> Result<(), StartError> {
    let why = match FileFacts::of(&then.path) {
        Ok(now) if now == *then => return Ok(()),
        Ok(_) => "it has been changed or replaced since the VM was saved".to_owned(),
        Err(error) => error.with_causes(),
    };
    let hint = "the saved VM fits only the files that it was saved with; put them back, or start the VM again from its image";
    Err(StartError::File { what: "file", path: then.path.clone(), why, hint: Some(hint.to_owned()) })
}

/// The file alone must not give the VM a device of the host.
fn meant(path: &Path, request: &Request) -> Result<(), StartError> {
    let kind = std::fs::metadata(path).map(|facts| facts.file_type());
    let allowed = request.allow_backing.iter().any(|allowed| allowed == path);
    match kind {
        Ok(kind) if kind.is_file() || (kind.is_block_device() && allowed) => Ok(()),
        Ok(kind) if kind.is_block_device() => Err(StartError::File {
            what: "file",
            path: path.to_owned(),
            why: "it is a device of this host, which a saved VM's file alone cannot give to the VM"
                .to_owned(),
            hint: Some(format!("to allow it: --allow-backing {}", shown(path))),
        }),
        Ok(_) => Err(StartError::File {
            what: "file",
            path: path.to_owned(),
            why: "it is not a regular file".to_owned(),
            hint: None,
        }),
        Err(error) => {
            Err(StartError::File { what: "file", path: path.to_owned(), why: error.to_string(), hint: None })
        }
    }
}

/// Opens the images of a saved VM with the checks of a start.
pub(super) struct RestoredImages<'a> {
    images: &'a Images,
    request: &'a Request,
    opened: Vec<Opened>,
    /// Of a template: what its images may lead to, besides what the command line allows. Nothing is written to them.
    below: Option<Vec<PathBuf>>,
}

impl<'a> RestoredImages<'a> {
    pub(super) fn new(images: &'a Images, request: &'a Request) -> Self {
        Self { images, request, opened: Vec::new(), below: None }
    }

    /// The same for a template: each image that the guest writes to gets an overlay. `below`: the files that its images are known to
    /// lie over.
    pub(super) fn of_template(self, below: Vec<PathBuf>) -> Self {
        Self { below: Some(below), ..self }
    }

    /// A disk from the start.
    pub(super) fn disk(&mut self, disk: &Disk) -> Result<Disk, StartError> {
        let Image { file, format, .. } = &disk.image;
        let image = RecordedImage { file: file.clone(), format: *format, readonly: disk.readonly };
        let opened = self.open(disk.id.as_str(), &image)?;
        Ok(Disk { image: opened.image, ..disk.clone() })
    }

    /// The image of the device `id`.
    pub(super) fn open(&mut self, id: &str, image: &RecordedImage) -> Result<Opened, StartError> {
        let what = format!("disk '{id}' of the saved VM");
        let refused = |error| StartError::Image { what: what.clone(), error };
        if !image.file.is_absolute() {
            let why = format!("{} is no absolute path", shown(&image.file));
            return Err(refused(ChangeError::invalid("file", why)));
        }
        // a raw image refers to no other file; any other format must be detected
        let asked = Some(ImageFormat::Raw).filter(|raw| image.format == *raw);
        let is_below = self.below.is_some() && !image.readonly;
        let allowed = self.request.allow_backing.iter().chain(self.below.iter().flatten());
        let allowed: Vec<PathBuf> = allowed.cloned().collect();
        let images = if is_below { &self.images.for_reading() } else { self.images };
        let opened = images.open(&image.file, asked, &allowed).map_err(&refused)?;
        if opened.image.format != image.format {
            let why = format!(
                "{} is {}, and the saved VM's description calls it {}",
                opened.shown, opened.image.format, image.format
            );
            return Err(refused(ChangeError::host(why)));
        }
        if !image.readonly && !is_below && !opened.writable {
            return Err(refused(ChangeError::host(format!(
                "there is no permission to write to {}",
                opened.shown
            ))));
        }
        if let Some(other) = self.opened.iter().find(|other| other.identity == opened.identity) {
            let why = format!("the same file as {}, which would corrupt it", other.shown);
            return Err(refused(ChangeError::host(why)));
        }
        self.opened.push(opened.clone());
        match is_below {
            true => self.images.overlay(&opened, id).map_err(refused),
            false => Ok(opened),
        }
    }
}
