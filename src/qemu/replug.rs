//! What was plugged, read back from the commands that did it. A record that comes in a file is not repeated to QEMU: what it
//! says of the guest's hardware is read, and the commands are made anew.

use std::path::PathBuf;

use serde_json::{Map, Value};
use thiserror::Error;

use super::plan::{Controller, Step};
use super::{Command, Machine, Netdev, disk_options, drives, hostless, models};
use crate::spec::vm::ExtraDevice;
use crate::spec::{DeviceId, DiskBus, DiskOptions, ImageFormat, MacAddress, NicModel, UserNet};

/// The longest name of a bus or port that QEMU gives.
const MAX_ADDRESS: usize = 128;

/// A device that was plugged.
#[derive(Debug, Clone, PartialEq)]
pub struct Replug {
    /// Its id.
    pub id: DeviceId,
    /// What it is.
    pub what: What,
    /// Where it sits in the guest.
    pub address: BusAddress,
}

/// What was plugged.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A controller of vmrun's own.
    Controller(Controller),
    /// A disk.
    Disk {
        /// The bus.
        bus: DiskBus,
        /// Its image.
        image: RecordedImage,
        /// Serial number.
        serial: Option<String>,
        /// Everything else.
        options: DiskOptions,
    },
    /// A USB stick.
    Stick(RecordedImage),
    /// A network card.
    Nic {
        /// Its address.
        mac: MacAddress,
        /// What kind of card it is.
        model: NicModel,
        /// What was said of its network, where that is user networking.
        user: UserNet,
    },
    /// Anything else, without its address.
    Other(ExtraDevice),
}

/// An image, as a record has it.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedImage {
    /// Its path.
    pub file: PathBuf,
    /// Its format.
    pub format: ImageFormat,
    /// Attached read-only.
    pub readonly: bool,
}

/// Where a device sits in the guest: its bus, and its address on that.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BusAddress(Map<String, Value>);

/// A record that is not one of something that vmrun plugs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{}': {why}", .id.escape_debug())]
pub struct ReplugError {
    id: String,
    why: String,
}

impl BusAddress {
    /// The bus, if one was named.
    pub fn bus(&self) -> Option<&str> {
        self.0.get("bus").and_then(Value::as_str)
    }

    /// Puts the device that these steps plug there.
    pub fn apply(&self, steps: &mut [Step]) {
        for step in steps.iter_mut().filter(|step| step.command.execute == "device_add") {
            step.command.arguments.extend(self.0.clone());
        }
    }
}

impl Replug {
    /// Reads a record.
    ///
    /// # Errors
    /// Its commands do not plug one device in a way that vmrun does.
    pub fn read(machine: &Machine, id: &str, commands: &[Command]) -> Result<Self, ReplugError> {
        let wrong = |why: &str| ReplugError { id: id.to_owned(), why: why.to_owned() };
        let device: DeviceId = id.parse().map_err(|_| wrong("it is not an id"))?;
        let mut adds = commands.iter().filter(|command| command.execute == "device_add");
        let (Some(add), None) = (adds.next(), adds.next()) else {
            return Err(wrong("it is not one device"));
        };
        let mut properties = add.arguments.clone();
        let mut text = |name: &str| match properties.remove(name) {
            Some(Value::String(text)) => Ok(Some(text)),
            None => Ok(None),
            Some(_) => Err(wrong(&format!("its {name} is not a text"))),
        };
        let driver = text("driver")?.ok_or_else(|| wrong("it has no driver"))?;
        if text("id")?.as_deref() != Some(id) {
            return Err(wrong("its device has another id"));
        }
        let (drive, netdev) = (text("drive")?, text("netdev")?);
        let (mac, serial) = match (&drive, &netdev) {
            (Some(_), _) => (None, text("serial")?),
            (_, Some(_)) => (text("mac")?, None),
            (None, None) => (None, None),
        };
        let (address, rest): (Map<_, _>, Map<_, _>) =
            properties.into_iter().partition(|(name, _)| hostless::is_address(name));
        if !address.values().all(is_address_value) {
            return Err(wrong("its place makes no sense"));
        }
        let controller = [Controller::Usb, Controller::Scsi]
            .into_iter()
            .find(|controller| controller.id(machine.ids()) == id);
        let what = match (controller, drive, netdev) {
            (Some(controller), _, _) => What::Controller(controller),
            _ if machine.ids().is_reserved(id) => return Err(wrong("the id is one of vmrun's own")),
            (_, Some(_), _) => {
                let image = image(id, commands).ok_or_else(|| wrong("its image makes no sense"))?;
                match driver == models::USB_STORAGE && rest.get("removable") == Some(&Value::Bool(true)) {
                    true => What::Stick(image),
                    false => {
                        let bus = disk_bus(machine, &driver)
                            .ok_or_else(|| wrong("it has an image, and is no disk"))?;
                        What::Disk { bus, image, serial, options: options(id, commands, &add.arguments) }
                    }
                }
            }
            (_, _, Some(_)) => {
                let model = nic_model(machine, &driver)
                    .ok_or_else(|| wrong("it is no network card of a kind that is known"))?;
                let mac = mac
                    .and_then(|mac| mac.parse().ok())
                    .ok_or_else(|| wrong("its address makes no sense"))?;
                What::Nic {
                    mac,
                    model,
                    user: commands.iter().find_map(Netdev::read_user).unwrap_or_default(),
                }
            }
            _ => What::Other(ExtraDevice { driver, id: device.clone(), properties: rest }),
        };
        Ok(Self { id: device, what, address: BusAddress(address) })
    }
}

fn is_address_value(value: &Value) -> bool {
    match value {
        Value::Number(_) | Value::Bool(_) => true,
        Value::String(text) => {
            text.len() <= MAX_ADDRESS
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte))
        }
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// The two nodes of an image are named after the device (see [`super::block::image`]): the format, and the file.
fn nodes<'a>(id: &str, commands: &'a [Command]) -> Option<[&'a Map<String, Value>; 2]> {
    let node = |name: &str| {
        commands
            .iter()
            .find(|command| {
                command.execute == "blockdev-add"
                    && command.arguments.get("node-name").is_some_and(|node| node == name)
            })
            .map(|command| &command.arguments)
    };
    Some([node(id)?, node(&format!("{id}.file"))?])
}

fn options(id: &str, commands: &[Command], device: &Map<String, Value>) -> DiskOptions {
    let read = |[format, file]: [&Map<String, Value>; 2]| disk_options::read(file, format, device);
    nodes(id, commands).map(read).unwrap_or_default()
}

fn image(id: &str, commands: &[Command]) -> Option<RecordedImage> {
    let [format, file] = nodes(id, commands)?;
    Some(RecordedImage {
        file: file.get("filename")?.as_str()?.into(),
        format: format.get("driver")?.as_str()?.parse().ok()?,
        readonly: format.get("read-only")?.as_bool()?,
    })
}

fn disk_bus(machine: &Machine, driver: &str) -> Option<DiskBus> {
    DiskBus::ALL.iter().copied().find(|bus| drives::disk_driver(machine, *bus) == driver)
}

fn nic_model(machine: &Machine, driver: &str) -> Option<NicModel> {
    NicModel::ALL.iter().copied().find(|model| super::io::card_driver(machine, *model) == driver)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::qemu::io::Card;
    use crate::qemu::plan::{self, UsbPlug};
    use crate::qemu::testing::{disk, extra_device, spec};

    fn commands(steps: &[Step]) -> Vec<Command> {
        steps.iter().map(|step| step.command.clone()).collect()
    }

    #[test]
    fn what_was_plugged_is_read_back() {
        let machine = Machine::of(&spec());
        let read = |id: &str, steps: &[Step]| Replug::read(&machine, id, &commands(steps)).unwrap();
        for bus in [DiskBus::Virtio, DiskBus::Scsi, DiskBus::Usb, DiskBus::Nvme] {
            let replug = {
                let disk = disk("data", bus);
                let opening = plan::open_image("data", &disk.image, false, &disk.options);
                read("data", &[opening, plan::add_disk(&machine, &disk, Some("slot1"))].concat())
            };
            let What::Disk { bus: found, image, .. } = &replug.what else { panic!("{replug:?}") };
            assert_eq!((*found, image.file.to_str()), (bus, Some("/images/data.qcow2")));
            assert_eq!((image.format, image.readonly), (ImageFormat::Qcow2, false));
            assert_eq!(replug.address.bus(), Some("slot1"));
        }
        let mac = "52:54:00:00:00:01".parse().unwrap();
        let card = Card { id: "lan", mac, model: NicModel::E1000e };
        let networking: crate::spec::Networking = "user,net=10.0.7.0/24,restrict=on".parse().unwrap();
        let user = networking.user().unwrap().clone();
        let steps = plan::add_nic(&machine, &card, &Netdev::user("lan.net", &user), Some("slot2"));
        assert_eq!(read("lan", &steps).what, What::Nic { mac, model: NicModel::E1000e, user });
        let controller = plan::add_controller(&machine, Controller::Scsi, Some("slot3"));
        assert_eq!(read("vmrun-scsi", &controller).what, What::Controller(Controller::Scsi));
        let keyboard = UsbPlug::Driver { driver: "usb-kbd".to_owned(), properties: Map::new() };
        let mut steps = plan::add_usb(&"keys".parse().unwrap(), &keyboard, "vmrun-usb.0");
        steps[0].command.arguments.insert("port".to_owned(), json!("2"));
        let replug = read("keys", &steps);
        let plain = ExtraDevice { properties: Map::new(), ..extra_device("usb-kbd", "keys", "") };
        assert_eq!(replug.what, What::Other(plain));
        // and the address is given to what is made anew
        let mut again = plan::add_usb(&replug.id, &keyboard, "vmrun-usb.0");
        replug.address.apply(&mut again);
        assert_eq!(again, steps);
    }

    #[test]
    fn what_vmrun_does_not_plug_is_refused() {
        let machine = Machine::of(&spec());
        let device = |arguments: Value| vec![Command::new("device_add", arguments)];
        let refused = |id: &str, commands: &[Command], why: &str| {
            let error = Replug::read(&machine, id, commands).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        refused("a", &[], "not one device");
        let keyboard = device(json!({"driver": "usb-kbd", "id": "a"}));
        refused("a", &[keyboard.clone(), keyboard.clone()].concat(), "not one device");
        refused("b", &keyboard, "another id");
        refused("a\u{1b}[2J", &keyboard, "'a\\u{1b}[2J': it is not an id");
        refused("vmrun-kbd", &device(json!({"driver": "usb-kbd", "id": "vmrun-kbd"})), "vmrun's own");
        refused("a", &device(json!({"driver": ["x"], "id": "a"})), "not a text");
        refused("a", &device(json!({"driver": "usb-kbd", "id": "a", "bus": {"x": 1}})), "place");
        refused("a", &device(json!({"driver": "usb-kbd", "id": "a", "bus": "a,romfile=/x"})), "place");
        refused("a", &device(json!({"driver": "nvdimm", "id": "a", "drive": "a"})), "image");
        refused("a", &device(json!({"driver": "usb-net", "id": "a", "netdev": "n"})), "network card");
        // a back-end that runs a program is not looked at: the card gets one of vmrun's
        let mut tap =
            vec![Command::new("netdev_add", json!({"type": "tap", "id": "a.net", "script": "/evil"}))];
        tap.extend(device(
            json!({"driver": "virtio-net-pci", "id": "a", "netdev": "a.net", "mac": "52:54:00:00:00:01"}),
        ));
        assert!(matches!(Replug::read(&machine, "a", &tap).unwrap().what, What::Nic { .. }));
    }
}
