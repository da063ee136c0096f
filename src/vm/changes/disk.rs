//! `disk-add` and `disk-resize`.

use std::path::PathBuf;

use crate::host::disk_io::{self, DiskIoError};
use crate::host::made::{MadeFile, NewFile};
use crate::qemu::plan::{self, Controller};
use crate::qemu::{boot_order, disk_options};
use crate::spec::{Boot, DeviceId, Disk, DiskBus, DiskSpec, Limits, Size};
use crate::vm::state::inventory::DeviceKind;
use crate::vm::state::run_state::RunState;

use super::{answer, guard, plug};
use crate::vm::change::Done;
use crate::vm::changes::guard::Needs;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::owner::{Owner, Reply};
use crate::vm::state::images::{Access, Opened};
use crate::vm::state::inventory::{DiskFacts, Kind};

/// Opens or creates an image and plugs it, as one change that is rolled back completely on failure.
pub(super) fn add(owner: &mut Owner, disk: DiskSpec, allow: Vec<PathBuf>, reply: Reply) {
    let Some(file) = disk.file.clone() else {
        return answer(
            reply,
            Err(ChangeError::invalid("file", "a disk that is added to a running VM needs a file")),
        );
    };
    let checked = check_bus(owner, disk.bus).and_then(|()| check_options(owner, &disk));
    if let Err(error) = checked {
        return answer(reply, Err(error));
    }
    let kind = Kind::Disk(DiskFacts {
        file: Some(file.display().to_string()),
        format: disk.format,
        bus: disk.bus,
        size_bytes: None,
        readonly: disk.readonly,
        removable: false,
        serial: disk.serial.clone(),
        node: None,
        identity: None,
        foreign: false,
        limits: Limits::default(),
        options: disk.options,
    });
    let id = match plug::reserve(owner, disk.id.clone(), "disk", disk.bus.as_str(), kind) {
        Ok(id) => id,
        Err(error) => return answer(reply, Err(error)),
    };
    // a missing slot is reported before a file is made
    let bus = match bus_for(owner, &id, disk.bus) {
        Ok(bus) => bus,
        Err(error) => return plug::abandon(owner, &id, reply, error),
    };
    let images = owner.images.clone();
    let begun = {
        let (disk, file, images) = (disk.clone(), file.clone(), images.clone());
        move || images.begin(&disk, &file)
    };
    owner.spawn_blocking(begun, move |owner, new| {
        // includes the image that is made, which has no name yet: a takeover removes it if the change was never finished
        let noted = new.and_then(|new| {
            owner.journal.adding(id.as_str(), new.as_ref().map(NewFile::made))?;
            Ok(new)
        });
        let new = match noted {
            Ok(new) => new,
            Err(error) => return plug::abandon(owner, &id, reply, error),
        };
        owner.spawn_blocking(
            move || {
                let (opened, made) = images.open_disk(&disk, &file, new, &allow, Access::Disk)?;
                let files = opened.image.layers().map(|layer| layer.file.as_path());
                match disk_io::check(&disk.options, files) {
                    Ok(()) => Ok((disk, opened, made)),
                    Err(error) => {
                        made.iter().for_each(MadeFile::remove);
                        Err(ChangeError::hinted(DiskIoError::hint)(error))
                    }
                }
            },
            move |owner, result| match result {
                Ok((disk, opened, made)) => go(owner, id, disk, opened, made, bus, reply),
                Err(error) => plug::abandon(owner, &id, reply, error),
            },
        );
    });
}

fn check_bus(owner: &Owner, bus: DiskBus) -> Result<(), ChangeError> {
    let has = |id: &str| owner.inventory.device(id).is_some();
    let usb = has(Controller::Usb.id(owner.machine.ids())) || owner.machine.came_with_usb();
    let scsi = has(Controller::Scsi.id(owner.machine.ids())) || owner.machine.came_with_scsi();
    if owner.machine.can_hot_plug(bus, usb, scsi) {
        return Ok(());
    }
    let machine = owner.machine.kind();
    let error = ChangeError::unsupported(format!("a {machine} machine takes no {bus} disk while it runs"));
    let possible: Vec<&str> = DiskBus::ALL
        .iter()
        .filter(|bus| owner.machine.can_hot_plug(**bus, usb, scsi))
        .map(|bus| bus.as_str())
        .collect();
    Err(match bus {
        DiskBus::Usb if owner.machine.has_usb() => error.hint("start the VM with `--usb`"),
        // a machine without slots: its SCSI controller takes disks, if it was there from the start
        _ if possible.is_empty() => {
            error.hint("use bus=scsi, and start the VM with a first disk on that bus")
        }
        _ => error.hint(format!("it takes disks on: {}", possible.join(", "))),
    })
}

/// Refuses options that the bus does not support, and a boot order number that another device has.
fn check_options(owner: &Owner, disk: &DiskSpec) -> Result<(), ChangeError> {
    if let Some(why) = disk_options::refusal(&owner.machine, disk.bus, &disk.options) {
        return Err(ChangeError::unsupported(why));
    }
    let Some(number) = disk.options.boot else { return Ok(()) };
    let spec = owner.origin.spec();
    if spec.is_some_and(|spec| matches!(spec.boot, Boot::Kernel { .. } | Boot::Squashfs { .. })) {
        let message = "QEMU loads this VM's kernel, and boots no disk";
        return Err(ChangeError::unsupported(message).hint("leave out `boot=`"));
    }
    let said = owner
        .inventory
        .devices()
        .filter_map(|entry| Some((entry.id.to_string(), u32::from(entry.kind.disk()?.options.boot?))));
    let at_the_start = spec.map(boot_order::taken).unwrap_or_default();
    let at_the_start = at_the_start.into_iter().filter(|(id, _)| owner.inventory.device(id).is_some());
    match said.chain(at_the_start).find(|(_, index)| *index == u32::from(number)) {
        None => Ok(()),
        Some((id, _)) => {
            let message = format!("boot={number} is the place of '{id}' in the boot order");
            let error = ChangeError::new(ErrorKind::AlreadyThere { id }, message);
            Err(error.hint("choose another number: the firmware tries the lowest first"))
        }
    }
}

/// The bus for the disk: a slot of its own, or a controller's bus.
fn bus_for(owner: &mut Owner, id: &DeviceId, bus: DiskBus) -> Result<Option<String>, ChangeError> {
    match bus {
        DiskBus::Virtio | DiskBus::Nvme => plug::take_slot(owner, id.as_str()),
        DiskBus::Scsi => {
            plug::ensure_controller(owner, Controller::Scsi)?;
            Ok(Some(owner.machine.scsi_bus().to_owned()))
        }
        DiskBus::Usb => {
            plug::ensure_controller(owner, Controller::Usb)?;
            Ok(owner.machine.usb_bus().map(str::to_owned))
        }
        DiskBus::Sata => Ok(None),
    }
}

/// Second part: the image is open; sends the commands to QEMU.
fn go(
    owner: &mut Owner,
    id: DeviceId,
    spec: DiskSpec,
    image: Opened,
    made: Option<MadeFile>,
    bus: Option<String>,
    reply: Reply,
) {
    let remove_made = move || made.iter().for_each(MadeFile::remove);
    if let Err(error) = owner.inventory.check_unused(image.identity, &image.shown) {
        // the image was made for this disk, but another device uses it by now: keep it
        return plug::abandon(owner, &id, reply, error);
    }
    let disk = Disk {
        id: id.clone(),
        image: image.image,
        bus: spec.bus,
        readonly: spec.readonly,
        serial: spec.serial,
        options: spec.options,
    };
    let driver = crate::qemu::drives::disk(&owner.machine, &disk, bus.as_deref()).driver;
    if let Some(entry) = owner.inventory.device_mut(id.as_str()) {
        entry.driver = driver;
        if let Some(facts) = entry.kind.disk_mut() {
            facts.format = Some(disk.image.format);
            facts.size_bytes = image.size_bytes;
            facts.identity = image.identity;
            facts.node = Some(id.to_string());
        }
    }
    let steps = plan::add_disk(&owner.machine, &disk, bus.as_deref());
    plug::plug_with_image(owner, id, (disk.image, disk.readonly, disk.options), steps, reply, remove_made);
}

/// Makes a disk larger.
pub(super) fn resize(owner: &mut Owner, id: String, size: Size, reply: Reply) {
    let Some(facts) = owner.inventory.device(&id).and_then(|entry| entry.kind.disk()).cloned() else {
        let error = owner.inventory.no_such(DeviceKind::Disk, &id);
        return answer(reply, Err(error));
    };
    if let Err(error) = check_resize(&id, &facts, size) {
        return answer(reply, Err(error));
    }
    if owner.inventory.run_state == RunState::Running {
        return resize_now(owner, id, size, reply);
    }
    let session = owner.session.clone();
    let checked = async move { guard::check(&session, "resizing a disk", Needs::Images).await };
    owner.spawn(checked, move |owner, checked| match checked {
        Ok(()) => resize_now(owner, id, size, reply),
        Err(error) => answer(reply, Err(error)),
    });
}

fn resize_now(owner: &mut Owner, id: String, size: Size, reply: Reply) {
    owner.run_plan(plan::disk_resize(&id, size.bytes()), move |owner, result| {
        let done = result.and_then(|_| {
            let entry = owner.inventory.device_mut(&id).ok_or_else(|| ChangeError::no_such("disk", &id))?;
            if let Some(facts) = entry.kind.disk_mut() {
                facts.size_bytes = Some(size.bytes());
            }
            Ok(Done::Device(Box::new(entry.clone())))
        });
        answer(reply, done);
    });
}

fn check_resize(id: &str, facts: &DiskFacts, size: Size) -> Result<(), ChangeError> {
    if facts.removable || facts.readonly {
        return Err(ChangeError::unsupported(format!("'{id}' is read-only and cannot be resized")));
    }
    let why = match facts.bus {
        DiskBus::Nvme => Some("QEMU cannot resize an NVMe disk while it is plugged"),
        DiskBus::Usb => Some("a guest never learns of a new size of a USB disk"),
        DiskBus::Virtio | DiskBus::Scsi | DiskBus::Sata => None,
    };
    if let Some(why) = why {
        let error = ChangeError::unsupported(format!("'{id}' cannot be resized: {why}"));
        return Err(error.hint(
            "unplug it (`disk-remove`), resize its image (`qemu-img resize`) and plug it again (`disk-add`)",
        ));
    }
    match facts.size_bytes {
        Some(now) if size.bytes() < now => {
            let message = format!("'{id}' has {now} bytes and would lose data at {}", size.bytes());
            Err(ChangeError::invalid("size_bytes", message).hint("disks can only be made larger"))
        }
        _ => Ok(()),
    }
}
