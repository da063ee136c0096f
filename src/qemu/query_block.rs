//! What `query-block` says of the drives of devices.

use serde_json::Value;

use crate::spec::{Limits, Rates};

/// The entry of a device in the answer.
pub fn drive_of<'a>(blocks: &'a Value, id: &str) -> Option<&'a Value> {
    blocks.as_array()?.iter().find(|block| block["qdev"].as_str().and_then(device_of) == Some(id))
}

/// The device that a drive belongs to: QEMU names `disk1`, or a part of it, such as `/machine/peripheral/disk1/virtio-backend`.
pub fn device_of(qdev: &str) -> Option<&str> {
    qdev.strip_prefix("/machine/peripheral/").unwrap_or(qdev).split('/').next()
}

/// The limits in an entry, where 0 is none.
pub fn limits_of(drive: &Value) -> Limits {
    let limit = |name: &str| drive["inserted"][name].as_u64().filter(|limit| *limit > 0);
    Limits {
        operations: Rates { total: limit("iops"), read: limit("iops_rd"), write: limit("iops_wr") },
        bytes: Rates { total: limit("bps"), read: limit("bps_rd"), write: limit("bps_wr") },
    }
}

/// Which device has stopped the VM with an I/O error, and why.
pub fn io_error(blocks: &Value) -> Option<String> {
    blocks.as_array()?.iter().find_map(|block| {
        let id = device_of(block["qdev"].as_str()?)?;
        match block["io-status"].as_str()? {
            "nospace" => Some(format!("no space left on the host for '{id}'")),
            "failed" => Some(format!("'{id}' has an I/O error")),
            _ => None,
        }
    })
}
