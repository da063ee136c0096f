//! What `query-block` tells of the drives of devices.

use std::path::Path;

use serde_json::Value;

use crate::qemu::Machine;
use crate::qemu::block::given_image;
use crate::qemu::replug::{Replug, What};
use crate::spec::{Limits, Rates, VmSpec};

use crate::vm::state::inventory::{DiskFacts, Inventory, Kind};
use crate::vm::state::plugged::Record;

/// Adds what QEMU does not tell of disks: what was said of them at the start, or when they were plugged.
pub(in crate::vm) fn fill_options(
    inventory: &mut Inventory,
    machine: &Machine,
    spec: &VmSpec,
    record: &Record,
) {
    let cold = spec.disks.iter().map(|disk| (disk.id.to_string(), disk.options));
    let hot =
        record.hot.iter().filter_map(|hot| match Replug::read(machine, &hot.id, &hot.commands).ok()?.what {
            What::Disk { options, .. } => Some((hot.id.clone(), options)),
            _ => None,
        });
    for (id, options) in cold.chain(hot) {
        if let Some(Kind::Disk(facts)) = inventory.device_mut(&id).map(|entry| &mut entry.kind) {
            facts.options = options;
        }
    }
}

/// The entry of a device in the answer of `query-block`.
pub(in crate::vm) fn drive_of<'a>(blocks: &'a Value, id: &str) -> Option<&'a Value> {
    blocks.as_array()?.iter().find(|block| block["qdev"].as_str().and_then(device_of) == Some(id))
}

/// Completes a disk whose drive has a name that is no block node's (`-drive id=…`), and notes whether its nodes are vmrun's to close.
pub(super) fn complete(facts: &mut DiskFacts, drive: &Value, folder: &Path, is_ours: impl Fn(&str) -> bool) {
    let medium = &drive["inserted"];
    if let (None, Some(node)) = (&facts.node, medium["node-name"].as_str()) {
        facts.node = Some(node.to_owned());
        let (file, format) = medium["file"].as_str().map(given_image).unzip();
        facts.file = file.map(|file| match medium["drv"] == "null-co" {
            true => file,
            false => folder.join(file).to_string_lossy().into_owned(),
        });
        let format = format.flatten().or_else(|| Some(medium["drv"].as_str()?.to_owned()));
        facts.format = format.and_then(|format| format.parse().ok());
        facts.size_bytes = medium["image"]["virtual-size"].as_u64();
        facts.readonly = medium["ro"] == true;
    }
    facts.foreign = facts.node.as_deref().is_some_and(|node| !is_ours(node));
}

/// The device that a drive belongs to: QEMU names `disk1`, or a part of it, such as `/machine/peripheral/disk1/virtio-backend`.
pub(in crate::vm) fn device_of(qdev: &str) -> Option<&str> {
    qdev.strip_prefix("/machine/peripheral/").unwrap_or(qdev).split('/').next()
}

/// The limits in an entry of `query-block`, where 0 is none.
pub(in crate::vm) fn limits_of(drive: &Value) -> Limits {
    let limit = |name: &str| drive["inserted"][name].as_u64().filter(|limit| *limit > 0);
    Limits {
        operations: Rates { total: limit("iops"), read: limit("iops_rd"), write: limit("iops_wr") },
        bytes: Rates { total: limit("bps"), read: limit("bps_rd"), write: limit("bps_wr") },
    }
}
