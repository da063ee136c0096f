//! Events as QEMU sends them, and a typed view of those that vmrun acts on.

use std::time::{Duration, SystemTime};

use qapi::Event as _;
use qapi::qmp::{
    ACPI_DEVICE_OST, ACPIOSTInfo, BLOCK_IO_ERROR, BlockErrorAction, DEVICE_DELETED, DEVICE_TRAY_MOVED,
    DEVICE_UNPLUG_GUEST_ERROR, GUEST_PANICKED, GuestPanicAction, JOB_STATUS_CHANGE, JobStatus, MIGRATION,
    MigrationStatus, RESET, RESUME, SHUTDOWN, STOP, SUSPEND, ShutdownCause, VSERPORT_CHANGE, WAKEUP,
};
use serde_json::{Map, Value};

/// An event from QEMU. Any name is possible: newer versions have more.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// QEMU's name for it, e.g. `SHUTDOWN`.
    pub name: String,
    /// What it says.
    pub data: Map<String, Value>,
    /// When it happened, by the host's clock.
    pub timestamp: Timestamp,
    /// What it means for vmrun.
    pub view: View,
}

/// Host time since the Unix epoch. QEMU sends -1 for both where it could not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// Whole seconds.
    pub seconds: i64,
    /// And microseconds.
    pub microseconds: i64,
}

impl From<&Value> for Timestamp {
    fn from(value: &Value) -> Self {
        let number = |key: &str| value[key].as_i64().unwrap_or(-1);
        Self { seconds: number("seconds"), microseconds: number("microseconds") }
    }
}

impl Timestamp {
    /// As a time, if QEMU knew it.
    pub fn time(self) -> Option<SystemTime> {
        let seconds = Duration::from_secs(u64::try_from(self.seconds).ok()?);
        let rest = Duration::from_micros(u64::try_from(self.microseconds).ok()?);
        SystemTime::UNIX_EPOCH.checked_add(seconds.checked_add(rest)?)
    }
}

/// The events that vmrun acts on, from `qapi`'s types. A value that only a newer QEMU knows is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum View {
    /// The machine stops for good.
    Shutdown {
        /// The guest asked for it.
        guest: bool,
        /// Why.
        reason: Option<ShutdownCause>,
    },
    /// The machine was reset.
    Reset {
        /// The guest asked for it.
        guest: bool,
    },
    /// The virtual CPUs stand still.
    Stop,
    /// The virtual CPUs run.
    Resume,
    /// The guest sleeps (S3); `system_wakeup` wakes it.
    Suspend,
    /// The guest woke up.
    Wakeup,
    /// A device with this id is gone. virtio-pci and usb-storage send two events: that of a child has no id, and is no such view.
    DeviceDeleted {
        /// The device's id.
        device: String,
    },
    /// The guest refused to let a device with this id go (QEMU 7.2 sends `MEM_UNPLUG_ERROR` as well, which says the same).
    UnplugGuestError {
        /// The device's id.
        device: String,
    },
    /// The guest's ACPI reports the result of a request (`_OST`) about memory or a processor.
    AcpiOst {
        /// The device's id.
        device: String,
        /// What it is about: 3 is a request to let the device go.
        source: i64,
        /// 0 is success.
        status: i64,
    },
    /// A read or write of an image failed.
    BlockIoError {
        /// The device's name or, for devices without a drive, its path.
        device: String,
        /// The block node, if it has a name.
        node_name: Option<String>,
        /// The host's disk is full.
        nospace: bool,
        /// The host's words for it.
        reason: String,
        /// What QEMU did.
        action: BlockErrorAction,
    },
    /// The guest reported a panic through pvpanic.
    GuestPanicked {
        /// What QEMU did.
        action: Option<GuestPanicAction>,
    },
    /// The saving or loading of the machine's state has a new status.
    Migration {
        /// Which one.
        status: Option<MigrationStatus>,
    },
    /// A job of QEMU's has a new status.
    Job {
        /// The job's id.
        id: String,
        /// Which one.
        status: JobStatus,
    },
    /// A tray of a CD-ROM drive was moved, by the guest or by `media-*`.
    TrayMoved {
        /// The device's id.
        id: String,
        /// Whether it is open now.
        open: bool,
    },
    /// The guest opened or closed a virtio-serial port: for the agent's port, the agent came or went.
    SerialPortChange {
        /// The port device's id.
        id: String,
        /// Whether the guest has it open now.
        open: bool,
    },
    /// Any other.
    #[default]
    Other,
}

impl Event {
    /// An event as QEMU has sent it. Here, and nowhere else, it is found out what it means.
    pub(super) fn new(name: String, data: Map<String, Value>, timestamp: Timestamp) -> Self {
        let view = View::of(&name, &data).unwrap_or_else(|error| {
            log::warn!(
                "QEMU's event {name} is not what it was up to QEMU 10, and is passed on unread: {error}"
            );
            View::Other
        });
        Self { name, data, timestamp, view }
    }
}

/// The data in the type that `qapi` has for the event.
fn typed<E: qapi::Event>(data: &Map<String, Value>) -> Result<E, serde_json::Error> {
    E::deserialize(data)
}

/// A value of an enumeration that has grown before, of an event whose other parts count without it.
fn value<E: qapi::Enum>(data: &Map<String, Value>, key: &str) -> Option<E> {
    E::from_name(data.get(key)?.as_str()?)
}

impl View {
    fn of(name: &str, data: &Map<String, Value>) -> Result<Self, serde_json::Error> {
        let guest = || data.get("guest").and_then(Value::as_bool).unwrap_or(false);
        Ok(match name {
            SHUTDOWN::NAME => Self::Shutdown { guest: guest(), reason: value(data, "reason") },
            RESET::NAME => Self::Reset { guest: guest() },
            STOP::NAME => Self::Stop,
            RESUME::NAME => Self::Resume,
            SUSPEND::NAME => Self::Suspend,
            WAKEUP::NAME => Self::Wakeup,
            DEVICE_DELETED::NAME => {
                let device = typed::<DEVICE_DELETED>(data)?.device;
                device.map_or(Self::Other, |device| Self::DeviceDeleted { device })
            }
            DEVICE_UNPLUG_GUEST_ERROR::NAME => {
                let device = typed::<DEVICE_UNPLUG_GUEST_ERROR>(data)?.device;
                device.map_or(Self::Other, |device| Self::UnplugGuestError { device })
            }
            ACPI_DEVICE_OST::NAME => match typed::<ACPI_DEVICE_OST>(data)?.info {
                ACPIOSTInfo { device: Some(device), source, status, .. } => {
                    Self::AcpiOst { device, source, status }
                }
                _ => Self::Other,
            },
            BLOCK_IO_ERROR::NAME => {
                let BLOCK_IO_ERROR { device, node_name, nospace, reason, action, .. } = typed(data)?;
                Self::BlockIoError { device, node_name, nospace: nospace.unwrap_or(false), reason, action }
            }
            // QEMU 10.1 has a new kind of `info`, which the type refuses
            GUEST_PANICKED::NAME => Self::GuestPanicked { action: value(data, "action") },
            MIGRATION::NAME => Self::Migration { status: value(data, "status") },
            JOB_STATUS_CHANGE::NAME => {
                let JOB_STATUS_CHANGE { id, status } = typed(data)?;
                Self::Job { id, status }
            }
            DEVICE_TRAY_MOVED::NAME => {
                let DEVICE_TRAY_MOVED { id, tray_open, .. } = typed(data)?;
                Self::TrayMoved { id, open: tray_open }
            }
            VSERPORT_CHANGE::NAME => {
                let VSERPORT_CHANGE { id, open } = typed(data)?;
                Self::SerialPortChange { id, open }
            }
            _ => Self::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(name: &str, data: Value) -> Event {
        let Value::Object(data) = data else { panic!("an object") };
        Event::new(name.into(), data, Timestamp::default())
    }

    #[test]
    fn what_a_newer_qemu_adds_takes_nothing_away() {
        let view = |name: &str, data: Value| event(name, data).view;
        let off = view("SHUTDOWN", json!({"guest": true, "reason": "guest-shutdown", "new": 1}));
        assert_eq!(off, View::Shutdown { guest: true, reason: Some(ShutdownCause::guest_shutdown) });
        let unknown = view("SHUTDOWN", json!({"guest": true, "reason": "from-the-future"}));
        assert_eq!(unknown, View::Shutdown { guest: true, reason: None });
        let panicked = view("GUEST_PANICKED", json!({"action": "pause", "info": {"type": "tdx", "gpa": 1}}));
        assert_eq!(panicked, View::GuestPanicked { action: Some(GuestPanicAction::pause) });
        assert_eq!(view("MIGRATION", json!({"status": "new"})), View::Migration { status: None });
        let failed = json!({"device": "", "qom-path": "/machine/x", "node-name": "disk0", "nospace": true, "action": "stop",
            "operation": "write", "reason": "No space left on device"});
        let View::BlockIoError { node_name, nospace, action, .. } = view("BLOCK_IO_ERROR", failed) else {
            panic!()
        };
        assert_eq!((node_name.as_deref(), nospace, action), (Some("disk0"), true, BlockErrorAction::stop));
        assert_eq!(view("FROM_THE_FUTURE", json!({})), View::Other);
    }

    #[test]
    fn what_does_not_fit_its_type_is_still_an_event() {
        let odd = event("DEVICE_DELETED", json!({"device": 3, "path": "/machine/x"}));
        assert_eq!((odd.view, odd.data["device"].as_i64()), (View::Other, Some(3)));
        let child = event("DEVICE_DELETED", json!({"path": "/machine/peripheral/a/virtio-backend"}));
        assert_eq!(child.view, View::Other);
    }

    #[test]
    fn times_that_qemu_did_not_know() {
        let known = Timestamp { seconds: 1, microseconds: 500_000 };
        assert_eq!(known.time(), Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1500)));
        assert_eq!(Timestamp { seconds: -1, microseconds: -1 }.time(), None);
        assert_eq!(Timestamp::from(&json!("never")).time(), None);
        let _ = Timestamp { seconds: i64::MAX, microseconds: i64::MAX }.time();
    }
}
