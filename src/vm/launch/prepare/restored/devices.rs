//! The devices of a saved VM: those that cannot reach the host are taken from the file, the others must be repeated on the command
//! line.

use std::path::Path;

use serde_json::{Map, Value};

use crate::qemu::plan::{self, Step, UsbPlug};
use crate::qemu::replug::{Replug, What};
use crate::qemu::{Machine, Netdev, hostless, ids, io, quote};
use crate::spec::vm::ExtraDevice;
use crate::spec::{DeviceSpec, Disk, DiskOptions, Request, VmSpec};

use super::super::devices::extra;
use super::images::RestoredImages;
use super::{nonsense, refused};
use crate::vm::changes::saving::Saved;
use crate::vm::start_error::StartError;
use crate::vm::state::opened::ImageNodes;
use crate::vm::state::plugged::{Hot, Plugged, Record};

/// Parses the plugged devices in the record.
pub(super) fn read(record: &Record, machine: &Machine) -> Result<Vec<Replug>, StartError> {
    let read = |hot: &Hot| Replug::read(machine, &hot.id, &hot.commands);
    record.hot.iter().map(|hot| read(hot).map_err(nonsense)).collect()
}

/// Checks the devices of `--device` and `device-add` against the command line: raw properties can refer to anything on the host.
pub(super) fn check(saved: &Saved, spec: &VmSpec, request: &Request, qemu: &Path) -> Result<(), StartError> {
    let plugged = read(&saved.record, &Machine::of(spec))?;
    let plugged = plugged.iter().filter_map(|plug| match &plug.what {
        What::Other(device) => Some(device),
        _ => None,
    });
    let mut given = extra(&request.devices, qemu)?;
    for device in spec.devices.iter().chain(plugged) {
        agree(device, &mut given)?;
    }
    match given.first() {
        Some(device) => Err(StartError::Usage {
            message: format!(
                "--device {}: the saved VM has no such device",
                quote::word(typed(device).as_ref())
            ),
            hint: Some("it can have it when it runs again: `vmrun ctl device-add`".to_owned()),
        }),
        None => Ok(()),
    }
}

/// A device that could refer to something on the host must be on the command line; each there counts once.
fn agree(device: &ExtraDevice, given: &mut Vec<ExtraDevice>) -> Result<(), StartError> {
    let said = given.iter().position(|given| given.driver == device.driver && given.id == device.id);
    let rest: Map<String, Value> = match said.map(|at| given.remove(at)) {
        None if hostless::is_hostless(device) => return Ok(()),
        None => return Err(unsaid(device)),
        Some(given) => {
            if given.properties.iter().any(|(name, value)| device.properties.get(name) != Some(value)) {
                return Err(unsaid(device));
            }
            let rest = device.properties.iter().filter(|(name, _)| !given.properties.contains_key(*name));
            rest.map(|(name, value)| (name.clone(), value.clone())).collect()
        }
    };
    let rest_alone = ExtraDevice { properties: rest, ..device.clone() };
    match hostless::are_places(&rest_alone.properties) || hostless::is_hostless(&rest_alone) {
        true => Ok(()),
        false => Err(unsaid(device)),
    }
}

fn unsaid(device: &ExtraDevice) -> StartError {
    refused(
        format!(
            "device '{}' of the saved VM ({}) could refer to something on this host, which a saved VM's file cannot choose",
            device.id,
            quote::word(device.driver.as_ref())
        ),
        format!("if it is meant, say it again: --device {}", quote::word(typed(device).as_ref())),
    )
}

/// A device as the user types it.
fn typed(device: &ExtraDevice) -> String {
    let text = |value: &Value| match value {
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let properties = device.properties.iter().filter(|(name, _)| !hostless::is_address(name));
    DeviceSpec {
        driver: device.driver.clone(),
        id: Some(device.id.clone()),
        properties: properties.map(|(name, value)| (name.clone(), text(value))).collect(),
    }
    .to_string()
}

/// The plugged devices, with commands that are made here.
pub(super) fn record(
    saved: &Record,
    machine: &Machine,
    opener: &mut RestoredImages<'_>,
) -> Result<(Record, ImageNodes), StartError> {
    let mut hot = Vec::new();
    let mut images = ImageNodes::new();
    for plug in read(saved, machine)? {
        let mut steps = steps(&plug, machine, opener, &mut images)?;
        plug.address.apply(&mut steps);
        hot.push(Hot { id: plug.id.to_string(), commands: Plugged::commands(&steps) });
    }
    let cold = saved.cold.iter().filter(|id| id.parse::<crate::spec::DeviceId>().is_ok());
    Ok((Record { cold: cold.cloned().collect(), hot }, images))
}

fn steps(
    plug: &Replug,
    machine: &Machine,
    opener: &mut RestoredImages<'_>,
    images: &mut ImageNodes,
) -> Result<Vec<Step>, StartError> {
    let bus = plug.address.bus();
    let id = plug.id.as_str();
    Ok(match &plug.what {
        What::Controller(controller) => plan::add_controller(machine, *controller, bus),
        What::Disk { bus: disk_bus, image, serial, options } => {
            let opened = opener.open(id, image)?;
            let disk = Disk {
                id: plug.id.clone(),
                image: opened.image,
                bus: *disk_bus,
                readonly: image.readonly,
                serial: serial.clone(),
                options: *options,
            };
            let opening = plan::open_image(id, &disk.image, disk.readonly, options);
            images.insert(id.to_owned(), disk.image.clone());
            [opening, plan::add_disk(machine, &disk, bus)].concat()
        }
        What::Stick(image) => {
            let opened = opener.open(id, image)?.image;
            let opening = plan::open_image(id, &opened, image.readonly, &DiskOptions::default());
            images.insert(id.to_owned(), opened.clone());
            let stick = UsbPlug::Stick { image: opened, readonly: image.readonly };
            [opening, plan::add_usb(&plug.id, &stick, bus.unwrap_or_default())].concat()
        }
        What::Nic { mac, model, user } => {
            let card = io::Card { id, mac: *mac, model: *model };
            plan::add_nic(machine, &card, &Netdev::user(&ids::netdev(id), user), bus)
        }
        What::Other(device) => plan::add_device(device, bus),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn device(driver: &str, properties: Value) -> ExtraDevice {
        let properties = properties.as_object().unwrap().clone();
        ExtraDevice { driver: driver.to_owned(), id: "x".parse().unwrap(), properties }
    }

    #[test]
    fn what_could_lead_to_the_host_is_said_again_or_refused() {
        agree(&device("usb-kbd", json!({"bus": "usb0.0"})), &mut Vec::new()).unwrap();
        let host = device("usb-host", json!({"hostbus": 1, "hostaddr": 4, "port": "2"}));
        let error = agree(&host, &mut Vec::new()).unwrap_err();
        assert!(
            error.hint().unwrap().ends_with("--device 'usb-host,id=x,hostaddr=4,hostbus=1'"),
            "{error:?}"
        );
        agree(&host, &mut vec![device("usb-host", json!({"hostbus": 1, "hostaddr": 4}))]).unwrap();
        // the command line must match the file completely
        for other in [json!({"hostbus": 1}), json!({"hostbus": 1, "hostaddr": 5}), json!({})] {
            agree(&host, &mut vec![device("usb-host", other)]).unwrap_err();
        }
        let odd = device("usb-\u{1b}[2J", json!({}));
        let error = agree(&odd, &mut Vec::new()).unwrap_err();
        assert!(!error.to_string().contains('\u{1b}') && !error.hint().unwrap().contains('\u{1b}'));
    }
}
