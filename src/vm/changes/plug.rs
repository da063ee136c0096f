//! What all hot-plugs share: controllers, slots, reserving, committing.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::qemu::plan::{self, Controller, Step};
use crate::spec::{DeviceId, DiskOptions, Image};

use super::answer;
use crate::vm::changes::taken;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::owner::{Owner, Reply};
use crate::vm::state::image_holder;
use crate::vm::state::inventory::{Entry, Kind, Phase};
use crate::vm::state::opened::{self, ImageNodes};
use crate::vm::state::plugged::Plugged;

/// Reserves the id of a device that is about to be plugged.
pub(super) fn reserve(
    owner: &mut Owner,
    wanted: Option<DeviceId>,
    prefix: &'static str,
    driver: &str,
    kind: Kind,
) -> Result<DeviceId, ChangeError> {
    let id = owner.inventory.free_id(wanted, prefix)?;
    owner.inventory.insert(Entry {
        id: id.clone(),
        driver: driver.to_owned(),
        slot: None,
        phase: Phase::Adding,
        taken: None,
        kind,
    });
    Ok(id)
}

/// Reserves a slot for a reserved device; returns the bus to name in `device_add`.
pub(super) fn take_slot(owner: &mut Owner, id: &str) -> Result<Option<String>, ChangeError> {
    let bus = owner.inventory.slots.take(id).map_err(|none| {
        ChangeError::new(ErrorKind::NoFreeSlot, none.to_string()).hint(match owner.is_wrapped() {
            true => "each `-device pcie-root-port,id=ID,chassis=N` on QEMU's command line is one",
            false => "start the VM with more of them (`--hotplug-slots N`), or add disks with `bus=scsi`, which share one slot",
        })
    })?;
    let slot = owner.inventory.slots.slot_of(id).map(str::to_owned);
    if let Some(entry) = owner.inventory.device_mut(id) {
        entry.slot = slot;
    }
    Ok(bus)
}

/// Makes sure that a controller exists or is being added: QEMU executes commands in order, so a command that is sent after it finds
/// it.
pub(super) fn ensure_controller(owner: &mut Owner, controller: Controller) -> Result<(), ChangeError> {
    let id = controller.id(owner.machine.ids());
    let came_with_one = match controller {
        Controller::Usb => owner.machine.came_with_usb(),
        Controller::Scsi => owner.machine.came_with_scsi(),
    };
    if came_with_one {
        return Ok(());
    }
    match owner.inventory.device(id).map(|entry| entry.phase) {
        None => {}
        // a device that is being plugged into it now fails with it
        Some(Phase::Removing) => {
            let kind = ErrorKind::NotNow { state: "removing".to_owned() };
            let error = ChangeError::new(kind, format!("controller '{id}' is being removed"));
            return Err(error.hint("try again when the guest has released it"));
        }
        Some(_) => return Ok(()),
    }
    let possible = match controller {
        Controller::Usb => owner.machine.hot_usb(),
        Controller::Scsi => owner.machine.hot_scsi(),
    };
    if !possible {
        let (what, flag) = match controller {
            Controller::Usb => ("USB", "--usb"),
            Controller::Scsi => ("SCSI", "--disk …,bus=scsi"),
        };
        let message =
            format!("a {} machine cannot be given a {what} controller while it runs", owner.machine.kind());
        let error = ChangeError::unsupported(message);
        return Err(match owner.is_wrapped() {
            true => error.hint("it can have one from the start, by QEMU's command line"),
            false => error.hint(format!("start the VM with `{flag}`")),
        });
    }
    let device: DeviceId = id.parse().map_err(|error| ChangeError::invalid("id", error))?;
    owner.inventory.insert(Entry {
        id: device,
        driver: controller.driver(&owner.machine),
        slot: None,
        phase: Phase::Adding,
        taken: None,
        kind: Kind::Controller,
    });
    let bus = match take_slot(owner, id) {
        Ok(bus) => bus,
        Err(error) => {
            owner.inventory.remove(id);
            return Err(error);
        }
    };
    let steps = plan::add_controller(&owner.machine, controller, bus.as_deref());
    let commands = Plugged::commands(&steps);
    owner.run_plan(steps, move |owner, result| match result {
        Ok(_) => {
            owner.plugged.add(id, commands);
            commit(owner, id);
            taken::follow(owner, id);
        }
        Err(error) => {
            log::warn!("controller '{id}' could not be plugged: {error}");
            owner.inventory.remove(id);
        }
    });
    Ok(())
}

/// Runs the steps that plug a reserved device; commits and replies with it, or rolls back. `undo` cleans up on the host.
pub(super) fn plug(
    owner: &mut Owner,
    id: DeviceId,
    steps: Vec<Step>,
    reply: Reply,
    undo: impl FnOnce() + Send + 'static,
) {
    let commands = Plugged::commands(&steps);
    owner.run_plan(steps, move |owner, result| {
        owner.journal.finished(id.as_str());
        match result {
            Ok(_) => {
                owner.plugged.add(id.as_str(), commands);
                committed(owner, &id, reply);
            }
            Err(error) => {
                owner.inventory.remove(id.as_str());
                undo();
                answer(reply, Err(error));
            }
        }
    });
}

/// The same for a device with an image: opens the image first, and checks what QEMU has opened.
pub(super) fn plug_with_image(
    owner: &mut Owner,
    id: DeviceId,
    (image, readonly, options): (Image, bool, DiskOptions),
    steps: Vec<Step>,
    reply: Reply,
    undo: impl FnOnce() + Send + 'static,
) {
    let held = image.clone();
    let opening = plan::open_image(id.as_str(), &image, readonly, &options);
    let commands = Plugged::commands(&[opening.as_slice(), &steps].concat());
    open_image(owner, id.to_string(), (image, readonly, options), move |owner, opened| match opened {
        Err(error) => {
            undo();
            abandon(owner, &id, reply, error);
        }
        // QEMU takes the write lock only here
        Ok(()) => owner.run_plan(steps, move |owner, result| match result {
            Ok(_) => {
                owner.journal.finished(id.as_str());
                owner.plugged.add(id.as_str(), commands);
                committed(owner, &id, reply);
            }
            Err(error) => name_holder(owner, &held, error, move |owner, error| {
                close_image(owner, id.to_string(), move |owner, _| {
                    undo();
                    abandon(owner, &id, reply, error);
                });
            }),
        }),
    });
}

/// Opens an image as block nodes of this name and checks what QEMU has open then. On a mismatch all of it is closed again.
pub(super) fn open_image(
    owner: &mut Owner,
    name: String,
    (image, readonly, options): (Image, bool, DiskOptions),
    then: impl FnOnce(&mut Owner, Result<(), ChangeError>) + Send + 'static,
) {
    owner.run_plan(plan::open_image(&name, &image, readonly, &options), move |owner, result| {
        if let Err(error) = result {
            return name_holder(owner, &image, error, |owner, error| then(owner, Err(error)));
        }
        let session = owner.session.clone();
        let files = owner.files;
        let images = ImageNodes::from([(name.clone(), image.clone())]);
        let checked = async move { opened::check(&session, files, images).await };
        owner.spawn(checked, move |owner, checked| match checked {
            Ok(()) => {
                owner.journal.opened(&name, image);
                then(owner, Ok(()));
            }
            Err(error) => close_image(owner, name, move |owner, _| then(owner, Err(error))),
        });
    });
}

/// Adds who holds an image to QEMU's error, which says only that it is locked.
fn name_holder(
    owner: &mut Owner,
    image: &Image,
    error: ChangeError,
    then: impl FnOnce(&mut Owner, ChangeError) + Send + 'static,
) {
    if !image_holder::is_lock(&error.message) {
        return then(owner, error);
    }
    let root = owner.facts.run_directory.parent().map(Path::to_owned);
    let files: Vec<PathBuf> = image.layers().map(|layer| layer.file.clone()).collect();
    let (said, own_qemu) = (error.message.clone(), owner.process.pid());
    let look = move || {
        let paths = files.iter().map(PathBuf::as_path);
        let found = image_holder::find(root.as_deref(), paths, &said, own_qemu);
        Ok(match found {
            Some(holder) => holder.refusal(error),
            None => image_holder::unknown(&files, error),
        })
    };
    owner.spawn_blocking(look, move |owner, named| {
        let (Ok(error) | Err(error)) = named;
        then(owner, error);
    });
}

/// Closes an image that no device uses any more; `then` gets an error, which has been logged already.
pub(super) fn close_image(
    owner: &mut Owner,
    name: String,
    then: impl FnOnce(&mut Owner, Result<(), ChangeError>) + Send + 'static,
) {
    owner.run_plan(plan::remove_image(&name), move |owner, result| {
        match &result {
            Ok(_) => owner.journal.closed(&name),
            Err(error) => log::warn!("the image of '{name}' could not be closed: {error}"),
        }
        then(owner, result.map(|_| ()));
    });
}

/// Deletes the I/O thread of a removed disk.
pub(super) fn end_thread(owner: &mut Owner, disk: String, then: impl FnOnce(&mut Owner) + Send + 'static) {
    owner.run_plan(plan::remove_iothread(&disk), move |owner, result| {
        if let Err(error) = result {
            log::warn!("the I/O thread of '{disk}' could not be ended: {error}");
        }
        then(owner);
    });
}

/// Rolls back a reserved device and replies with the error.
pub(super) fn abandon(owner: &mut Owner, id: &DeviceId, reply: Reply, error: ChangeError) {
    owner.inventory.remove(id.as_str());
    owner.journal.finished(id.as_str());
    answer(reply, Err(error));
}

/// Commits a device that QEMU has plugged, and replies with it.
pub(super) fn committed(owner: &mut Owner, id: &DeviceId, reply: Reply) {
    commit(owner, id.as_str());
    taken::reply_when_known(owner, id.as_str(), reply);
}

fn commit(owner: &mut Owner, id: &str) {
    if let Some(entry) = owner.inventory.commit(id) {
        owner.bus.publish("VMRUN_DEVICE_ADDED", json!({ "id": entry.id, "driver": entry.driver }));
    }
}
