//! Block nodes: what a disk reads and writes. One description for `-blockdev` and for `blockdev-add`.

use std::ffi::OsString;
use std::path::Path;

use serde_json::{Value, json};

use super::Command;
use crate::spec::{ImageFormat, Limits};

/// One node of QEMU's block graph. An image is two: the file, and the format over it.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockNode {
    name: String,
    description: Value,
}

impl BlockNode {
    /// The file itself, as node `<name>.file`. The path is opened as a file whatever it looks like (`nbd:x`, `json:{…}`, commas).
    pub fn file(name: &str, path: &Path, readonly: bool) -> Self {
        debug_assert!(
            path.to_str().is_some(),
            "QEMU's JSON is UTF-8: {path:?} needs a link with such a name"
        );
        let name = file_node(name);
        let description = json!({
            "driver": "file",
            "node-name": name,
            "filename": path.to_string_lossy(),
            "read-only": readonly,
            // fail rather than attach read-only what was asked for writing
            "auto-read-only": false,
            "discard": "unmap",
        });
        Self { name, description }
    }

    /// The format over the file, as node `<name>`: what a device's `drive` refers to.
    pub fn format(name: &str, format: ImageFormat, readonly: bool) -> Self {
        let description = json!({
            "driver": format.as_str(),
            "node-name": name,
            "file": file_node(name),
            "read-only": readonly,
            "discard": "unmap",
        });
        Self { name: name.to_owned(), description }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `-blockdev {…}`.
    pub fn argument(&self) -> [OsString; 2] {
        ["-blockdev".into(), self.description.to_string().into()]
    }

    /// `blockdev-add`.
    pub fn add(&self) -> Command {
        Command::new("blockdev-add", self.description.clone())
    }

    /// `blockdev-del`. Fails ("in use") until the device is gone, so only after DEVICE_DELETED.
    pub fn remove(&self) -> Command {
        remove(&self.name)
    }
}

/// An image as nodes `<name>.file` and `<name>`, in the order in which they are added.
pub fn image(name: &str, path: &Path, format: ImageFormat, readonly: bool) -> [BlockNode; 2] {
    [BlockNode::file(name, path, readonly), BlockNode::format(name, format, readonly)]
}

/// `blockdev-del` of both nodes of an image, in the order in which they must go.
pub fn remove_image(name: &str) -> [Command; 2] {
    [remove(name), remove(&file_node(name))]
}

/// `block_resize` of an image to `bytes`.
pub fn resize(name: &str, bytes: u64) -> Command {
    Command::new("block_resize", json!({ "node-name": name, "size": bytes }))
}

/// `block_set_io_throttle`. `device` is what `query-block` calls `qdev`: the id of a device, or the path of its part that has the drive.
pub fn throttle(device: &str, limits: &Limits) -> Command {
    let none = |limit: Option<u64>| limit.unwrap_or(0);
    let (operations, bytes) = (limits.operations, limits.bytes);
    Command::new(
        "block_set_io_throttle",
        json!({
            "id": device,
            "iops": none(operations.total), "iops_rd": none(operations.read), "iops_wr": none(operations.write),
            "bps": none(bytes.total), "bps_rd": none(bytes.read), "bps_wr": none(bytes.write),
        }),
    )
}

fn remove(node: &str) -> Command {
    Command::new("blockdev-del", json!({ "node-name": node }))
}

fn file_node(name: &str) -> String {
    format!("{name}.file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_names() {
        let path = Path::new("/images/a,snapshot=on nbd:x\n.img");
        let [file, format] = image("data", path, ImageFormat::Raw, false);
        assert_eq!(file.name(), "data.file");
        assert_eq!(format.name(), "data");
        let argument: Value = serde_json::from_str(file.argument()[1].to_str().unwrap()).unwrap();
        assert_eq!(argument["filename"], path.to_str().unwrap());
        assert_eq!(Value::Object(file.add().arguments), argument);
        assert_eq!(format.add().arguments["file"], "data.file");
    }

    #[test]
    fn removes_the_format_first() {
        let names: Vec<_> =
            remove_image("data").into_iter().map(|command| command.arguments["node-name"].clone()).collect();
        assert_eq!(names, ["data", "data.file"]);
    }
}
