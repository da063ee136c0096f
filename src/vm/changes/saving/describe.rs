//! The description in a saved VM's file: enough to build an identical machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::qemu::{decided_machine, migration, models, query};
use crate::spec::{Boot, Disk, Forward, Image, Limits, VmSpec};

use super::Saving;
use super::files::FileFacts;
use super::template::{TemplateFacts, with_paths};
use crate::vm::error::ChangeError;
use crate::vm::look::addresses;
use crate::vm::state::facts::Facts;
use crate::vm::state::journal::Cards;
use crate::vm::state::open_files::OpenFiles;
use crate::vm::state::opened::Files;
use crate::vm::state::plugged::{Hot, Record};
use crate::vm::steps::to_the_end;

/// The description.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::vm) struct Saved {
    /// With the versioned machine type, and the forwards at the end.
    pub(in crate::vm) spec: VmSpec,
    pub(in crate::vm) facts: Facts,
    pub(in crate::vm) record: Record,
    /// What QEMU does not report of the network cards: in a new QEMU every cable is plugged.
    #[serde(default)]
    pub(in crate::vm) cards: Cards,
    /// Limits of disks that have any: a new QEMU has none.
    #[serde(default)]
    pub(in crate::vm) limits: BTreeMap<String, Limits>,
    /// Guest ports whose host port QEMU picked: they may get another one.
    pub(in crate::vm) any_port: Vec<Forward>,
    /// The guest was running.
    pub(in crate::vm) running: bool,
    /// All files that must be unchanged at a restore.
    pub(in crate::vm) files: Vec<FileFacts>,
    /// It is the description of a template.
    #[serde(default)]
    pub(in crate::vm) template: Option<TemplateFacts>,
}

impl Saving {
    /// Asks QEMU for what it decided itself: the machine version, USB ports and SCSI addresses.
    pub(super) async fn complete(&mut self) -> Result<(), ChangeError> {
        let kind = self.session.run(&query::machine_type()).await?;
        if let Some(machine) = migration::versioned(&kind, self.spec.machine.as_deref()) {
            self.spec.machine = Some(machine);
            self.spec.machine = Some(decided_machine(&self.spec));
        }
        let is_scsi = |hot: &&Hot| {
            let device = hot.commands.iter().find(|command| command.execute == "device_add");
            device.and_then(|device| device.arguments["driver"].as_str()).is_some_and(models::is_scsi)
        };
        let scsi: Vec<&str> = self.record.hot.iter().filter(is_scsi).map(|hot| hot.id.as_str()).collect();
        let found = addresses(&self.session, &scsi).await?;
        for hot in &mut self.record.hot {
            let Some(device) = hot.commands.iter_mut().find(|command| command.execute == "device_add") else {
                continue;
            };
            if let Some(port) = found.usb_port(&hot.id) {
                device.arguments.insert("port".to_owned(), json!(port));
            }
            for (name, value) in found.scsi(&hot.id) {
                device.arguments.insert((*name).to_owned(), value.clone());
            }
        }
        Ok(())
    }

    /// Makes the description, once QEMU writes to no image any more.
    pub(super) async fn describe(&self, memory_bytes: Option<u64>) -> Result<Vec<u8>, ChangeError> {
        let nodes = to_the_end(self.session.submit(&query::block_nodes())).await?;
        let on_host = |node: &&Value| node["drv"] == "file" || node["drv"] == "host_device";
        let images = nodes.as_array().into_iter().flatten().filter(on_host);
        let open = OpenFiles::of(self.facts.qemu_pid);
        let folder = Files::of(self.facts.qemu_pid).folder();
        let mut files: Vec<FileFacts> = Vec::new();
        for node in images {
            let (Some(path), Some(name)) = (node["file"].as_str(), node["node-name"].as_str()) else {
                continue;
            };
            // a name after `--` can be relative
            let path = folder.join(self.real_path(Path::new(path)));
            if self.new_place(&path).is_some() {
                continue;
            }
            if self.freezing.is_some()
                && self.facts.ephemeral
                && path.starts_with(&self.facts.state_directory)
            {
                return Err(ChangeError::unsupported(format!(
                    "a disk that was made while the VM ran cannot be frozen: {} goes with the VM",
                    path.display()
                ))
                .hint("give the disk a path of its own, or have it from the start"));
            }
            if !files.iter().any(|file| file.path == path) {
                files.push(open.facts(&path, self.images.get(name).copied())?);
            }
        }
        // QEMU read it at the start and closed it
        for path in self.loaded().into_iter().filter(|path| self.new_place(path).is_none()) {
            files.push(FileFacts::of(path)?);
        }
        let picked = |forward: &&Forward| {
            self.spec.publish.iter().any(|asked| {
                asked.host == 0 && asked.guest == forward.guest && asked.protocol == forward.protocol
            })
        };
        let spec = VmSpec {
            publish: self.forwards.clone(),
            disks: self.spec.disks.iter().map(|disk| self.with_real_path(disk)).collect(),
            ..self.spec.clone()
        };
        let saved = Saved {
            any_port: self.forwards.iter().filter(picked).cloned().collect(),
            spec: with_paths(spec, &mut |path| self.new_place(path).unwrap_or_else(|| path.to_owned())),
            template: self.freezing.as_ref().map(|freezing| TemplateFacts {
                folder: freezing.making.part().to_owned(),
                memory_bytes,
                waiting_shell: self.waiting_shell.clone(),
            }),
            facts: self.facts.clone(),
            record: self.record.clone(),
            cards: self.cards.clone(),
            limits: self.limits.clone(),
            running: self.running,
            files,
        };
        serde_json::to_vec(&saved).map_err(ChangeError::host)
    }

    /// Where a file is in the template that is being made.
    fn new_place(&self, path: &Path) -> Option<PathBuf> {
        self.freezing.as_ref().and_then(|freezing| freezing.making.new_place(path))
    }

    /// Files that QEMU itself read to boot the VM.
    fn loaded(&self) -> Vec<&Path> {
        match &self.spec.boot {
            Boot::Kernel { kernel, initrd, .. } => {
                [Some(kernel), initrd.as_ref()].into_iter().flatten().map(PathBuf::as_path).collect()
            }
            Boot::Squashfs { kernel, .. } => vec![kernel],
            Boot::Disk | Boot::Firmware | Boot::Iso { .. } => Vec::new(),
        }
    }

    /// A name that QEMU's JSON cannot hold has a link in the run directory, which is removed with the VM.
    fn real_path(&self, path: &Path) -> PathBuf {
        match path.parent() == Some(&self.facts.run_directory) {
            true => std::fs::read_link(path).unwrap_or_else(|_| path.to_owned()),
            false => path.to_owned(),
        }
    }

    fn with_real_path(&self, disk: &Disk) -> Disk {
        let image = Image { file: self.real_path(&disk.image.file), ..disk.image.clone() };
        Disk { image, ..disk.clone() }
    }
}
