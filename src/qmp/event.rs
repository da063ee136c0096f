//! Events as QEMU sends them, and a typed view of those that vmrun acts on.

use std::time::{Duration, SystemTime};

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

/// The events that vmrun acts on. What QEMU left out is empty or false.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum View<'a> {
    /// The machine stops for good; `reason` is e.g. `guest-shutdown`, `guest-panic`, `host-qmp-quit`, `host-signal`.
    Shutdown {
        /// The guest asked for it.
        guest: bool,
        /// QEMU's `ShutdownCause`.
        reason: &'a str,
    },
    /// The machine was reset; `reason` as for `Shutdown`, e.g. `guest-reset`, `host-qmp-system-reset`.
    Reset {
        /// The guest asked for it.
        guest: bool,
        /// QEMU's `ShutdownCause`.
        reason: &'a str,
    },
    /// The virtual CPUs stand still.
    Stop,
    /// The virtual CPUs run.
    Resume,
    /// The guest sleeps (S3); `system_wakeup` wakes it.
    Suspend,
    /// The guest woke up.
    Wakeup,
    /// A device is gone. virtio-pci and usb-storage send two: first for a child, without `device`.
    DeviceDeleted {
        /// The device's id, if it has one.
        device: Option<&'a str>,
        /// Its path in QEMU's object tree.
        path: &'a str,
    },
    /// The guest refused to let a device go (`DEVICE_UNPLUG_GUEST_ERROR`, since 6.2; before, `MEM_UNPLUG_ERROR`).
    UnplugGuestError {
        /// The device's id, if it has one.
        device: Option<&'a str>,
        /// Its path in QEMU's object tree.
        path: &'a str,
    },
    /// The guest's ACPI reports the result of a request (`_OST`) about memory or a processor.
    AcpiOst {
        /// The device's id, if it has one.
        device: Option<&'a str>,
        /// What it is about: 3 is a request to let the device go.
        source: u64,
        /// 0 is success.
        status: u64,
    },
    /// A read or write of an image failed.
    BlockIoError {
        /// The device's name or, for devices without a drive, its path.
        device: &'a str,
        /// The block node, if it has a name.
        node_name: Option<&'a str>,
        /// The host's disk is full.
        nospace: bool,
        /// The host's words for it.
        reason: &'a str,
        /// What QEMU did: `ignore`, `report` or `stop`.
        action: &'a str,
    },
    /// The guest reported a panic through pvpanic.
    GuestPanicked {
        /// What QEMU did: `pause`, `poweroff` or `run`.
        action: &'a str,
    },
    /// The saving or loading of the machine's state has a new status.
    Migration {
        /// e.g. `active`, `completed`, `failed`.
        status: &'a str,
    },
    /// A tray of a CD-ROM drive was moved, by the guest or by `media-*`.
    TrayMoved {
        /// The device's id.
        id: &'a str,
        /// Whether it is open now.
        open: bool,
    },
    /// The guest opened or closed a virtio-serial port: for the agent's port, the agent came or went.
    SerialPortChange {
        /// The port device's id.
        id: &'a str,
        /// Whether the guest has it open now.
        open: bool,
    },
    /// Any other.
    Other,
}

impl Event {
    /// A string of its data.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.data.get(key)?.as_str()
    }

    /// A boolean of its data; false if it is not there.
    pub fn flag(&self, key: &str) -> bool {
        self.data.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// What it means for vmrun.
    pub fn view(&self) -> View<'_> {
        let text = |key| self.text(key).unwrap_or_default();
        match self.name.as_str() {
            "SHUTDOWN" => View::Shutdown { guest: self.flag("guest"), reason: text("reason") },
            "RESET" => View::Reset { guest: self.flag("guest"), reason: text("reason") },
            "STOP" => View::Stop,
            "RESUME" => View::Resume,
            "SUSPEND" => View::Suspend,
            "WAKEUP" => View::Wakeup,
            "DEVICE_DELETED" => View::DeviceDeleted { device: self.text("device"), path: text("path") },
            "DEVICE_UNPLUG_GUEST_ERROR" | "MEM_UNPLUG_ERROR" => {
                View::UnplugGuestError { device: self.text("device"), path: text("path") }
            }
            "ACPI_DEVICE_OST" => {
                let info = self.data.get("info").unwrap_or(&Value::Null);
                View::AcpiOst {
                    device: info["device"].as_str(),
                    source: info["source"].as_u64().unwrap_or_default(),
                    status: info["status"].as_u64().unwrap_or_default(),
                }
            }
            "BLOCK_IO_ERROR" => View::BlockIoError {
                device: text("device"),
                node_name: self.text("node-name"),
                nospace: self.flag("nospace"),
                reason: text("reason"),
                action: text("action"),
            },
            "GUEST_PANICKED" => View::GuestPanicked { action: text("action") },
            "MIGRATION" => View::Migration { status: text("status") },
            "DEVICE_TRAY_MOVED" => View::TrayMoved { id: text("id"), open: self.flag("tray-open") },
            "VSERPORT_CHANGE" => View::SerialPortChange { id: text("id"), open: self.flag("open") },
            _ => View::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(name: &str, data: Value) -> Event {
        let Value::Object(data) = data else { panic!("an object") };
        Event { name: name.into(), data, timestamp: Timestamp::default() }
    }

    #[test]
    fn views_are_lenient() {
        let full = event("SHUTDOWN", json!({"guest": true, "reason": "guest-shutdown", "new": 1}));
        assert_eq!(full.view(), View::Shutdown { guest: true, reason: "guest-shutdown" });
        assert_eq!(event("SHUTDOWN", json!({})).view(), View::Shutdown { guest: false, reason: "" });
        let odd = event("DEVICE_DELETED", json!({"device": 3, "path": "/machine/x"}));
        assert_eq!(odd.view(), View::DeviceDeleted { device: None, path: "/machine/x" });
        assert_eq!(event("FROM_THE_FUTURE", json!({})).view(), View::Other);
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
