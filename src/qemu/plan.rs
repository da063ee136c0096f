//! Changes of a running VM as lists of steps with their undo. Pure: the session runs them, the owner decides.

use serde_json::{Map, Value};

use super::ids::Ids;
use super::io::{self, Card};
use super::object::{self, Object};
use super::query;
use super::{
    BlockNode, Command, Device, Machine, Netdev, block, controllers, device, disk_options, drives, models,
    netdev,
};
use crate::spec::vm::ExtraDevice;
use crate::spec::{DeviceId, Disk, DiskOptions, Image};

/// One command of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What is sent.
    pub command: Command,
    /// What takes it back if a later step fails.
    pub undo: Option<Command>,
    /// How its failure shows.
    pub check: Check,
}

/// How a step's failure shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// An error reply.
    Qmp,
    /// Any text at all from the human monitor (whose QMP reply is a success either way).
    HmpSilent,
}

impl Step {
    /// A step whose failure is an error reply.
    pub fn new(command: Command) -> Self {
        Self { command, undo: None, check: Check::Qmp }
    }

    /// The same step, with what takes it back.
    pub fn undo(mut self, command: Command) -> Self {
        self.undo = Some(command);
        self
    }

    fn node(node: &BlockNode) -> Self {
        Self::new(node.add()).undo(node.remove())
    }

    fn object(object: &Object) -> Self {
        Self::new(object.add()).undo(object.remove())
    }

    /// Its undo sends a request; a device that the guest holds may stay until it lets go.
    fn device(device: &Device) -> Self {
        Self::new(device.hot_plug()).undo(device.unplug())
    }
}

/// A controller that other devices need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// `qemu-xhci`.
    Usb,
    /// `virtio-scsi`.
    Scsi,
}

impl Controller {
    /// The id that it has.
    pub fn id(self, ids: &Ids) -> &'static str {
        match self {
            Self::Usb => ids.usb,
            Self::Scsi => ids.scsi,
        }
    }

    /// Its model.
    pub fn driver(self, machine: &Machine) -> String {
        match self {
            Self::Usb => models::XHCI.to_owned(),
            Self::Scsi => machine.virtio(models::VIRTIO_SCSI),
        }
    }

    /// Whether it has this id in a VM of any layout.
    pub fn is_named(self, id: &str) -> bool {
        Ids::all().iter().any(|ids| self.id(ids) == id)
    }
}

/// What to plug into USB, once a selector has been resolved on this host.
#[derive(Debug, Clone, PartialEq)]
pub enum UsbPlug {
    /// A host device by its present address.
    Host {
        /// Bus number.
        bus: u8,
        /// Device address.
        address: u8,
    },
    /// A USB stick with an image.
    Stick {
        /// The image.
        image: Image,
        /// Attached read-only.
        readonly: bool,
    },
    /// A device model of QEMU.
    Driver {
        /// QEMU's name of the model.
        driver: String,
        /// Typed properties.
        properties: Map<String, Value>,
    },
}

/// Opens an image. What QEMU has open then must be checked before anything else is done with it.
pub fn open_image(name: &str, image: &Image, readonly: bool, options: &DiskOptions) -> Vec<Step> {
    block::image(name, image, readonly, options).iter().map(Step::node).collect()
}

/// Plugs a disk whose image is open, with its I/O thread if it has one. `bus` is a slot's name for virtio and NVMe, the controller's bus for SCSI and USB.
pub fn add_disk(machine: &Machine, disk: &Disk, bus: Option<&str>) -> Vec<Step> {
    let thread = disk_options::iothread(disk.id.as_str(), &disk.options);
    let device = Step::device(&drives::disk(machine, disk, bus));
    thread.iter().map(Step::object).chain([device]).collect()
}

/// Plugs a controller into a slot.
pub fn add_controller(machine: &Machine, kind: Controller, bus: Option<&str>) -> Vec<Step> {
    let controller = match kind {
        Controller::Usb => controllers::usb(machine).on(bus),
        Controller::Scsi => drives::scsi_controller(machine, bus),
    };
    vec![Step::device(&controller)]
}

/// Plugs something into USB; `bus` is [`Machine::usb_bus`]. The image of a stick is open already.
pub fn add_usb(id: &DeviceId, plug: &UsbPlug, bus: &str) -> Vec<Step> {
    let name = id.as_str();
    let device = |driver: &str| Device::new(driver, name).on(bus);
    match plug {
        UsbPlug::Host { bus, address } => {
            vec![Step::device(&device(models::USB_HOST).with("hostbus", *bus).with("hostaddr", *address))]
        }
        UsbPlug::Stick { .. } => {
            let stick = device(models::USB_STORAGE).with("drive", name).with("removable", true);
            vec![Step::device(&stick)]
        }
        UsbPlug::Driver { driver, properties } => {
            vec![Step::device(&Device { properties: properties.clone(), ..device(driver) })]
        }
    }
}

/// Plugs any other device. `bus` counts unless the properties name one.
pub fn add_device(extra: &ExtraDevice, bus: Option<&str>) -> Vec<Step> {
    vec![Step::device(&extra_device(extra, bus))]
}

/// An extra device, cold or hot.
pub(super) fn extra_device(extra: &ExtraDevice, bus: Option<&str>) -> Device {
    let bus = bus.filter(|_| !extra.properties.contains_key("bus"));
    let device = Device::new(extra.driver.as_str(), extra.id.as_str()).on(bus);
    Device { properties: extra.properties.clone(), ..device }
}

/// Plugs a network card: its back-end, then the device.
pub fn add_nic(machine: &Machine, nic: &Card<'_>, backend: &Netdev, bus: Option<&str>) -> Vec<Step> {
    let card = io::card(machine, nic).on(bus);
    vec![Step::new(backend.add()).undo(backend.remove()), Step::device(&card)]
}

/// Takes away the back-end of a network card after DEVICE_DELETED.
pub fn remove_netdev(id: &str) -> Vec<Step> {
    vec![Step::new(netdev::remove(id))]
}

/// Asks for a device to be unplugged. It is gone with the event DEVICE_DELETED whose `device` is this id, not before.
pub fn remove_device(id: &str) -> Vec<Step> {
    vec![Step::new(device::unplug(id))]
}

/// Asks whether a device can go while the VM runs: false for what is built into the machine.
pub fn is_hotpluggable(id: &str) -> Command {
    query::property(id, "hotpluggable")
}

/// Closes the image of a disk (or stick) after DEVICE_DELETED.
pub fn remove_image(id: &str) -> Vec<Step> {
    block::remove_image(id).into_iter().map(Step::new).collect()
}

/// Ends the I/O thread of a disk that is gone.
pub fn remove_iothread(disk: &str) -> Vec<Step> {
    vec![Step::new(object::remove(&disk_options::iothread_id(disk)))]
}

/// Changes the size of a disk's image, in bytes.
pub fn disk_resize(id: &str, bytes: u64) -> Vec<Step> {
    vec![Step::new(block::resize(id, bytes))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::testing::{disk, extra_device, spec};
    use crate::spec::{Arch, DiskBus, ImageFormat, NicModel, UserNet, VmSpec};

    fn lines(steps: &[Step]) -> String {
        steps.iter().map(|step| serde_json::to_string(&step.command).unwrap() + "\n").collect()
    }

    fn whole(machine: &Machine, disk: &Disk, bus: Option<&str>) -> Vec<Step> {
        let opening = open_image(disk.id.as_str(), &disk.image, disk.readonly, &disk.options);
        [opening, add_disk(machine, disk, bus)].concat()
    }

    fn undo_names(steps: &[Step]) -> Vec<&str> {
        steps.iter().map(|step| step.undo.as_ref().map_or("-", |command| command.execute.as_str())).collect()
    }

    #[test]
    fn a_disk_on_every_bus() {
        let machine = Machine::of(&spec());
        let plans: Vec<_> = [
            (DiskBus::Virtio, Some("slot1")),
            (DiskBus::Nvme, Some("slot2")),
            (DiskBus::Scsi, Some(machine.scsi_bus())),
            (DiskBus::Usb, machine.usb_bus()),
        ]
        .into_iter()
        .map(|(bus, place)| lines(&whole(&machine, &disk("data", bus), place)))
        .collect();
        insta::assert_snapshot!("plan_disks", plans.join("\n"));
    }

    #[test]
    fn a_disk_is_taken_back_in_reverse() {
        let spec = VmSpec { arch: Arch::S390x, ..spec() };
        let steps = whole(&Machine::of(&spec), &disk("data", DiskBus::Virtio), None);
        assert_eq!(undo_names(&steps), ["blockdev-del", "blockdev-del", "device_del"]);
        assert_eq!(steps[2].command.arguments["driver"], "virtio-blk-ccw");
        assert_eq!(steps[2].command.arguments.get("bus"), None);
    }

    #[test]
    fn a_card_is_a_back_end_and_a_device() {
        let card = Card { id: "lan", mac: "52:54:00:00:00:01".parse().unwrap(), model: NicModel::E1000e };
        let steps = add_nic(
            &Machine::of(&spec()),
            &card,
            &Netdev::user("lan.net", &UserNet::default()),
            Some("slot1"),
        );
        assert_eq!(undo_names(&steps), ["netdev_del", "device_del"]);
        assert_eq!(
            lines(&steps),
            r#"{"execute":"netdev_add","arguments":{"id":"lan.net","type":"user"}}
{"execute":"device_add","arguments":{"bus":"slot1","driver":"e1000e","id":"lan","mac":"52:54:00:00:00:01","netdev":"lan.net","romfile":""}}
"#
        );
    }

    #[test]
    fn usb_of_every_kind() {
        let id: DeviceId = "stick".parse().unwrap();
        let keyboard = Map::from_iter([("serial".to_owned(), "1".into())]);
        let plans: Vec<_> = [
            UsbPlug::Host { bus: 1, address: 4 },
            UsbPlug::Stick { image: Image::alone("/i/s.img", ImageFormat::Raw), readonly: true },
            UsbPlug::Driver { driver: "usb-kbd".to_owned(), properties: keyboard },
        ]
        .iter()
        .map(|plug| lines(&add_usb(&id, plug, "vmrun-usb.0")))
        .collect();
        insta::assert_snapshot!("plan_usb", plans.join("\n"));
    }

    #[test]
    fn controllers_fit_the_machine() {
        let q35 = Machine::of(&spec());
        assert_eq!(
            add_controller(&q35, Controller::Usb, Some("slot1"))[0].command.arguments["id"],
            "vmrun-usb"
        );
        let scsi = add_controller(&q35, Controller::Scsi, Some("slot2"));
        assert_eq!(scsi[0].command.arguments["driver"], "virtio-scsi-pci");
    }

    #[test]
    fn the_bus_that_was_typed_wins() {
        let bus = |typed| {
            add_device(&extra_device("edu", "e", typed), Some("slot1"))[0].command.arguments["bus"].clone()
        };
        assert_eq!(bus("slot4"), "slot4");
        let plain = ExtraDevice { properties: Map::new(), ..extra_device("edu", "e", "") };
        assert_eq!(add_device(&plain, Some("slot1"))[0].command.arguments["bus"], "slot1");
    }

    #[test]
    fn removal_closes_the_image_last() {
        assert_eq!(
            lines(&[remove_device("data"), remove_image("data"), disk_resize("data", 1 << 30)].concat()),
            r#"{"execute":"device_del","arguments":{"id":"data"}}
{"execute":"blockdev-del","arguments":{"node-name":"data"}}
{"execute":"blockdev-del","arguments":{"node-name":"data.file"}}
{"execute":"block_resize","arguments":{"node-name":"data","size":1073741824}}
"#
        );
    }
}
