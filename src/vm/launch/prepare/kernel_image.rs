//! An image that is a kernel or a unified kernel image: QEMU loads it, and there is no disk.

use std::path::{Path, PathBuf};

use crate::host::dirs::{StateDir, names};
use crate::host::image::{self, ImageError};
use crate::host::raw_images::RawImages;
use crate::host::uki::Uki;
use crate::spec::{Boot, BootMode, ImageFormat, Request};

use super::unpacked;
use crate::vm::start_error::{StartError, system};

/// The kind of image.
#[derive(Debug)]
pub(super) enum KernelImage {
    /// A kernel that QEMU can load.
    Kernel,
    /// A kernel with its initrd and command line.
    Unified {
        image: Uki,
        /// Replaces the embedded one.
        initrd: Option<PathBuf>,
    },
}

/// Inspects the image. A raw disk stays a disk, even if its guest has made it look like a kernel.
pub(super) fn look(request: &Request, raw: &RawImages) -> Result<Option<KernelImage>, StartError> {
    let is_asked = matches!(request.boot, BootMode::Auto | BootMode::Kernel) && request.kernel.is_none();
    let is_disk = request.image_options.format == Some(ImageFormat::Raw);
    let Some(image) = request.image.as_ref().filter(|_| is_asked && !is_disk) else { return Ok(None) };
    let foreign = match image::inspect(image) {
        Err(ImageError::Foreign { foreign, .. }) if foreign.is_kernel() || foreign.is_efi() => foreign,
        _ => return Ok(None),
    };
    let image = std::path::absolute(image).map_err(system("the working directory"))?;
    if unpacked::is_guests(&image, raw) {
        return Ok(None);
    }
    if foreign.is_kernel() {
        return Ok(Some(KernelImage::Kernel));
    }
    let initrd = request.initrd.as_ref().map(std::path::absolute).transpose();
    let initrd = initrd.map_err(system("the working directory"))?;
    let unified = Uki::open(&image).map_err(|error| failed(&image, &error))?;
    Ok(unified.map(|image| KernelImage::Unified { image, initrd }))
}

impl KernelImage {
    /// The command line in the image.
    pub(super) fn cmdline(&self, path: &Path) -> Result<String, StartError> {
        match self {
            Self::Kernel => Ok(String::new()),
            Self::Unified { image, .. } => image.cmdline().map_err(|error| failed(path, &error)),
        }
    }

    /// How it boots, with its parts in this folder.
    pub(super) fn boot_from(&self, folder: &Path, boot: Boot) -> Boot {
        match (self, boot) {
            (Self::Unified { image, initrd }, Boot::Kernel { cmdline, .. }) => Boot::Kernel {
                kernel: folder.join(names::UKI_KERNEL),
                initrd: initrd.clone().or_else(|| image.has_initrd().then(|| folder.join(names::UKI_INITRD))),
                cmdline,
            },
            (_, boot) => boot,
        }
    }

    /// Extracts its parts to the state directory.
    pub(super) fn take_apart(&self, state: &StateDir) -> Result<(), StartError> {
        let Self::Unified { image, initrd } = self else { return Ok(()) };
        let kernel = state.replace(names::UKI_KERNEL, |file| image.write_kernel(file));
        let both = kernel.and_then(|()| match initrd.is_none() && image.has_initrd() {
            true => state.replace(names::UKI_INITRD, |file| image.write_initrd(file)),
            false => Ok(()),
        });
        both.map_err(|error| failed(state.path(), &error))
    }
}

fn failed(path: &Path, error: &std::io::Error) -> StartError {
    StartError::File {
        what: "unified kernel image",
        path: path.to_owned(),
        why: error.to_string(),
        hint: None,
    }
}
