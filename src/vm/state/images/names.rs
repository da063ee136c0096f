//! File names for QEMU, which accepts only UTF-8.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::{Images, unreadable};
use crate::spec::{HostFile, Image};
use crate::vm::error::ChangeError;

impl Images {
    /// The paths in a form that QEMU accepts.
    pub(super) fn told_to_qemu(&self, image: Image) -> Result<Image, ChangeError> {
        // QEMU resolves extents itself, relative to the image's own folder
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

    /// Whether QEMU accepts this name, or that of a link to it.
    pub(super) fn check_name(&self, file: &Path) -> Result<(), ChangeError> {
        let run = self.0.folders.as_ref().map(|folders| &folders.run);
        let Some(run) = run.filter(|run| file.to_str().is_none() && run.to_str().is_none()) else {
            return Ok(());
        };
        let message = format!(
            "QEMU accepts only names in UTF-8: neither {} is, nor {}, where a link to it would be",
            file.display(),
            run.display()
        );
        Err(ChangeError::unsupported(message)
            .hint("set VMRUN_RUNTIME_DIR to a folder with a plain name, or rename the file"))
    }

    /// QEMU's JSON can only hold UTF-8: any other path gets a link with an ASCII name in the run directory.
    pub(super) fn utf8(&self, file: &Path) -> Result<PathBuf, ChangeError> {
        let Some(folders) = self.0.folders.as_ref().filter(|_| file.to_str().is_none()) else {
            return Ok(file.to_owned());
        };
        self.check_name(file)?;
        loop {
            let number = self.0.links.fetch_add(1, Ordering::Relaxed);
            let link = folders.run.join(format!("image-{number}"));
            match std::os::unix::fs::symlink(file, &link) {
                Ok(()) => return Ok(link),
                // made by an earlier supervisor
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(unreadable(&link, &error)),
            }
        }
    }
}
