//! Whether a VM can be frozen into a template: refused by name, before anything happens.

use serde_json::Map;

use crate::qemu::immovable;
use crate::spec::{Image, VmSpec};
use crate::vm::error::ChangeError;
use crate::vm::owner::Owner;
use crate::vm::state::inventory::{Entry, Kind};

/// Checks a VM of this description; `keeps_running`: it goes on writing to its disks when the template is made.
pub(super) fn check(owner: &Owner, spec: &VmSpec, keeps_running: bool) -> Result<(), ChangeError> {
    if !spec.forkable {
        let error = ChangeError::unsupported("the VM cannot be frozen: its memory is no file");
        return Err(error.hint("start it with `--forkable`"));
    }
    if let Some((id, why)) = immovable_device(owner, spec) {
        let error = ChangeError::unsupported(format!("the VM cannot be frozen with '{id}': {why}"));
        return Err(error.hint(match owner.plugged.record().hot.iter().any(|hot| hot.id == id) {
            true => format!("unplug it first: {id}"),
            false => "start the VM without that device".to_owned(),
        }));
    }
    let ephemeral = owner.facts.ephemeral;
    let is_own = |image: &Image| ephemeral && image.file.starts_with(&owner.facts.state_directory);
    for (id, image) in plugged_images(owner) {
        if is_own(image) {
            let message = format!(
                "'{id}' was plugged while the VM ran, and its image goes with the VM: {}",
                image.file.display()
            );
            return Err(ChangeError::unsupported(message)
                .hint(format!("unplug it first: {id}; or plug a disk with a path of its own")));
        }
    }
    let lasting = match keeps_running {
        true => lasting_images(owner, spec, &is_own),
        false => Vec::new(),
    };
    match &lasting[..] {
        [] => Ok(()),
        [first, ..] => {
            let message = format!(
                "a template needs images as they are now, and the VM goes on writing to that of {}",
                lasting.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ")
            );
            let otherwise = match ephemeral {
                // from the start each disk has an overlay
                true => format!("unplug it first: {first}"),
                false => "start it with `--ephemeral`".to_owned(),
            };
            Err(ChangeError::unsupported(message).hint(format!(
                "`ctl freeze` without `--keep-running` can do it, which ends the VM; or {otherwise}"
            )))
        }
    }
}

/// The first device whose state no template can have, and why.
fn immovable_device(owner: &Owner, spec: &VmSpec) -> Option<(String, &'static str)> {
    let of_model = owner
        .inventory
        .devices()
        .find_map(|entry| Some((entry.id.to_string(), immovable::why(&entry.driver, &Map::new())?)));
    let by_properties = || {
        spec.devices.iter().find_map(|device| {
            let is_there = owner.inventory.device(device.id.as_str()).is_some();
            let why = immovable::why(&device.driver, &device.properties).filter(|_| is_there)?;
            Some((device.id.to_string(), why))
        })
    };
    of_model.or_else(by_properties)
}

/// The images of devices that were plugged while the VM ran, and are there.
fn plugged_images(owner: &Owner) -> impl Iterator<Item = (String, &Image)> {
    let images = owner.journal.pending().images.iter();
    images.filter(|(id, _)| owner.inventory.device(id).is_some()).map(|(id, image)| (id.clone(), image))
}

/// The devices through which the VM writes to images that are no overlays of its own.
fn lasting_images(owner: &Owner, spec: &VmSpec, is_own: &impl Fn(&Image) -> bool) -> Vec<String> {
    let since = &owner.journal.pending().images;
    let node = |entry: &Entry| match &entry.kind {
        Kind::Disk(facts) if !facts.readonly => facts.node.clone(),
        Kind::Usb { file: Some(_), .. } => Some(entry.id.to_string()),
        _ => None,
    };
    let is_lasting = |node: &str| {
        let cold = spec.disks.iter().find(|disk| disk.id.as_str() == node).map(|disk| &disk.image);
        cold.or_else(|| since.get(node)).is_none_or(|image| !is_own(image))
    };
    let writes = owner.inventory.devices().filter(|entry| node(entry).is_some_and(|node| is_lasting(&node)));
    writes.map(|entry| entry.id.to_string()).collect()
}
