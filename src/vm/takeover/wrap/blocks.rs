//! What QEMU says of its block devices, by the name of a drive.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::qemu::block::{file_node, given_image};
use crate::spec::{DiskBus, DiskOptions};

use crate::vm::state::facts::NodeFile;
use crate::vm::state::inventory::DiskFacts;
use crate::vm::state::open_files::OpenFiles;
use crate::vm::takeover::rebuild::limits_of;

/// What QEMU says of its block devices.
pub(super) struct Blocks<'a> {
    /// By the name of their back-end, or of its first node.
    devices: BTreeMap<&'a str, &'a Value>,
    /// All nodes, each with its file.
    nodes: BTreeMap<&'a str, String>,
    /// Which file each node has open, where that is known.
    files: BTreeMap<String, NodeFile>,
}

impl<'a> Blocks<'a> {
    /// `known`: what was found earlier. It goes before the names, which lead to the files only as long as nobody moves these.
    pub(super) fn new(
        blocks: &'a Value,
        nodes: &'a Value,
        open: &OpenFiles,
        known: &BTreeMap<String, NodeFile>,
    ) -> Self {
        let mut devices = BTreeMap::new();
        for block in blocks.as_array().into_iter().flatten() {
            let names = [&block["device"], &block["inserted"]["node-name"]];
            let named = names.into_iter().filter_map(Value::as_str).filter(|name| !name.is_empty());
            devices.extend(named.map(|name| (name, block)));
        }
        let node =
            |node: &'a Value| Some((node["node-name"].as_str()?, given_image(node["file"].as_str()?).0));
        let nodes: BTreeMap<&str, String> = nodes.as_array().into_iter().flatten().filter_map(node).collect();
        let is_same = |known: &&NodeFile, file: &str| known.name == file && open.may_have(known.id);
        let file_of = |(node, file): (&&str, &String)| {
            let known = known.get(*node).filter(|known| is_same(known, file)).map(|known| known.id);
            let id = known.or_else(|| open.named(file))?;
            Some(((*node).to_owned(), NodeFile { name: file.clone(), id }))
        };
        let files = nodes.iter().filter_map(file_of).collect();
        Self { devices, nodes, files }
    }

    pub(super) fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &'a str> {
        self.nodes.keys().copied()
    }

    /// Which file each node has open, where that is known.
    pub(super) fn files(&self) -> &BTreeMap<String, NodeFile> {
        &self.files
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
        let node = inserted["node-name"].as_str().unwrap_or_default();
        let own =
            self.nodes.get_key_value(file_node(node).as_str()).or_else(|| self.nodes.get_key_value(node));
        let (given, format) = inserted["file"].as_str().map(given_image).unzip();
        let file = own.map(|(_, file)| file.clone()).or(given);
        let identity = own.and_then(|(node, _)| self.files.get(*node)).map(|file| file.id);
        DiskFacts {
            format: format.flatten().or_else(|| text("drv")).and_then(|driver| driver.parse().ok()),
            bus,
            size_bytes: inserted["image"]["virtual-size"].as_u64(),
            readonly: inserted["ro"].as_bool().unwrap_or(is_cd),
            removable: is_cd,
            serial: serial.cloned(),
            node: text("node-name"),
            identity: identity.filter(|_| !is_cd),
            foreign: true,
            limits: block.map(limits_of).unwrap_or_default(),
            options: DiskOptions::default(),
            file,
        }
    }
}
