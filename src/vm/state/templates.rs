//! Which templates a VM uses: a fork its own, and those that the images of that lie over.

use std::path::PathBuf;

use super::facts::Facts;
use super::origin::Origin;
use crate::host::template::{forget, is_template};
use crate::spec::VmSpec;

/// The templates that have images of the VM.
pub(in crate::vm) fn templates_below(spec: &VmSpec) -> Vec<PathBuf> {
    let layers = spec.disks.iter().flat_map(|disk| disk.image.layers());
    let mut folders: Vec<PathBuf> =
        layers.filter_map(|layer| layer.file.parent()).map(PathBuf::from).collect();
    folders.sort();
    folders.dedup();
    folders.retain(|folder| is_template(folder));
    folders
}

/// Removes those that go with their last user, if that was this VM, whose QEMU has ended.
pub(in crate::vm) fn forget_templates(origin: &Origin, facts: &Facts) {
    let below = origin.spec().map(templates_below).unwrap_or_default();
    for folder in facts.template.iter().chain(&below) {
        forget(folder);
    }
}
