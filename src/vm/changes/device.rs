//! `device-add`: any device that QEMU can hot-plug.

use serde_json::{Map, Value, json};

use crate::qemu::machine::Family;
use crate::qemu::plan::{self, Controller};
use crate::qemu::query;
use crate::qemu::{Command, PlugTarget};
use crate::qmp::Session;
use crate::qmp::qtree::Tree;
use crate::spec::vm::ExtraDevice;
use crate::spec::{DeviceId, DeviceSpec};

use super::{answer, plug, properties};
use crate::vm::error::ChangeError;
use crate::vm::owner::{Owner, Reply};
use crate::vm::state::inventory::Kind;

/// The bus that has the slots.
const ROOT_BUS: &str = "pcie.0";

/// The kind of bus that a driver needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Requirement {
    Slot,
    Usb,
    Scsi,
    /// QEMU finds the bus itself.
    Nothing,
}

/// Plugs a device. vmrun picks the bus and slot unless the properties name one.
pub(super) fn add(owner: &mut Owner, device: DeviceSpec, reply: Reply) {
    let DeviceSpec { driver, id, properties } = device;
    let id = match plug::reserve(owner, id, "dev", &driver, Kind::Other) {
        Ok(id) => id,
        Err(error) => return answer(reply, Err(error)),
    };
    let session = owner.session.clone();
    let family = owner.machine.family();
    let full_name = owner.machine.virtio(&driver);
    let work = async move {
        let driver = model(&session, driver, full_name).await?;
        let typed = properties::typed(&session, &driver, &properties).await?;
        let requirement = match typed.get("bus") {
            Some(bus) => {
                check_bus(&session, &driver, bus.as_str().unwrap_or_default()).await?;
                Requirement::Nothing
            }
            None => requirement(&session, &driver).await?,
        };
        if family == Family::Ccw {
            check_pci_on_ccw(&session, &driver).await?;
        }
        Ok((driver, typed, requirement))
    };
    owner.spawn(work, move |owner, result: Result<_, ChangeError>| match result {
        Ok((driver, typed, requirement)) => go(owner, id, driver, typed, requirement, reply),
        Err(error) => plug::abandon(owner, &id, reply, error),
    });
}

/// The model that a short name such as `virtio-rng` stands for: on this machine QEMU's lists have only the full name.
async fn model(session: &Session, driver: String, full_name: String) -> Result<String, ChangeError> {
    let may_be_short = ["virtio-", "vhost-"].iter().any(|family| driver.starts_with(family));
    let is_short = may_be_short
        && is_a(session, &full_name, "device").await?
        && !is_a(session, &driver, "device").await?;
    Ok(if is_short { full_name } else { driver })
}

/// Asks QEMU for the driver's base types, since names tell the kind only of well-known drivers.
async fn requirement(session: &Session, driver: &str) -> Result<Requirement, ChangeError> {
    for (family, requirement) in [
        ("pci-device", Requirement::Slot),
        ("usb-device", Requirement::Usb),
        ("scsi-device", Requirement::Scsi),
        ("virtio-ccw-device", Requirement::Slot),
    ] {
        if is_a(session, driver, family).await? {
            return Ok(requirement);
        }
    }
    Ok(Requirement::Nothing)
}

/// QEMU's bus types, as its device tree names them, by the family of models that they take.
const BUSES: [(&str, &[&str]); 4] = [
    ("pci-device", &["PCI", "PCIE", "CXL"]),
    ("usb-device", &["usb-bus"]),
    ("scsi-device", &["SCSI"]),
    ("virtio-ccw-device", &["virtual-css-bus"]),
];

/// Refuses a bus that the machine does not have, and lists those that fit. A bus that is named by a path is left to QEMU.
async fn check_bus(session: &Session, driver: &str, bus: &str) -> Result<(), ChangeError> {
    if bus.contains('/') {
        return Ok(());
    }
    let tree = Tree::parse(&session.text(&query::device_tree()).await?);
    // an unreadable answer proves nothing
    if tree.buses.is_empty() || tree.buses.iter().any(|other| other.name == bus) {
        return Ok(());
    }
    let mut fitting: &[&str] = &[];
    for (family, kinds) in BUSES {
        if is_a(session, driver, family).await? {
            fitting = kinds;
        }
    }
    let named = tree.buses.iter().filter(|bus| fitting.is_empty() || fitting.contains(&bus.kind.as_str()));
    let mut names: Vec<&str> = named.map(|bus| bus.name.as_str()).collect();
    names.dedup();
    // this bus accepts no hot-plug
    names.retain(|name| *name != ROOT_BUS);
    let error = ChangeError::no_such("bus", bus);
    Err(match names.is_empty() {
        true => error.hint("leave out `bus=`: a fitting one is found"),
        false => error.hint(format!(
            "leave out `bus=`, and a fitting one is found; '{driver}' can be on {}",
            names.join(", ")
        )),
    })
}

/// PCI models that always have MSI-X.
const WITH_MSI_X: [&str; 4] = ["vfio-pci", "nvme", "e1000e", "igb"];

/// s390x supports PCI devices with MSI-X only. QEMU (7.2 to 11.1) refuses another after it has made the `zpci` device for it, and
/// leaves that behind: it fails every later migration, and so saves and snapshots, and removing it crashes QEMU.
async fn check_pci_on_ccw(session: &Session, driver: &str) -> Result<(), ChangeError> {
    if WITH_MSI_X.contains(&driver) || !is_a(session, driver, "pci-device").await? {
        return Ok(());
    }
    let message =
        format!("QEMU's s390x machines cannot be given a PCI device such as '{driver}' while they run");
    let error = ChangeError::unsupported(message);
    let twin = driver.replace("-pci", "-ccw");
    Err(match twin != driver && is_a(session, &twin, "virtio-ccw-device").await? {
        true => error.hint(format!("use '{twin}'")),
        false => error.hint(format!("of PCI devices these can be: {}", WITH_MSI_X.join(", "))),
    })
}

async fn is_a(session: &Session, driver: &str, family: &str) -> Result<bool, ChangeError> {
    let ask = Command::new("qom-list-types", json!({ "implements": family, "abstract": false }));
    let types = session.run(&ask).await?;
    Ok(types.as_array().is_some_and(|types| types.iter().any(|kind| kind["name"] == driver)))
}

fn go(
    owner: &mut Owner,
    id: DeviceId,
    driver: String,
    mut properties: Map<String, Value>,
    requirement: Requirement,
    reply: Reply,
) {
    if let Some(entry) = owner.inventory.device_mut(id.as_str()) {
        entry.driver.clone_from(&driver);
    }
    let bus = match requirement {
        Requirement::Slot => plug::take_slot(owner, id.as_str()),
        Requirement::Usb => plug::ensure_controller(owner, Controller::Usb)
            .map(|()| owner.machine.usb_bus().map(str::to_owned)),
        Requirement::Scsi => plug::ensure_controller(owner, Controller::Scsi)
            .map(|()| Some(owner.machine.scsi_bus().to_owned())),
        Requirement::Nothing => named_slot(owner, &id, &properties),
    };
    let bus = match bus {
        Ok(bus) => bus,
        Err(error) => return plug::abandon(owner, &id, reply, error),
    };
    if let (Some(bus), Requirement::Nothing) = (&bus, requirement) {
        properties.insert("bus".to_owned(), json!(bus));
    }
    let device = ExtraDevice { driver, id: id.clone(), properties };
    let steps = plan::add_device(&device, bus.as_deref());
    plug::plug(owner, id, steps, reply, || {});
}

/// Reserves the slot that the user named; QEMU itself would accept a second device in it without an error.
fn named_slot(
    owner: &mut Owner,
    id: &DeviceId,
    properties: &Map<String, Value>,
) -> Result<Option<String>, ChangeError> {
    let Some(bus) = properties.get("bus").and_then(Value::as_str) else { return Ok(None) };
    if owner.machine.plug_target() == PlugTarget::Slots {
        if bus == ROOT_BUS {
            let message = format!("QEMU plugs nothing into '{bus}' while the machine runs");
            let hint = match owner.is_wrapped() {
                true => "leave out `bus=`: a free `pcie-root-port` of QEMU's command line is found",
                false => {
                    "leave out `bus=`: a free hot-plug slot is found (`--hotplug-slots N` at the start makes more)"
                }
            };
            return Err(ChangeError::unsupported(message).hint(hint));
        }
        let held = owner
            .inventory
            .slots
            .iter()
            .find(|(name, _)| *name == bus)
            .map(|(_, device)| device.map(str::to_owned));
        match held {
            Some(Some(device)) => {
                let message = format!("slot '{bus}' is taken, by '{device}'");
                return Err(ChangeError::new(
                    crate::vm::error::ErrorKind::AlreadyThere { id: device },
                    message,
                ));
            }
            Some(None) => {
                owner.inventory.slots.restore(bus, id.as_str());
                if let Some(entry) = owner.inventory.device_mut(id.as_str()) {
                    entry.slot = Some(bus.to_owned());
                }
            }
            None => {}
        }
    }
    Ok(Some(bus.to_owned()))
}
