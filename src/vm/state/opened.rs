//! Checks what QEMU has opened against what it may open, before the guest runs or can use it. vmrun does not predict how QEMU
//! resolves a name: it asks QEMU for its block nodes, and the kernel for its files.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use serde_json::Value;

use crate::host::image::file_id;
use crate::host::open_files::{Held, held_by};
use crate::qemu::query;
use crate::qemu::{Command, block};
use crate::qmp::{CommandError, Session};
use crate::spec::{FileId, Image, VmSpec};

use super::open_files::OpenFiles;
use crate::vm::error::ChangeError;
use crate::vm::steps::{blocking, to_the_end};

/// Images by the names of their block nodes.
pub(in crate::vm) type ImageNodes = BTreeMap<String, Image>;

/// The images that vmrun has passed to QEMU, by the names of their nodes: those from the start, and those added since.
pub(in crate::vm) fn images_of(spec: &VmSpec, since: &ImageNodes) -> ImageNodes {
    let first = spec.disks.iter().map(|disk| (disk.id.to_string(), disk.image.clone()));
    let mut images: ImageNodes = first.collect();
    images.extend(since.iter().map(|(node, image)| (node.clone(), image.clone())));
    images
}

/// QEMU's process id.
#[derive(Debug, Clone, Copy)]
pub(in crate::vm) struct Files(Pid);

impl Files {
    pub(in crate::vm) fn of(pid: i32) -> Self {
        Self(Pid::from_raw(pid))
    }

    /// Its working directory, which relative names refer to.
    pub(in crate::vm) fn folder(self) -> PathBuf {
        std::fs::read_link(format!("/proc/{}/cwd", self.0)).unwrap_or_default()
    }

    /// The open files, for queries.
    pub(in crate::vm) fn open(self) -> OpenFiles {
        OpenFiles::of(self.0.as_raw())
    }

    /// Its open files; `None` if they are hidden (for example because QEMU's program has capabilities).
    pub(in crate::vm) fn held(self) -> io::Result<Option<Vec<Held>>> {
        match held_by("/proc".as_ref(), self.0) {
            Ok(held) => Ok(Some(held)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                log::warn!("which files QEMU has open cannot be seen: {error}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The file that each node with a file has open.
pub(in crate::vm) fn identities(images: &ImageNodes) -> BTreeMap<String, FileId> {
    let files = images.iter().flat_map(|(name, image)| block::file_nodes(name, image));
    files.filter_map(|(node, file)| Some((node, file.identity?))).collect()
}

/// Checks that QEMU has opened these images, each file of them, and nothing else with them.
pub(in crate::vm) async fn check(
    session: &Session,
    files: Files,
    images: ImageNodes,
) -> Result<(), ChangeError> {
    if images.is_empty() {
        return Ok(());
    }
    let commands = [
        query::block_nodes(),
        // only this query also lists the nodes that a driver has opened by itself, with their parents
        Command::new("x-debug-query-block-graph", Value::Null),
    ];
    let [nodes, graph] = session.submit_all(&commands).try_into().map_err(|_| ChangeError::not_running())?;
    let nodes = to_the_end(nodes).await?;
    let graph = match to_the_end(graph).await {
        Ok(graph) => Some(graph),
        Err(CommandError::Refused { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    blocking(move || {
        let graph = Graph::new(&nodes, graph.as_ref());
        let expected = graph.compare(&images)?;
        match files.held().map_err(ChangeError::host)? {
            Some(held) => compare(&expected, &held),
            None => Ok(()),
        }
    })
    .await
}

/// A file that QEMU must have open.
struct Expected {
    path: PathBuf,
    id: FileId,
}

/// The nodes, with their parents and children.
struct Graph<'a> {
    /// Driver and file, by name.
    nodes: BTreeMap<&'a str, (&'a str, &'a str)>,
    /// `None` if QEMU does not report it.
    below: Option<BTreeMap<&'a str, Vec<&'a str>>>,
}

impl<'a> Graph<'a> {
    fn new(nodes: &'a Value, graph: Option<&'a Value>) -> Self {
        let node = |node: &'a Value| {
            let file = node["file"].as_str().unwrap_or_default();
            Some((node["node-name"].as_str()?, (node["drv"].as_str()?, file)))
        };
        Self { nodes: list(nodes).filter_map(node).collect(), below: graph.map(below) }
    }

    /// The files that QEMU must have open for the images; an error if there are nodes that must not exist.
    fn compare(&self, images: &ImageNodes) -> Result<Vec<Expected>, ChangeError> {
        let mut expected = Vec::new();
        for (name, image) in images {
            let files = block::file_nodes(name, image);
            let formats: BTreeSet<String> = block::format_nodes(name, image).map(|(name, _)| name).collect();
            for (node, file) in &files {
                if !self.nodes.contains_key(node.as_str()) {
                    return Err(mismatch(&image.file, format!("not opened {}", file.path.display())));
                }
                let path = file.path.to_owned();
                expected.extend(file.identity.map(|id| Expected { path, id }));
            }
            for node in self.under(name, image)? {
                if !files.contains_key(node) && !formats.contains(node) {
                    expected.push(self.extent(image, node)?);
                }
            }
        }
        Ok(expected)
    }

    /// All nodes below one, and itself.
    fn under<'b>(&'b self, name: &'b str, image: &Image) -> Result<BTreeSet<&'b str>, ChangeError> {
        let mut found = BTreeSet::new();
        let Some(below) = &self.below else {
            if image.layers().any(|layer| !layer.extents.is_empty()) {
                let message =
                    format!("this QEMU does not tell which files it opens for {}", image.file.display());
                return Err(
                    ChangeError::unsupported(message).hint("`qemu-img convert` makes one image of it")
                );
            }
            return Ok(found);
        };
        let mut queue = vec![name];
        while let Some(node) = queue.pop() {
            if found.insert(node) {
                queue.extend(below.get(node).into_iter().flatten());
            }
        }
        Ok(found)
    }

    /// The file of a node that a driver has made by itself: it must be a part of the image.
    fn extent(&self, image: &Image, node: &str) -> Result<Expected, ChangeError> {
        let (driver, file) = self.nodes.get(node).copied().unwrap_or_default();
        let path = PathBuf::from(file);
        let id = std::fs::metadata(&path).ok().map(|facts| file_id(&facts));
        let parts = || image.layers().flat_map(|layer| &layer.extents);
        match id {
            Some(id)
                if ["file", "host_device"].contains(&driver)
                    && parts().any(|part| part.identity == Some(id)) =>
            {
                Ok(Expected { path, id })
            }
            _ => Err(mismatch(&image.file, format!("opened '{file}' ({driver}), which it may not"))),
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The children of each node, by name, from QEMU's graph with numbers.
fn below<'a>(graph: &'a Value) -> BTreeMap<&'a str, Vec<&'a str>> {
    let named = |node: &'a Value| Some((node["id"].as_u64()?, node["name"].as_str()?));
    let names: BTreeMap<u64, &str> = list(&graph["nodes"]).filter_map(named).collect();
    let name = |value: &'a Value| names.get(&value.as_u64()?).copied();
    let mut below: BTreeMap<&'a str, Vec<&'a str>> = BTreeMap::new();
    for edge in list(&graph["edges"]) {
        if let (Some(parent), Some(child)) = (name(&edge["parent"]), name(&edge["child"])) {
            below.entry(parent).or_default().push(child);
        }
    }
    below
}

/// Each file must be open as often as there are nodes for it, and still have its name.
fn compare(expected: &[Expected], held: &[Held]) -> Result<(), ChangeError> {
    for Expected { path, id } in expected {
        let wanted = expected.iter().filter(|other| other.id == *id).count();
        let open = held.iter().filter(|held| held.id == *id).count();
        let now = std::fs::metadata(path).ok().map(|facts| file_id(&facts));
        if open < wanted || now != Some(*id) {
            return Err(mismatch(path, "opened another file under its name".to_owned()));
        }
    }
    Ok(())
}

fn mismatch(image: &Path, why: String) -> ChangeError {
    ChangeError::host(format!("{} is not used: QEMU has {why}", image.display())).hint(
        "was it replaced at this very moment? if you got it from another user: do not trust it; `qemu-img convert` makes one image of it",
    )
}

#[cfg(test)]
#[path = "opened_tests.rs"]
mod tests;
