//! What QEMU says of its block devices, by the name of a drive.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::host::image::file_id;
use crate::qemu::block::file_node;
use crate::spec::DiskBus;

use super::super::inventory::DiskFacts;
use super::super::rebuild::limits_of;

/// What QEMU says of its block devices.
pub(super) struct Blocks<'a> {
    /// By the name of their back-end, or of its first node.
    devices: BTreeMap<&'a str, &'a Value>,
    /// All nodes, each with its file.
    nodes: BTreeMap<&'a str, &'a str>,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(blocks: &'a Value, nodes: &'a Value) -> Self {
        let mut devices = BTreeMap::new();
        for block in blocks.as_array().into_iter().flatten() {
            let names = [&block["device"], &block["inserted"]["node-name"]];
            let named = names.into_iter().filter_map(Value::as_str).filter(|name| !name.is_empty());
            devices.extend(named.map(|name| (name, block)));
        }
        let node = |node: &'a Value| Some((node["node-name"].as_str()?, node["file"].as_str()?));
        let nodes = nodes.as_array().into_iter().flatten().filter_map(node).collect();
        Self { devices, nodes }
    }

    pub(super) fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &'a str> {
        self.nodes.keys().copied()
    }

    /// The path of the device with this drive in QEMU's object tree.
    pub(super) fn device_path(&self, drive: &str) -> Option<&'a str> {
        self.devices.get(drive)?["qdev"].as_str()
    }

    /// What is known of the disk with this drive.
    pub(super) fn facts(&self, drive: &str, bus: DiskBus, is_cd: bool, serial: Option<&String>) -> DiskFacts {
        let block = self.devices.get(drive).copied();
        let inserted = block.map_or(&Value::Null, |block| &block["inserted"]);
        let text = |key: &str| inserted[key].as_str().map(str::to_owned);
        // that of the format is JSON where vmrun has opened an image with others under it
        let own = inserted["node-name"].as_str().and_then(|node| self.nodes.get(file_node(node).as_str()));
        let file = own.map(|file| (*file).to_owned()).or_else(|| text("file"));
        let identity = file.as_ref().and_then(|file| std::fs::metadata(file).ok());
        DiskFacts {
            format: text("drv").and_then(|driver| driver.parse().ok()),
            bus,
            size_bytes: inserted["image"]["virtual-size"].as_u64(),
            readonly: inserted["ro"].as_bool().unwrap_or(is_cd),
            removable: is_cd,
            serial: serial.cloned(),
            node: text("node-name"),
            identity: identity.map(|facts| file_id(&facts)).filter(|_| !is_cd),
            foreign: true,
            limits: block.map(limits_of).unwrap_or_default(),
            file,
        }
    }
}
