//! The disks of a request: naming, finding or making them, ids; and the initial inventory.

use std::path::{Path, PathBuf};

use crate::host::disk_io::{self, DiskIoError};
use crate::host::files;
use crate::qemu::models::Class;
use crate::qemu::plan::Controller;
use crate::qemu::{Machine, Slots, drives, ids};
use crate::spec::{
    Boot, DeviceId, Disk, DiskBus, DiskOptions, DiskSpec, ImageFormat, Limits, Request, VmSpec,
};

use super::disk_names::Names;
use super::{Made, Plan, boot, unpacked};
use crate::vm::error::ChangeError;
use crate::vm::start_error::{StartError, system};
use crate::vm::state::images::{Access, Images, Opened};
use crate::vm::state::inventory::{DiskFacts, Entry, Inventory, Kind, Phase};
use crate::vm::state::nics;

/// The boot image in messages.
const IMAGE: &str = "image";

/// The disks with what is known about their images.
pub(super) struct Disks {
    pub(super) disks: Vec<Disk>,
    opened: Vec<Opened>,
}

/// Resolves all disks; the image is the first if it is a disk.
pub(super) fn all(
    request: &Request,
    plan: &Plan,
    images: &Images,
    made: &mut Made,
) -> Result<Disks, StartError> {
    let state = &plan.state;
    let mut specs: Vec<(String, DiskSpec)> = Vec::new();
    if let Some(image) = plan.image.as_ref().filter(|_| boot::image_is_disk(request, &plan.boot)) {
        let mut disk = DiskSpec { file: Some(image.clone()), ..request.image_options.clone() };
        // a disk beside an explicit kernel; never meant to be written
        disk.readonly |= boot::is_iso(image);
        if request.linuxkit && disk.bus == DiskBus::default() {
            disk.bus = DiskBus::Sata;
        }
        specs.push((IMAGE.to_owned(), disk));
    } else if (DiskSpec { file: None, ..request.image_options.clone() }) != DiskSpec::default() {
        return Err(StartError::usage("options of IMAGE are for disk images, not for CDs and kernels"));
    }
    let before = specs.len();
    let names = Names::look(&request.disks, before, state);
    specs.extend(request.disks.iter().map(|disk| (format!("--disk {disk}"), disk.clone())));
    if request.linuxkit && !boot::has_linuxkits_disks(request) {
        specs
            .iter_mut()
            .filter(|(_, disk)| disk.bus == DiskBus::Sata)
            .for_each(|(_, disk)| disk.bus = DiskBus::Virtio);
    }
    let taken: Vec<DeviceId> = specs.iter().filter_map(|(_, disk)| disk.id.clone()).collect();
    let mut all = Disks { disks: Vec::new(), opened: Vec::new() };
    for (position, (what, disk)) in specs.into_iter().enumerate() {
        let id = match &disk.id {
            Some(id) => id.clone(),
            None => free_id(position, &taken, &all.disks)?,
        };
        let file = match &disk.file {
            Some(file) => files::absolute(file).map_err(system("the working directory"))?,
            None => in_state(names.path(&disk, position.saturating_sub(before), &id, state))?,
        };
        // a new disk gets linuxkit's format; an existing one keeps its own
        let made_as =
            request.linuxkit.then_some(ImageFormat::Qcow2).filter(|_| file.symlink_metadata().is_err());
        let disk = DiskSpec { format: disk.format.or(made_as), ..disk };
        let overlaid = request.ephemeral && !disk.readonly;
        let access = if overlaid { Access::Below } else { Access::Disk };
        // the image under an overlay is opened read-only
        let images = if overlaid || disk.readonly { &images.for_reading() } else { images };
        let (opened, new) = images
            .begin(&disk, &file)
            .and_then(|new| images.open_disk(&disk, &file, new, &request.allow_backing, access))
            .map_err(|error| refused(&what, &file, error))?;
        made.files(new);
        let what_again = what.clone();
        let same = |other: &&Opened| other.identity.is_some() && other.identity == opened.identity;
        if let Some(other) = all.opened.iter().find(same) {
            let message = format!("{what}: the same file as {}, which would corrupt it", other.shown);
            return Err(StartError::usage(message));
        }
        let opened = match overlaid {
            true => {
                images.overlay(&opened, id.as_str()).map_err(|error| StartError::Image { what, error })?
            }
            false => opened,
        };
        disk_io::check(&disk.options, opened.image.layers().map(|layer| layer.file.as_path()))
            .map_err(ChangeError::hinted(DiskIoError::hint))
            .map_err(|error| refused(&what_again, &file, error))?;
        all.disks.push(Disk {
            id,
            image: opened.image.clone(),
            bus: disk.bus,
            readonly: disk.readonly,
            serial: disk.serial,
            options: disk.options,
        });
        all.opened.push(opened);
    }
    Ok(all)
}

/// Adds that the image can be unpacked; the refusal of a packed image as a disk does not say so.
fn refused(what: &str, file: &Path, error: ChangeError) -> StartError {
    let error = match (what, unpacked::packing(file)) {
        (IMAGE, Some(_)) => {
            let hint = error.hint.as_deref().unwrap_or_default();
            let hint = format!("`--unpack` unpacks it into the state directory and starts that; or {hint}");
            error.hint(hint)
        }
        _ => error,
    };
    StartError::Image { what: what.to_owned(), error }
}

/// Must be made by vmrun or not exist: in a state directory that came with an image it could be a link to anywhere.
fn in_state(path: PathBuf) -> Result<PathBuf, StartError> {
    if !path.is_symlink() {
        return Ok(path);
    }
    let hint = format!("name the file that is meant: `--disk {}`", path.display());
    let why = "it is a symbolic link".to_owned();
    Err(StartError::File { what: "disk", path, why, hint: Some(hint) })
}

/// `disk0` for the first and so on, skipping ids that the user chose.
fn free_id(position: usize, taken: &[DeviceId], given: &[Disk]) -> Result<DeviceId, StartError> {
    for number in position.. {
        let id: DeviceId =
            format!("disk{number}").parse().map_err(|error| StartError::usage(format!("{error}")))?;
        if !taken.contains(&id) && given.iter().all(|disk| disk.id != id) {
            return Ok(id);
        }
    }
    Err(StartError::usage("too many disks"))
}

/// The inventory of a VM at its start.
pub(super) fn inventory(machine: &Machine, spec: &VmSpec, disks: &Disks) -> Inventory {
    let mut inventory = Inventory::new(machine, Slots::of(machine, spec));
    for (disk, opened) in disks.disks.iter().zip(&disks.opened) {
        inventory.insert(Entry {
            id: disk.id.clone(),
            driver: drives::disk(machine, disk, None).driver,
            slot: None,
            phase: Phase::Present,
            taken: None,
            kind: Kind::Disk(DiskFacts {
                file: Some(opened.shown.clone()),
                format: Some(disk.image.format),
                bus: disk.bus,
                size_bytes: opened.size_bytes,
                readonly: disk.readonly,
                removable: false,
                serial: disk.serial.clone(),
                node: Some(disk.id.to_string()),
                identity: opened.identity,
                foreign: false,
                limits: Limits::default(),
                options: disk.options,
            }),
        });
    }
    if let Boot::Iso { path } = &spec.boot {
        cdrom(&mut inventory, machine, ids::BOOT_CD, path);
    }
    if let Some(path) = &spec.metadata {
        cdrom(&mut inventory, machine, ids::METADATA_CD, path);
    }
    others(&mut inventory, machine, spec);
    inventory
}

fn cdrom(inventory: &mut Inventory, machine: &Machine, id: &str, path: &Path) {
    let (driver, bus) = drives::cd_driver(machine);
    let Ok(device) = id.parse::<DeviceId>() else { return };
    inventory.insert(Entry {
        id: device,
        driver: driver.to_owned(),
        slot: None,
        phase: Phase::Present,
        taken: None,
        kind: Kind::Disk(DiskFacts {
            file: Some(path.display().to_string()),
            format: Some(ImageFormat::Raw),
            bus,
            size_bytes: std::fs::metadata(path).ok().map(|metadata| metadata.len()),
            readonly: true,
            removable: true,
            serial: None,
            node: Some(id.to_owned()),
            identity: None,
            foreign: false,
            limits: Limits::default(),
            options: DiskOptions::default(),
        }),
    });
}

/// Controllers and extra devices from the start.
fn others(inventory: &mut Inventory, machine: &Machine, spec: &VmSpec) {
    for card in nics::cold(machine, spec) {
        inventory.insert(card);
    }
    let uses_usb = crate::qemu::controllers::uses_usb(machine, spec);
    let mut controllers = Vec::new();
    if uses_usb {
        controllers.push(Controller::Usb);
    }
    if crate::qemu::controllers::uses_scsi(machine, spec) {
        controllers.push(Controller::Scsi);
    }
    for controller in controllers {
        if let Ok(id) = controller.id(machine.ids()).parse::<DeviceId>() {
            inventory.insert(Entry {
                id,
                driver: controller.driver(machine),
                slot: None,
                phase: Phase::Present,
                taken: None,
                kind: Kind::Controller,
            });
        }
    }
    for device in &spec.devices {
        let kind = match Class::of(&device.driver).is_usb() {
            true => Kind::Usb { description: device.driver.clone(), file: None, identity: None },
            false => Kind::Other,
        };
        let slot = inventory.slots.slot_of(device.id.as_str()).map(str::to_owned);
        inventory.insert(Entry {
            id: device.id.clone(),
            driver: device.driver.clone(),
            slot,
            phase: Phase::Present,
            taken: None,
            kind,
        });
    }
}
