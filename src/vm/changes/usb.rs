//! `usb-add`.

use crate::host::image::BackingError;
use crate::host::usb::{UsbHostError, UsbRoots, resolve};
use crate::qemu::models;
use crate::qemu::plan::{self, Controller, UsbPlug};
use crate::spec::{DeviceId, DeviceSpec, DiskOptions, FileId, UsbSelector};

use super::{answer, plug, properties};
use crate::vm::error::ChangeError;
use crate::vm::owner::{Owner, Reply};
use crate::vm::state::inventory::Kind;

/// What a selector was resolved to, before commands are sent to QEMU.
struct Resolved {
    driver: String,
    description: String,
    file: Option<String>,
    identity: Option<FileId>,
    plug: UsbPlug,
}

/// Plugs a USB device, after a controller if there is none.
pub(super) fn add(owner: &mut Owner, selector: UsbSelector, id: Option<DeviceId>, reply: Reply) {
    if owner.machine.usb_bus().is_none() {
        let message = format!("a {} machine has no USB", owner.machine.kind());
        return answer(reply, Err(ChangeError::unsupported(message)));
    }
    let description = selector.to_string();
    let id = match &selector {
        UsbSelector::Driver(device) => id.or_else(|| device.id.clone()),
        _ => id,
    };
    let kind = Kind::Usb { description, file: None, identity: None };
    let id = match plug::reserve(owner, id, "usb", "usb", kind) {
        Ok(id) => id,
        Err(error) => return answer(reply, Err(error)),
    };
    match selector {
        UsbSelector::Driver(device) => {
            with_typed(owner, device, move |owner, resolved| go(owner, id, resolved, reply))
        }
        UsbSelector::File { path: file, format } => {
            if let Err(error) = owner.journal.adding(id.as_str(), None) {
                return plug::abandon(owner, &id, reply, error);
            }
            let images = owner.images.clone();
            owner.spawn_blocking(
                move || {
                    // `usb-add` has no `--allow-backing`: such an image can be plugged as a disk
                    let image = images.open_with_hint(&file, format, &[], |error| match error {
                        BackingError::Outside { .. } => Some(
                            "`disk-add` takes such an image, with `bus=usb` and `--allow-backing`".to_owned(),
                        ),
                        other => other.hint(),
                    })?;
                    let path = file.display().to_string();
                    Ok(Resolved {
                        driver: models::USB_STORAGE.to_owned(),
                        description: format!("stick with {path}"),
                        file: Some(path),
                        identity: image.identity,
                        plug: UsbPlug::Stick { image: image.image, readonly: !image.writable },
                    })
                },
                move |owner, resolved| go(owner, id, resolved, reply),
            );
        }
        host => owner.spawn_blocking(
            move || {
                let device =
                    resolve(&host, &UsbRoots::default()).map_err(ChangeError::hinted(UsbHostError::hint))?;
                Ok(Resolved {
                    driver: models::USB_HOST.to_owned(),
                    description: device.to_string(),
                    file: None,
                    identity: None,
                    plug: UsbPlug::Host { bus: device.bus, address: device.address },
                })
            },
            move |owner, resolved| go(owner, id, resolved, reply),
        ),
    }
}

/// Asks QEMU for the types of a driver's properties, if any were given.
fn with_typed(
    owner: &mut Owner,
    device: DeviceSpec,
    then: impl FnOnce(&mut Owner, Result<Resolved, ChangeError>) + Send + 'static,
) {
    let DeviceSpec { driver, properties, .. } = device;
    let session = owner.session.clone();
    owner.spawn(
        async move {
            let known = properties::typed(&session, &driver, &properties).await?;
            Ok(Resolved {
                description: driver.clone(),
                file: None,
                identity: None,
                plug: UsbPlug::Driver { driver: driver.clone(), properties: known },
                driver,
            })
        },
        then,
    );
}

/// Second part: sends the commands to QEMU.
fn go(owner: &mut Owner, id: DeviceId, resolved: Result<Resolved, ChangeError>, reply: Reply) {
    let resolved = match resolved {
        Ok(resolved) => resolved,
        Err(error) => return plug::abandon(owner, &id, reply, error),
    };
    let unused = match &resolved.file {
        Some(file) => owner.inventory.check_unused(resolved.identity, file),
        None => Ok(()),
    };
    if let Err(error) = unused.and_then(|()| plug::ensure_controller(owner, Controller::Usb)) {
        return plug::abandon(owner, &id, reply, error);
    }
    let Resolved { driver, description, file, identity, plug: plug_as } = resolved;
    if let Some(entry) = owner.inventory.device_mut(id.as_str()) {
        entry.driver = driver;
        entry.kind = Kind::Usb { description, file, identity };
    }
    let bus = owner.machine.usb_bus().unwrap_or_default();
    let steps = plan::add_usb(&id, &plug_as, bus);
    match plug_as {
        UsbPlug::Stick { image, readonly } => {
            plug::plug_with_image(owner, id, (image, readonly, DiskOptions::default()), steps, reply, || {});
        }
        _ => plug::plug(owner, id, steps, reply, || {}),
    }
}
