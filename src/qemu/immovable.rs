//! Devices whose state no template can have: QEMU cannot write it down, or it is outside of QEMU.

use serde_json::{Map, Value};

use super::models;

/// Models (`-` at the end: all that begin so) and why.
const TABLE: [(&str, &str); 8] = [
    ("nvme", "QEMU cannot save the state of an NVMe disk"),
    (models::USB_HOST, "a USB device of the host is in one VM at a time"),
    ("usb-uas", "QEMU cannot save the state of a UAS disk"),
    ("usb-redir", "the device is at the other end of a connection"),
    ("vhost-user-", "its server knows one guest only"),
    ("vhost-vsock-", "its address is that of one guest"),
    ("vfio-", "a device of the host is in one VM at a time"),
    ("ivshmem-", "its memory is shared with other VMs"),
];

/// Why a device of this model and with these properties (as of `-device`) cannot be in a template; `None` if it can, as far as is known.
pub fn why(driver: &str, properties: &Map<String, Value>) -> Option<&'static str> {
    let fits = |name: &str| match name.ends_with('-') {
        true => driver.starts_with(name),
        false => driver == name,
    };
    let is_shared = properties.get("share-rw").is_some_and(|value| *value == true || *value == "on");
    let row = TABLE.iter().find(|(name, _)| fits(name)).map(|(_, why)| *why);
    row.or(is_shared.then_some("another VM may write to its disk (`share-rw=on`)"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn devices_that_stay_where_they_are_are_known() {
        for driver in ["nvme", "usb-host", "usb-uas", "vhost-user-fs-pci", "vfio-pci", "ivshmem-doorbell"] {
            assert!(why(driver, &Map::new()).is_some(), "{driver}");
        }
        for driver in ["virtio-blk-pci", "usb-storage", "nvme-subsys", "usb-hub", "scsi-hd"] {
            assert_eq!(why(driver, &Map::new()), None, "{driver}");
        }
        let shared = |value: Value| json!({ "share-rw": value }).as_object().cloned().unwrap();
        assert!(why("virtio-blk-pci", &shared(json!("on"))).is_some());
        assert!(why("virtio-blk-pci", &shared(json!(true))).is_some());
        assert_eq!(why("virtio-blk-pci", &shared(json!(false))), None);
    }
}
