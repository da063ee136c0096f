//! `device-add`: anything that QEMU can hot-plug.

use serde_json::{Map, Value, json};

use crate::qemu::plan::{self, Controller};
use crate::qemu::{Command, PlugTarget};
use crate::qmp::Session;
use crate::spec::vm::ExtraDevice;
use crate::spec::{DeviceId, DeviceSpec};

use super::super::error::ChangeError;
use super::super::inventory::Kind;
use super::super::owner::{Owner, Reply};
use super::{answer, plug, properties};

/// What kind of bus a driver wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    Slot,
    Usb,
    Scsi,
    /// QEMU finds it by itself.
    Nothing,
}

/// Plugs a device; its place is found unless the properties name one.
pub(super) fn add(owner: &mut Owner, device: DeviceSpec, reply: Reply) {
    let DeviceSpec { driver, id, properties } = device;
    let id = match plug::book(owner, id, "dev", &driver, Kind::Other) {
        Ok(id) => id,
        Err(error) => return answer(reply, Err(error)),
    };
    let session = owner.session.clone();
    let work = async move {
        let typed = properties::typed(&session, &driver, &properties).await?;
        let wants = match typed.contains_key("bus") {
            true => Wants::Nothing,
            false => wants(&session, &driver).await?,
        };
        Ok((driver, typed, wants))
    };
    owner.spawn(work, move |owner, result: Result<_, ChangeError>| match result {
        Ok((driver, typed, wants)) => go(owner, id, driver, typed, wants, reply),
        Err(error) => plug::abandon(owner, &id, reply, error),
    });
}

/// Asks QEMU what the driver is, since names tell it for the best known only.
async fn wants(session: &Session, driver: &str) -> Result<Wants, ChangeError> {
    for (family, wants) in [
        ("pci-device", Wants::Slot),
        ("usb-device", Wants::Usb),
        ("scsi-device", Wants::Scsi),
        ("virtio-ccw-device", Wants::Slot),
    ] {
        let ask = Command::new("qom-list-types", json!({ "implements": family, "abstract": false }));
        let types = session.run(&ask).await?;
        if types.as_array().is_some_and(|types| types.iter().any(|kind| kind["name"] == driver)) {
            return Ok(wants);
        }
    }
    Ok(Wants::Nothing)
}

fn go(
    owner: &mut Owner,
    id: DeviceId,
    driver: String,
    mut properties: Map<String, Value>,
    wants: Wants,
    reply: Reply,
) {
    let bus = match wants {
        Wants::Slot => plug::take_slot(owner, id.as_str()),
        Wants::Usb => plug::ensure_controller(owner, Controller::Usb)
            .map(|()| owner.machine.usb_bus().map(str::to_owned)),
        Wants::Scsi => plug::ensure_controller(owner, Controller::Scsi)
            .map(|()| Some(owner.machine.scsi_bus().to_owned())),
        Wants::Nothing => named_slot(owner, &id, &properties),
    };
    let bus = match bus {
        Ok(bus) => bus,
        Err(error) => return plug::abandon(owner, &id, reply, error),
    };
    if let (Some(bus), Wants::Nothing) = (&bus, wants) {
        properties.insert("bus".to_owned(), json!(bus));
    }
    let device = ExtraDevice { driver, id: id.clone(), properties };
    let steps = plan::add_device(&device, bus.as_deref());
    plug::plug(owner, id, steps, reply, || {});
}

/// A slot that the user named counts as taken; QEMU itself would accept a second device on it in silence.
fn named_slot(
    owner: &mut Owner,
    id: &DeviceId,
    properties: &Map<String, Value>,
) -> Result<Option<String>, ChangeError> {
    let Some(bus) = properties.get("bus").and_then(Value::as_str) else { return Ok(None) };
    if owner.machine.plug_target() == PlugTarget::Slots {
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
                    super::super::error::ErrorKind::AlreadyThere { id: device },
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
