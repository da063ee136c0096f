//! A template: which files go into its folder, and what of the description is said anew for it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::template::{self, Making};
use crate::spec::{Boot, Disk, Firmware, Image, VmSpec};

use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::state::facts::Facts;
use crate::vm::state::templates::templates_below;
use crate::vm::state::waiting_shell::WaitingShellFacts;

/// What the description of a template says besides that of a saved VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::vm) struct TemplateFacts {
    /// The folder when it was made: paths that begin with it are those of the template's own files, wherever it is now.
    #[serde(with = "crate::spec::fields::path")]
    pub(in crate::vm) folder: PathBuf,
    /// Size of the guest's memory, where it is a file of its own; otherwise it is in the stream.
    pub(in crate::vm) memory_bytes: Option<u64>,
    /// The shell that waits in the guest for its first command.
    #[serde(default)]
    pub(in crate::vm) waiting_shell: Option<WaitingShellFacts>,
}

/// A template that is being made of a VM.
#[derive(Debug)]
pub(in crate::vm) struct Freezing {
    pub(in crate::vm) making: Making,
    /// The memory of the VM, if QEMU writes it into a file.
    pub(in crate::vm) memory: Option<File>,
    path: PathBuf,
}

fn from_io(path: &Path, error: io::Error) -> ChangeError {
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            let kind = ErrorKind::AlreadyThere { id: path.display().to_string() };
            let message = format!("{} exists already, and a template replaces nothing", path.display());
            ChangeError::new(kind, message).hint("choose another name")
        }
        _ => ChangeError::host(format!("{}: {error}", path.display())),
    }
}

impl Freezing {
    /// Makes the folder.
    pub(super) fn begin(folder: &Folder, spec: &VmSpec, facts: &Facts) -> Result<Self, ChangeError> {
        let memory = template::memory_of(facts.qemu_pid).map_err(ChangeError::host)?;
        let copied = own_files(spec, facts);
        let making = Making::create(&folder.path, &folder.part, copied)
            .map_err(|error| from_io(&folder.path, error))?;
        match folder.until_unused {
            true => making.until_unused().map_err(|error| from_io(&folder.path, error))?,
            // its disks lie over those of the VM's own template
            false => {
                let keep = |below: &PathBuf| template::keep(below).map_err(|error| from_io(below, error));
                templates_below(spec).iter().try_for_each(keep)?;
            }
        }
        Ok(Self { making, memory, path: folder.path.clone() })
    }

    /// Gives the folder its name.
    pub(super) fn finish(self) -> Result<(), ChangeError> {
        self.making.finish().map_err(|error| from_io(&self.path, error))
    }
}

/// The folder of a template that is to be made.
#[derive(Debug, Clone)]
pub(in crate::vm) struct Folder {
    pub(in crate::vm) path: PathBuf,
    /// What it is called until it is whole.
    pub(in crate::vm) part: PathBuf,
    /// It goes with its last fork.
    pub(in crate::vm) until_unused: bool,
}

/// The files that come along: those of the state directory that the VM needs again, and of a fork's template, where they are no disks.
/// Disks in a lasting state directory are the user's, and stay; so do those of a template, over which a fork has overlays.
fn own_files(spec: &VmSpec, facts: &Facts) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let layers = spec.disks.iter().flat_map(|disk| disk.image.layers());
    let disks: Vec<&Path> = layers.map(|layer| layer.file.as_path()).collect();
    let mut note = |path: &Path| {
        let is_disk = disks.contains(&path);
        let is_state = path.starts_with(&facts.state_directory) && (facts.ephemeral || !is_disk);
        let is_template = facts.template.as_ref().is_some_and(|folder| path.starts_with(folder)) && !is_disk;
        if (is_state || is_template) && !found.iter().any(|known| known == path) {
            found.push(path.to_owned());
        }
        path.to_owned()
    };
    with_paths(spec.clone(), &mut note);
    found
}

/// The description with other paths of its images and of what is read at the start.
pub(in crate::vm) fn with_paths(spec: VmSpec, path: &mut impl FnMut(&Path) -> PathBuf) -> VmSpec {
    let mut sure = |old: &Path| Ok::<_, std::convert::Infallible>(path(old));
    let mut disks = Vec::new();
    for disk in spec.disks {
        let image: Image = match disk.image.with_paths(&mut sure) {
            Ok(image) => image,
            Err(never) => match never {},
        };
        disks.push(Disk { image, ..disk });
    }
    let boot = match spec.boot {
        Boot::Iso { path: iso } => Boot::Iso { path: path(&iso) },
        Boot::Kernel { kernel, initrd, cmdline } => {
            Boot::Kernel { kernel: path(&kernel), initrd: initrd.map(|initrd| path(&initrd)), cmdline }
        }
        Boot::Squashfs { kernel, squashfs, cmdline, append, sata } => {
            let (kernel, squashfs) = (path(&kernel), path(&squashfs));
            Boot::Squashfs { kernel, squashfs, cmdline, append, sata }
        }
        boot @ (Boot::Disk | Boot::Firmware) => boot,
    };
    let firmware = match spec.firmware {
        Some(Firmware::Flash { code, code_format, vars: Some(vars), vars_format, needs_smm }) => {
            Some(Firmware::Flash { code, code_format, vars: Some(path(&vars)), vars_format, needs_smm })
        }
        firmware => firmware,
    };
    let metadata = spec.metadata.as_deref().map(path);
    VmSpec { disks, boot, firmware, metadata, ..spec }
}
