//! Block nodes: what a disk reads and writes. One description for `-blockdev` and for `blockdev-add`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use serde_json::{Value, json};

use super::{Command, disk_options};
use crate::spec::{DiskOptions, FileId, Image, ImageFormat, Limits};

/// One description of nodes of QEMU's block graph. An image is two: the file, and the format over it with everything else that the
/// image leads to. What lies in the second goes with it.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockNode {
    name: String,
    description: Value,
}

/// A node with a file of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileNode<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// Which it is, as far as anybody has looked.
    pub identity: Option<FileId>,
}

impl BlockNode {
    fn new(description: Value) -> Self {
        let name = description["node-name"].as_str().unwrap_or_default().to_owned();
        Self { name, description }
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

/// An image as nodes `<name>.file` and `<name>`, in the order in which they are added. Nothing is left for QEMU to look for: each
/// image under it is named in the second with all its files, and under the last there is nothing, whatever its header says.
pub fn image(name: &str, image: &Image, readonly: bool, options: &DiskOptions) -> [BlockNode; 2] {
    let file = json!(file_node(name));
    let mut own = self::file(&file_node(name), &image.file, image.identity, readonly);
    disk_options::in_file(&mut own, options, true);
    [BlockNode::new(own), BlockNode::new(format(name, 0, image, file, readonly, options))]
}

/// A file as it is. The path is opened as a file whatever it looks like (`nbd:x`, `json:{…}`, commas).
fn file(name: &str, path: &Path, identity: Option<FileId>, readonly: bool) -> Value {
    debug_assert!(path.to_str().is_some(), "QEMU's JSON is UTF-8: {path:?} needs a link with such a name");
    json!({
        // QEMU insists on the difference
        "driver": if identity.is_some_and(FileId::is_block_device) { "host_device" } else { "file" },
        "node-name": name,
        "filename": path.to_string_lossy(),
        "read-only": readonly,
        // fail rather than attach read-only what was asked for writing
        "auto-read-only": false,
        "discard": "unmap",
    })
}

/// The format over a file; at `depth` 0 it is what a device's `drive` refers to.
fn format(
    name: &str,
    depth: usize,
    image: &Image,
    file: Value,
    readonly: bool,
    options: &DiskOptions,
) -> Value {
    let on_top = depth == 0;
    let mut node = json!({
        "driver": image.format.as_str(),
        "node-name": layer(name, depth),
        "file": file,
        "read-only": readonly,
        "discard": "unmap",
    });
    disk_options::in_format(&mut node, options, on_top);
    if let Some(data) = &image.data_file {
        let mut data = self::file(&data_node(name, depth), &data.path, data.identity, readonly);
        disk_options::in_file(&mut data, options, on_top);
        node["data-file"] = data;
    }
    if can_have_backing(image.format) {
        let below = depth + 1;
        node["backing"] = image.backing.as_deref().map_or(Value::Null, |backing| {
            let mut file = self::file(&layer_file(name, below), &backing.file, backing.identity, true);
            disk_options::in_file(&mut file, options, false);
            format(name, below, backing, file, true, options)
        });
    }
    node
}

/// Whether QEMU knows of `backing` for it; others have none.
fn can_have_backing(format: ImageFormat) -> bool {
    matches!(format, ImageFormat::Qcow2 | ImageFormat::Qed | ImageFormat::Vmdk)
}

// names have room for five characters more than an id has

fn layer(name: &str, depth: usize) -> String {
    if depth == 0 { name.to_owned() } else { format!("{name}.b{depth}") }
}

fn layer_file(name: &str, depth: usize) -> String {
    if depth == 0 { file_node(name) } else { format!("{name}.f{depth}") }
}

fn data_node(name: &str, depth: usize) -> String {
    format!("{name}.d{depth}")
}

/// The nodes with files that an image is opened as, by their names.
pub fn file_nodes<'a>(name: &str, image: &'a Image) -> BTreeMap<String, FileNode<'a>> {
    let mut nodes = BTreeMap::new();
    for (depth, image) in image.layers().enumerate() {
        let own = FileNode { path: &image.file, identity: image.identity };
        nodes.insert(layer_file(name, depth), own);
        let data = image.data_file.as_ref();
        let data = data.map(|data| FileNode { path: &data.path, identity: data.identity });
        nodes.extend(data.map(|data| (data_node(name, depth), data)));
    }
    nodes
}

/// The nodes without a file of their own that an image is opened as.
pub fn format_nodes<'a>(name: &str, image: &'a Image) -> impl Iterator<Item = (String, &'a Image)> {
    image.layers().enumerate().map(move |(depth, image)| (layer(name, depth), image))
}

/// The name of the node with an image's own file, from that of the image.
pub fn file_node(name: &str) -> String {
    format!("{name}.file")
}

/// The name of the node with the file of the first image under an image.
pub fn backing_file_node(name: &str) -> String {
    layer_file(name, 1)
}

/// The path in QEMU's name of an image, which is `json:{…}` if options of the image were given.
pub fn host_file(name: &str) -> String {
    let path = as_json(name).and_then(|json| path_in(&json).map(str::to_owned));
    path.unwrap_or_else(|| name.to_owned())
}

/// The image that a user has given, from what QEMU calls the one that it has opened: with `-snapshot` or `snapshot=on` that is a
/// temporary file without a name on top of his. With its format, where it is another than that of the one on top.
pub fn given_image(name: &str) -> (String, Option<String>) {
    let Some(top) = as_json(name) else { return (name.to_owned(), None) };
    let given = match path_in(&top).is_some_and(is_temporary) && !top["backing"].is_null() {
        true => &top["backing"],
        false => &top,
    };
    // by name where that is all that QEMU needs
    let path = given.as_str().map(host_file).or_else(|| path_in(given).map(str::to_owned));
    let format = given["driver"].as_str().map(str::to_owned);
    path.map_or_else(|| (name.to_owned(), None), |path| (path, format))
}

fn as_json(name: &str) -> Option<Value> {
    name.strip_prefix("json:").and_then(|json| serde_json::from_str(json).ok())
}

/// The path of an image's own file, or of the one under the filters on top of it.
fn path_in(image: &Value) -> Option<&str> {
    image["filename"].as_str().or_else(|| path_in(image.get("file")?))
}

/// What QEMU calls a file for `-snapshot`, which has no name any more when it is in use (`create_tmp_file` in its block.c).
fn is_temporary(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.strip_prefix("vl.").is_some_and(|random| random.len() == 6)
}

/// `blockdev-del` of an image's nodes, in the order in which they must go; what lies under it goes with it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::HostFile;

    #[test]
    fn names_stay_names() {
        let path = Path::new("/images/a,snapshot=on nbd:x\n.img");
        let [file, format] =
            image("data", &Image::alone(path, ImageFormat::Raw), false, &DiskOptions::default());
        assert_eq!(file.name(), "data.file");
        assert_eq!(format.name(), "data");
        let argument: Value = serde_json::from_str(file.argument()[1].to_str().unwrap()).unwrap();
        assert_eq!(argument["filename"], path.to_str().unwrap());
        assert_eq!(Value::Object(file.add().arguments), argument);
        assert_eq!(format.add().arguments["file"], "data.file");
        // a format without one does not know the word
        assert_eq!(format.add().arguments.get("backing"), None);
    }

    #[test]
    fn nothing_is_left_to_look_for() {
        let data = HostFile { path: "/i/raw".into(), identity: None };
        let base = Image { data_file: Some(data), ..Image::alone("/i/base", ImageFormat::Qcow2) };
        let middle = Image { backing: Some(Box::new(base)), ..Image::alone("/i/middle", ImageFormat::Qcow2) };
        let top = Image { backing: Some(Box::new(middle)), ..Image::alone("/i/top", ImageFormat::Qcow2) };
        let [_, node] = image("data", &top, false, &DiskOptions::default());
        let top_node = Value::Object(node.add().arguments);
        assert_eq!(top_node["read-only"], false);
        let middle_node = &top_node["backing"];
        assert_eq!((&middle_node["node-name"], &middle_node["read-only"]), (&json!("data.b1"), &json!(true)));
        assert_eq!(middle_node["file"]["filename"], "/i/middle");
        let base_node = &middle_node["backing"];
        assert_eq!(base_node["backing"], Value::Null);
        assert!(base_node.as_object().unwrap().contains_key("backing"));
        assert_eq!(
            (&base_node["data-file"]["filename"], &base_node["data-file"]["read-only"]),
            (&json!("/i/raw"), &json!(true))
        );
        let names: Vec<_> =
            file_nodes("data", &top).into_iter().map(|(name, file)| (name, file.path.to_owned())).collect();
        let named = [
            ("data.d2", "/i/raw"),
            ("data.f1", "/i/middle"),
            ("data.f2", "/i/base"),
            ("data.file", "/i/top"),
        ];
        assert_eq!(names, named.map(|(name, path)| (name.to_owned(), path.into())));
        let names: Vec<_> = format_nodes("data", &top).map(|(name, _)| name).collect();
        assert_eq!(names, ["data", "data.b1", "data.b2"]);
    }

    #[test]
    fn a_block_device_is_one() {
        let identity = Some(FileId { device: 7, inode: 0 });
        let device = Image { identity, ..Image::alone("/dev/sdb", ImageFormat::Raw) };
        let [file, _] = image("data", &device, false, &DiskOptions::default());
        assert_eq!(file.add().arguments["driver"], "host_device");
    }

    #[test]
    fn the_file_of_an_image_is_found_in_its_name() {
        assert_eq!(host_file("/i/json:a"), "/i/json:a");
        assert_eq!(
            host_file(r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"/i/a"}}"#),
            "/i/a"
        );
    }

    #[test]
    fn under_a_temporary_file_is_the_image_that_was_given() {
        let json = |text: &str| given_image(&format!("json:{text}"));
        let given = |file: &str, format: &str| (file.to_owned(), Some(format.to_owned()));
        assert_eq!(given_image("/i/a"), ("/i/a".to_owned(), None));
        // as QEMU 7.2 has it
        let top = r#""driver": "qcow2", "file": {"driver": "file", "filename": "/var/tmp/vl.QRX6Y3"}"#;
        let raw = r#"{"driver": "raw", "file": {"driver": "file", "filename": "x.img"}}"#;
        assert_eq!(json(&format!(r#"{{"backing": {raw}, {top}}}"#)), given("x.img", "raw"));
        assert_eq!(json(&format!(r#"{{"backing": "/i/a", {top}}}"#)), ("/i/a".to_owned(), None));
        // an overlay of the user's own is what he has given
        let own = top.replace("vl.QRX6Y3", "vl.mine");
        assert_eq!(json(&format!(r#"{{"backing": {raw}, {own}}}"#)), given("/var/tmp/vl.mine", "qcow2"));
        // what has no file keeps its name
        assert_eq!(json(r#"{"driver": "null-co"}"#), (r#"json:{"driver": "null-co"}"#.to_owned(), None));
    }

    #[test]
    fn removes_the_format_first() {
        let names: Vec<_> =
            remove_image("data").into_iter().map(|command| command.arguments["node-name"].clone()).collect();
        assert_eq!(names, ["data", "data.file"]);
    }
}
