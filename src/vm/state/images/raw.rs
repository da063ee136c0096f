//! The format of an image. That it is raw is detected once and recorded, since its content belongs to a guest from then on.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use nix::unistd::{AccessFlags, access};

use super::{Images, from_image, unreadable};
use crate::host::HINTED;
use crate::host::files;
use crate::host::image::{self, ImageError, ImageFacts, ImageIdentity};
use crate::host::raw_images::GuestAccess;
use crate::spec::ImageFormat;
use crate::vm::error::{ChangeError, ErrorChain};
use crate::vm::state::inventory::Inventory;
use crate::vm::state::open_files::OpenFiles;

/// An image to be recorded as raw.
#[derive(Debug)]
pub(super) struct Raw {
    open: File,
    identity: ImageIdentity,
    file: PathBuf,
    access: GuestAccess,
    /// The user gave the format.
    asked: bool,
}

impl Images {
    /// Until [`Self::settle`] nothing is recorded: a start that fails leaves nothing behind, and a start need not wait for the
    /// disk.
    pub(in crate::vm) fn hold(&self) {
        self.held().get_or_insert_default();
    }

    /// Records what was found; from now on everything is recorded at once. Must be called before the guest runs.
    pub(in crate::vm) fn settle(&self) -> Result<(), ChangeError> {
        let held = self.held().take().unwrap_or_default();
        held.into_iter().try_for_each(|raw| self.remember(raw))
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Option<Vec<Raw>>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The format, and the guest-visible size if the header has it.
    pub(super) fn format(
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
            // the content is the guest's: it means nothing, not even as a damaged header
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
            // the device name may belong to another device after the next boot, so its history is unknown
            None if facts.file_type().is_block_device() => {
                return Err(device_with_header(file, found.format));
            }
            None => {}
        }
        Ok((asked.unwrap_or(found.format), found.virtual_size_bytes))
    }

    /// Whether an image was used as raw before, by this VM or any other.
    pub(super) fn was_raw(&self, open: &File, identity: &ImageIdentity, file: &Path) -> Result<bool, String> {
        if let Some(folders) = &self.0.folders {
            // recorded by versions before the user's store existed
            let remembered =
                folders.state.remembered_format(identity).map_err(|error| error.with_causes())?;
            if remembered == Some(ImageFormat::Raw) {
                return Ok(true);
            }
        }
        self.0.raw.knows(open, identity, file).map_err(|error| error.with_causes())
    }

    /// Records an image as raw: it must never be probed again, since the guest can write anything to it.
    pub(super) fn remember(&self, raw: Raw) -> Result<(), ChangeError> {
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

    /// Records the raw disks of a wrapped VM: its guest may have written to them already.
    pub(in crate::vm) fn saw(&self, inventory: &Inventory, open: &OpenFiles) {
        for facts in inventory.devices().filter_map(|entry| entry.kind.disk()) {
            let raw = facts.format == Some(ImageFormat::Raw) && facts.foreign && !facts.readonly;
            let Some(file) = facts.file.as_deref().filter(|_| raw).map(Path::new) else { continue };
            // the file that QEMU has open, whatever has its name by now
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

    /// Records that the user declares an image as not raw.
    pub(super) fn forget(
        &self,
        open: &File,
        identity: &ImageIdentity,
        file: &Path,
        format: ImageFormat,
    ) -> Result<(), ChangeError> {
        let Some(folders) = &self.0.folders else { return Ok(()) };
        if let Err(error) = self.0.raw.forget(open, identity, file) {
            log::warn!("{} will be opened as raw unless `format={format}` is given: {error}", file.display());
        }
        match folders.state.remembered_format(identity).map_err(ChangeError::host)? {
            Some(ImageFormat::Raw) => {
                folders.state.remember_format(identity, format).map_err(ChangeError::host)
            }
            _ => Ok(()),
        }
    }
}

/// The error for an image that looks like a format, where a guest may have made it look so.
fn not_known(file: &Path, why: &str) -> ChangeError {
    let message = format!("whether {} was a raw image before cannot be looked up: {why}", file.display());
    ChangeError::host(message).hint("mend that, or say what the image is: `format=qcow2`, for example")
}

fn device_with_header(file: &Path, format: ImageFormat) -> ChangeError {
    let message =
        format!("{} begins like {format}, which a guest could have written to a raw device", file.display());
    ChangeError::host(message).hint(format!("say which it is: `format={format}` or `format=raw`"))
}

/// Logs that a raw image does not look raw any more.
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
