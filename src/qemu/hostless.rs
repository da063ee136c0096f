//! Device models that lead to nothing of the host: what a description from elsewhere may give a VM without being asked about.
//!
//! QEMU's properties do not tell files from other text (`romfile`, `rootdir` and `serial` are all strings), and some models open
//! something of the host by numbers (`usb-host`) or by none at all (`vhost-vsock`), so that only a list of what is known can tell.

use serde_json::{Map, Value};

use crate::spec::vm::ExtraDevice;

/// Models that are all guest: input, controllers, bridges, memory balloons, entropy, watchdogs.
const MODELS: &[&str] = &[
    "ahci",
    "bochs-display",
    "edu",
    "i6300esb",
    "ib700",
    "ich9-ahci",
    "ich9-usb-ehci1",
    "ioh3420",
    "isa-debug-exit",
    "lsi53c895a",
    "nec-usb-xhci",
    "pci-bridge",
    "pci-testdev",
    "pcie-pci-bridge",
    "pcie-root-port",
    "piix3-usb-uhci",
    "pvpanic",
    "pvpanic-pci",
    "pvscsi",
    "qemu-xhci",
    "ramfb",
    "secondary-vga",
    "usb-bot",
    "usb-ehci",
    "usb-hub",
    "usb-kbd",
    "usb-mouse",
    "usb-tablet",
    "usb-uas",
    "usb-wacom-tablet",
    "VGA",
    "x3130-upstream",
    "xio3130-downstream",
];

/// Families of virtio models that are all guest, whatever their transport.
const VIRTIO: &[&str] = &[
    "virtio-balloon",
    "virtio-gpu",
    "virtio-keyboard",
    "virtio-mouse",
    "virtio-rng",
    "virtio-scsi",
    "virtio-serial",
    "virtio-tablet",
];
const TRANSPORTS: &[&str] = &["-pci", "-ccw", "-device"];

/// Where a device sits in the guest: these say nothing of the host whatever the model.
const ADDRESS: &[&str] = &["addr", "bus", "channel", "lun", "multifunction", "port", "scsi-id"];
/// Properties that are text, and only for the guest.
const TEXTS: &[&str] = &["serial"];

/// Whether a device leads to nothing of the host.
pub fn is_hostless(device: &ExtraDevice) -> bool {
    let virtio = TRANSPORTS
        .iter()
        .any(|transport| device.driver.strip_suffix(transport).is_some_and(|kind| VIRTIO.contains(&kind)));
    (virtio || MODELS.contains(&device.driver.as_str()))
        && device.properties.iter().all(|(name, value)| is_address(name) || is_plain(name, value))
}

/// Whether properties say no more than where in the guest a device sits.
pub fn are_places(properties: &Map<String, Value>) -> bool {
    properties.keys().all(|name| is_address(name))
}

/// Whether a property says where in the guest a device sits.
pub fn is_address(name: &str) -> bool {
    ADDRESS.contains(&name)
}

fn is_plain(name: &str, value: &Value) -> bool {
    match value {
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(_) => TEXTS.contains(&name),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::testing::extra_device;

    #[test]
    fn only_what_is_known_to_lead_nowhere_does() {
        let device = |driver: &str, properties: Value| {
            let properties = properties.as_object().unwrap().clone();
            ExtraDevice { properties, ..extra_device(driver, "x", "") }
        };
        for (driver, properties) in [
            ("usb-kbd", serde_json::json!({"bus": "usb0.0", "port": "1", "serial": "7"})),
            ("virtio-rng-pci", serde_json::json!({"max-bytes": 1024, "addr": "5"})),
            ("virtio-balloon-ccw", serde_json::json!({"deflate-on-oom": true})),
        ] {
            assert!(is_hostless(&device(driver, properties)), "{driver}");
        }
        for (driver, properties) in [
            ("usb-host", serde_json::json!({"hostbus": 1, "hostaddr": 4})),
            ("vhost-vsock-pci", serde_json::json!({"guest-cid": 3})),
            ("usb-mtp", serde_json::json!({"rootdir": "/"})),
            ("virtio-rng-pci", serde_json::json!({"romfile": "/etc/passwd"})),
            ("VGA", serde_json::json!({"romfile": "/etc/passwd"})),
            ("usb-kbd", serde_json::json!({"x": {"driver": "file"}})),
            ("loader", serde_json::json!({"file": "/etc/passwd"})),
            ("virtio-blk-pci", serde_json::json!({})),
        ] {
            assert!(!is_hostless(&device(driver, properties)), "{driver}");
        }
    }
}
