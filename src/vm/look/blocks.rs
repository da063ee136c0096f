//! Drives and their media, from QEMU's block devices and block nodes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::qemu::block::{backing_file_node, file_node, given_image};
use crate::qemu::query_block::{drive_of, limits_of};
use crate::spec::{DiskBus, DiskOptions};

use super::Whose;
use super::answers::Answers;
use crate::vm::state::images::overlay_name;
use crate::vm::state::inventory::DiskFacts;
use crate::vm::state::open_files::OpenFiles;
use crate::vm::state::opened::{Files, ImageNodes};
use crate::vm::state::origin::NodeFile;

/// QEMU's block devices and nodes.
pub(super) struct Blocks<'a> {
    blocks: &'a Value,
    /// Block devices by the name of their back-end, or of their top node.
    devices: BTreeMap<&'a str, &'a Value>,
    /// All nodes, each with its file.
    nodes: BTreeMap<&'a str, String>,
    open: OpenFiles,
    whose: Whose<'a>,
    /// The images that vmrun has passed to QEMU.
    images: &'a ImageNodes,
    /// The folder that relative names refer to.
    folder: PathBuf,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(answers: &'a Answers, files: Files, whose: Whose<'a>, images: &'a ImageNodes) -> Self {
        let list = |value: &'a Value| value.as_array().into_iter().flatten();
        let mut devices = BTreeMap::new();
        for block in list(&answers.blocks) {
            let names = [&block["device"], &block["inserted"]["node-name"]];
            let named = names.into_iter().filter_map(Value::as_str).filter(|name| !name.is_empty());
            devices.extend(named.map(|name| (name, block)));
        }
        let node = |node: &'a Value| {
            let file = node["file"].as_str().map(|file| given_image(file).0);
            Some((node["node-name"].as_str()?, file.unwrap_or_default()))
        };
        Self {
            blocks: &answers.blocks,
            devices,
            nodes: list(&answers.named_nodes).filter_map(node).collect(),
            open: files.open(),
            whose,
            images,
            folder: files.folder(),
        }
    }

    pub(super) fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &'a str> {
        self.nodes.keys().copied()
    }

    /// The file that each node has open, where known.
    pub(super) fn files(&self) -> BTreeMap<String, NodeFile> {
        let file_of = |(node, file): (&&str, &String)| Some(((*node).to_owned(), self.file(node, file)?));
        self.nodes.iter().filter_map(file_of).collect()
    }

    /// An earlier result takes precedence over the names, which are true only until the files are renamed.
    fn file(&self, node: &str, file: &str) -> Option<NodeFile> {
        let known = match self.whose {
            Whose::Wrapped { files, .. } => files.and_then(|files| files.get(node)),
            Whose::Ours { .. } => None,
        };
        let known = known.filter(|known| known.name == file && self.open.may_have(known.id));
        let id = known.map(|known| known.id).or_else(|| self.open.named(file))?;
        Some(NodeFile { name: file.to_owned(), id })
    }

    /// The block device of this drive, or of the device with this id: an empty drive has no name.
    fn block(&self, drive: &str, id: &str) -> Option<&'a Value> {
        let of_device = || drive_of(self.blocks, id).filter(|_| !id.is_empty());
        self.devices.get(drive).copied().or_else(of_device)
    }

    /// The path of the device with this drive in QEMU's object tree.
    pub(super) fn device_path(&self, drive: &str) -> Option<&'a str> {
        self.devices.get(drive)?["qdev"].as_str()
    }

    /// The facts of the disk with this drive, of the device with this id; `None` if it has no drive.
    pub(super) fn facts(
        &self,
        drive: &str,
        id: &str,
        (bus, is_cd): (DiskBus, bool),
        serial: Option<String>,
    ) -> Option<DiskFacts> {
        let block = self.block(drive, id);
        if block.is_none() && drive.is_empty() {
            return None;
        }
        let inserted = block.map_or(&Value::Null, |block| &block["inserted"]);
        let text = |key: &str| inserted[key].as_str().map(str::to_owned);
        let name = inserted["node-name"].as_str().unwrap_or_default();
        // QEMU names the format's node in JSON if vmrun has opened an image with a backing chain
        let own = self.nodes.get_key_value(file_node(name).as_str());
        let own = own.or_else(|| self.nodes.get_key_value(name)).filter(|(_, file)| !file.is_empty());
        let (given, format) = inserted["file"].as_str().map(given_image).unzip();
        let file = own.map(|(_, file)| file.clone()).or(given);
        // an ephemeral VM shows the image under its overlay, which the user knows
        let is_overlay = matches!(self.whose, Whose::Ours { .. })
            && file.as_deref().and_then(|file| Path::new(file).file_name())
                == Some(overlay_name(name).as_ref());
        let below = self.nodes.get(backing_file_node(name).as_str()).filter(|_| is_overlay).cloned();
        let file = below.or(file);
        let identity = match (self.whose, self.images.get(name)) {
            (Whose::Ours { .. }, Some(image)) => {
                let image = if is_overlay { image.backing.as_deref() } else { Some(image) };
                image.and_then(|image| image.identity)
            }
            (Whose::Ours { .. }, None) => file.as_deref().and_then(|file| self.open.named(file)),
            (Whose::Wrapped { .. }, _) => {
                own.and_then(|(node, file)| self.file(node, file)).map(|file| file.id)
            }
        };
        let is_path = inserted["drv"] != "null-co";
        let file = file.map(|file| match self.whose {
            Whose::Ours { .. } if is_path => self.folder.join(file).to_string_lossy().into_owned(),
            _ => file,
        });
        Some(DiskFacts {
            format: format.flatten().or_else(|| text("drv")).and_then(|driver| driver.parse().ok()),
            bus,
            size_bytes: inserted["image"]["virtual-size"].as_u64(),
            readonly: inserted["ro"].as_bool().unwrap_or(is_cd),
            removable: is_cd,
            serial,
            node: text("node-name"),
            identity: identity.filter(|_| !is_cd),
            foreign: true,
            limits: block.map(limits_of).unwrap_or_default(),
            options: DiskOptions::default(),
            file,
        })
    }
}
