//! Whether the guest has mounted a disk. Checked before it is unplugged, since Linux releases a mounted disk without complaint, and
//! data that its file system had not written yet is lost.

use std::time::Duration;

use serde_json::{Value, json};

use crate::qemu::pci;
use crate::qemu::query;
use crate::spec::DiskBus;

use crate::vm::change::DeviceKind;
use crate::vm::error::{ChangeError, ErrorChain, ErrorKind};
use crate::vm::handle::Handle;
use crate::vm::state::inventory::{DiskFacts, Entry, Kind, Phase};
use crate::vm::state::run_state::RunState;

/// How long a guest that answers may take to list its file systems.
const PATIENCE: Duration = Duration::from_secs(5);

/// How the guest's agent can name a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// By the disk's own PCI device.
    Pci(pci::Address),
    /// A disk on the controller with this PCI device.
    Scsi { controller: pci::Address, target: u64, lun: u64 },
    /// One of the USB disks on the controller with this PCI device.
    Usb(pci::Address),
    /// A channel device: subchannel set and number.
    Ccw { ssid: u64, devno: u64 },
}

impl Handle {
    /// Refuses to remove a disk that the guest has mounted. The result says what could not be checked, if anything.
    ///
    /// # Errors
    /// `NotNow`: it is mounted; the message has the mount points.
    pub async fn check_unmounted(&self, kind: DeviceKind, id: &str) -> Result<Option<String>, ChangeError> {
        if !matches!(kind, DeviceKind::Disk | DeviceKind::Any) {
            return Ok(None);
        }
        let status = self.status().await?;
        let facts =
            status.devices.iter().find(|entry| entry.id.as_str() == id && entry.phase == Phase::Present);
        let Some(Kind::Disk(facts)) = facts.map(|entry| &entry.kind) else { return Ok(None) };
        if facts.removable {
            return Ok(None);
        }
        if status.run_state != RunState::Running {
            return Ok(Some(format!("the guest does not run (it is {})", status.run_state)));
        }
        if self.agent.check().is_err() || !self.agent.is_alive() {
            return Ok(Some("no guest agent answers".to_owned()));
        }
        self.refuse_frozen()?;
        let others = Others::of(&status.devices);
        let looked = async {
            let systems =
                self.in_guest(Duration::ZERO, self.ask_agent("guest-get-fsinfo", json!({}))).await?;
            let place = self.place_of_disk(id, facts).await?;
            Ok::<_, ChangeError>((systems, place))
        };
        let (systems, place) = match tokio::time::timeout(PATIENCE, looked).await {
            Ok(Ok((systems, Some(place)))) => (systems, place),
            Ok(Ok((_, None))) => return Ok(Some("QEMU does not say where the disk is".to_owned())),
            Ok(Err(error)) => return Ok(Some(error.with_causes())),
            Err(_) => return Ok(Some("the guest agent does not answer in time".to_owned())),
        };
        match mount_points(&systems, &place, facts.serial.as_deref(), others) {
            Ok(points) if points.is_empty() => Ok(None),
            Ok(points) => {
                let message = format!("disk '{id}' is mounted in the guest at {}", points.join(", "));
                let kind = ErrorKind::NotNow { state: "mounted".to_owned() };
                Err(ChangeError::new(kind, message)
                    .hint("unmount it first, or use `--force`, which loses data that is not written yet"))
            }
            Err(why) => Ok(Some(why)),
        }
    }

    async fn place_of_disk(&self, id: &str, facts: &DiskFacts) -> Result<Option<Place>, ChangeError> {
        let property = |name: &'static str| async move {
            let done = self.qmp(query::property(id, name)).await;
            done.ok()
        };
        if let Some(Value::String(device)) = property("dev_id").await {
            return Ok(ccw(&device));
        }
        let devices = self.qmp(pci::query()).await?;
        let address = |id: &str| pci::find(&devices, id).map(|found| found.address);
        // in a wrapped VM the user named the controller: the bus path has its id
        let controller = || async {
            let bus = property("parent_bus").await;
            let of_bus = bus
                .as_ref()
                .and_then(Value::as_str)
                .and_then(|path| path.strip_prefix("/machine/peripheral/"));
            of_bus.and_then(|path| path.split('/').next()).map(str::to_owned)
        };
        Ok(match facts.bus {
            DiskBus::Scsi => {
                let Some(controller) = controller().await else { return Ok(None) };
                let number = |value: Option<Value>| value.as_ref().and_then(Value::as_u64);
                let target = number(property("scsi-id").await);
                let lun = number(property("lun").await);
                match (address(&controller), target, lun) {
                    (Some(controller), Some(target), Some(lun)) => {
                        Some(Place::Scsi { controller, target, lun })
                    }
                    _ => None,
                }
            }
            DiskBus::Usb => {
                let Some(controller) = controller().await else { return Ok(None) };
                address(&controller).map(Place::Usb)
            }
            DiskBus::Virtio | DiskBus::Nvme | DiskBus::Sata => address(id).map(Place::Pci),
        })
    }
}

/// From `fe.0.0003`: channel subsystem, subchannel set, device.
fn ccw(device: &str) -> Option<Place> {
    let mut parts = device.split('.').skip(1).map(|part| u64::from_str_radix(part, 16).ok());
    Some(Place::Ccw { ssid: parts.next()??, devno: parts.next()?? })
}

/// Where the file systems on a disk are mounted, from the answer of `guest-get-fsinfo`; or why that is unknown.
fn mount_points(
    systems: &Value,
    place: &Place,
    serial: Option<&str>,
    others: Others,
) -> Result<Vec<String>, String> {
    let mut points: Vec<String> = Vec::new();
    for system in systems.as_array().into_iter().flatten() {
        let disks = system["disk"].as_array().into_iter().flatten();
        for disk in disks {
            let point = || system["mountpoint"].as_str().unwrap_or("an unknown place").to_owned();
            match is_on(disk, place, serial, others) {
                Some(true) => points.push(point()),
                Some(false) => {}
                None => {
                    let why = format!(
                        "the guest has a disk mounted at {}, and its agent does not tell which one",
                        point()
                    );
                    return Err(why);
                }
            }
        }
    }
    points.sort();
    points.dedup();
    Ok(points)
}

/// Whether a disk that the agent reports is the disk in question; `None` = it may be.
fn is_on(disk: &Value, place: &Place, serial: Option<&str>, others: Others) -> Option<bool> {
    // a CD-ROM drive cannot be removed
    if disk["dev"].as_str().is_some_and(|device| device.starts_with("/dev/sr")) {
        return Some(false);
    }
    let pci = &disk["pci-controller"];
    // the agent finds no address where PCI is not the machine's first bus (aarch64, riscv64), and reports -1
    let is_known = pci["bus"].as_u64().is_some() || disk["ccw-address"].is_object();
    let is_at = |address: &pci::Address| {
        (pci["bus"].as_i64(), pci["slot"].as_i64(), pci["function"].as_i64())
            == (Some(address.bus), Some(address.slot), Some(address.function))
    };
    let or_only = |is_it: bool| match (is_known, others.no_disk) {
        (true, _) => Some(is_it),
        (false, true) => Some(true),
        (false, false) => None,
    };
    match place {
        Place::Pci(address) => or_only(is_at(address)),
        Place::Scsi { controller, target, lun } => or_only(
            is_at(controller)
                && (disk["target"].as_u64(), disk["unit"].as_u64()) == (Some(*target), Some(*lun)),
        ),
        Place::Usb(controller) if is_known && !is_at(controller) => Some(false),
        Place::Usb(_) if others.no_usb_disk => Some(true),
        Place::Usb(_) => match (disk["serial"].as_str(), serial) {
            // udev adds prefixes to it
            (Some(told), Some(serial)) => Some(told.contains(serial)),
            _ => None,
        },
        Place::Ccw { ssid, devno } => {
            let ccw = &disk["ccw-address"];
            Some((ccw["ssid"].as_u64(), ccw["devno"].as_u64()) == (Some(*ssid), Some(*devno)))
        }
    }
}

/// Whether a disk that the agent reports can be another than the disk in question.
#[derive(Debug, Clone, Copy)]
struct Others {
    /// The VM has no other disk.
    no_disk: bool,
    /// The VM has no other disk on USB.
    no_usb_disk: bool,
}

impl Others {
    /// For a disk that is among these devices.
    fn of(devices: &[Entry]) -> Self {
        let count = |is_one: fn(&Entry) -> bool| devices.iter().filter(|entry| is_one(entry)).count();
        let disks = count(|entry| match &entry.kind {
            Kind::Disk(facts) => !facts.removable,
            Kind::Usb { file, .. } => file.is_some(),
            _ => false,
        });
        let on_usb = count(|entry| match &entry.kind {
            Kind::Disk(facts) => facts.bus == DiskBus::Usb,
            Kind::Usb { file, .. } => file.is_some(),
            _ => false,
        });
        Self { no_disk: disks <= 1, no_usb_disk: on_usb <= 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONLY: Others = Others { no_disk: true, no_usb_disk: true };
    const MANY: Others = Others { no_disk: false, no_usb_disk: false };

    #[test]
    fn without_an_address_only_a_single_disk_is_certain() {
        let nowhere =
            json!([system("/a", json!({ "pci-controller": { "bus": -1, "slot": -1, "function": -1 } }))]);
        let place = Place::Pci(at(1, 0));
        assert_eq!(mount_points(&nowhere, &place, None, ONLY).unwrap(), ["/a"]);
        assert!(mount_points(&nowhere, &place, None, MANY).unwrap_err().contains("/a"));
    }

    fn system(point: &str, disk: Value) -> Value {
        json!({ "name": "vda1", "mountpoint": point, "type": "ext4", "disk": [disk] })
    }

    fn pci(bus: u64, slot: u64) -> Value {
        json!({ "domain": 0, "bus": bus, "slot": slot, "function": 0 })
    }

    fn at(bus: i64, slot: i64) -> pci::Address {
        pci::Address { bus, slot, function: 0 }
    }

    #[test]
    fn each_kind_of_disk_is_told_from_its_neighbours() {
        let virtio =
            |point: &str, bus| system(point, json!({ "bus-type": "virtio", "pci-controller": pci(bus, 0) }));
        let scsi = |point: &str, target, lun| {
            system(
                point,
                json!({ "bus-type": "scsi", "pci-controller": pci(2, 0), "target": target, "unit": lun }),
            )
        };
        let ccw = |point: &str, devno| {
            system(point, json!({ "ccw-address": { "cssid": 254, "ssid": 0, "devno": devno } }))
        };
        let systems = json!([
            virtio("/srv", 1), virtio("/srv/b", 1), virtio("/other", 3), scsi("/s", 4, 1), scsi("/t", 5, 1),
            ccw("/c", 3), { "mountpoint": "/proc", "disk": [] },
        ]);
        let points = |place| mount_points(&systems, &place, None, ONLY).unwrap();
        assert_eq!(points(Place::Pci(at(1, 0))), ["/srv", "/srv/b"]);
        assert_eq!(points(Place::Pci(at(9, 0))), [""; 0]);
        assert_eq!(points(Place::Scsi { controller: at(2, 0), target: 5, lun: 1 }), ["/t"]);
        assert_eq!(points(super::ccw("fe.0.0003").unwrap()), ["/c"]);
    }

    #[test]
    fn one_of_several_usb_disks_is_told_by_its_serial_number_or_not_at_all() {
        let usb = |serial: &str| {
            json!([system("/u", json!({ "bus-type": "usb", "pci-controller": pci(2, 0), "serial": serial }))])
        };
        let place = Place::Usb(at(2, 0));
        let told = |systems: &Value, serial, others| mount_points(systems, &place, serial, others);
        assert_eq!(told(&usb("QEMU_DISK_A-0:0"), Some("A"), MANY).unwrap(), ["/u"]);
        assert_eq!(told(&usb("QEMU_DISK_A-0:0"), Some("X"), MANY).unwrap(), [""; 0]);
        assert_eq!(told(&usb("any"), None, ONLY).unwrap(), ["/u"]);
        assert!(told(&usb("any"), None, MANY).unwrap_err().contains("/u"));
    }
}
