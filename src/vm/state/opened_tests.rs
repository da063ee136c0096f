//! QEMU's answers are compared with what is expected, not the requested state.

use serde_json::json;

use super::*;
use crate::spec::{HostFile, ImageFormat};

struct Case {
    root: tempfile::TempDir,
    images: ImageNodes,
    nodes: Vec<Value>,
    edges: Vec<(u64, u64)>,
}

/// A vmdk with one extent, as QEMU opens it.
fn vmdk() -> Case {
    let root = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = root.path().join(name);
        std::fs::write(&path, name).unwrap();
        let identity = Some(file_id(&std::fs::metadata(&path).unwrap()));
        HostFile { path, identity }
    };
    let HostFile { path, identity } = file("top.vmdk");
    let image = Image { identity, extents: vec![file("part")], ..Image::alone(path, ImageFormat::Vmdk) };
    file("other");
    let mut case = Case {
        images: ImageNodes::from([("disk0".to_owned(), image)]),
        root,
        nodes: Vec::new(),
        edges: Vec::new(),
    };
    case.node("disk0", "vmdk", "top.vmdk", None);
    case.node("disk0.file", "file", "top.vmdk", Some(0));
    case
}

impl Case {
    fn node(&mut self, name: &str, driver: &str, file: &str, under: Option<u64>) {
        let number = self.nodes.len() as u64;
        let file = self.root.path().join(file);
        self.nodes
            .push(json!({ "node-name": name, "name": name, "id": number, "drv": driver, "file": file }));
        self.edges.extend(under.map(|parent| (parent, number)));
    }

    fn compare(&self, graph: bool) -> Result<usize, String> {
        let edges: Vec<_> =
            self.edges.iter().map(|(parent, child)| json!({ "parent": parent, "child": child })).collect();
        let (nodes, tree) = (json!(self.nodes), json!({ "nodes": self.nodes, "edges": edges }));
        let graph = Graph::new(&nodes, graph.then_some(&tree));
        graph.compare(&self.images).map(|expected| expected.len()).map_err(|error| error.message)
    }
}

#[test]
fn what_a_driver_opens_by_itself_must_be_a_part_of_the_image() {
    let mut case = vmdk();
    case.node("#block1", "file", "part", Some(0));
    // a node of another image
    case.node("#block2", "file", "other", None);
    assert_eq!(case.compare(true), Ok(2));
    assert!(case.compare(false).unwrap_err().contains("does not tell"));
    for (driver, file) in [("file", "other"), ("nbd", "part"), ("file", "gone")] {
        let mut case = vmdk();
        case.node("#block1", driver, file, Some(0));
        assert!(case.compare(true).unwrap_err().contains("which it may not"), "{driver} {file}");
    }
    // at any depth
    let mut case = vmdk();
    case.node("#block1", "file", "part", Some(0));
    case.node("#block2", "file", "other", Some(2));
    assert!(case.compare(true).unwrap_err().contains("which it may not"));
}

#[test]
fn each_file_must_be_open_as_often_as_it_is_needed() {
    let case = vmdk();
    let image = &case.images["disk0"];
    let expected = |path: &Path, id| Expected { path: path.to_owned(), id };
    let (top, part) = (image.identity.unwrap(), image.extents[0].identity.unwrap());
    let held = |id| Held { id, link: PathBuf::new() };
    let wanted = [expected(&image.file, top), expected(&image.extents[0].path, part)];
    compare(&wanted, &[held(part), held(top)]).unwrap();
    compare(&wanted, &[held(top), held(top)]).unwrap_err();
    let twice = [expected(&image.file, top), expected(&image.file, top)];
    compare(&twice, &[held(top), held(part)]).unwrap_err();
    // open, but under another name
    compare(&[expected(&image.file, part)], &[held(part)]).unwrap_err();
}
