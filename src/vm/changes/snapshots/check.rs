//! Checks before a snapshot: disks that can hold one, devices whose state can be saved.

use crate::qemu::snapshot::{Snapshot, Writable};
use crate::spec::SnapshotName;

use crate::vm::error::ChangeError;

/// How alike (Jaro–Winkler, 0 to 1) a name must be to be suggested.
const ALIKE: f64 = 0.75;

/// Every writable disk must be able to hold a snapshot; otherwise loading it would not restore that disk.
pub(super) fn can_hold(disks: &[Writable]) -> Result<(), ChangeError> {
    let cannot: Vec<&Writable> = disks.iter().filter(|disk| !disk.can_hold()).collect();
    if cannot.is_empty() {
        return if disks.is_empty() { Err(no_disk()) } else { Ok(()) };
    }
    let names: Vec<String> =
        cannot.iter().map(|disk| format!("'{}' ({}, {})", disk.node, disk.format, disk.file)).collect();
    let message = format!("only qcow2 images can hold a snapshot, which excludes {}", names.join(", "));
    Err(ChangeError::unsupported(message).hint(
        "convert it (`qemu-img convert -O qcow2`), attach it with `readonly=on`, unplug it, or start with `--ephemeral`",
    ))
}

pub(super) fn no_disk() -> ChangeError {
    ChangeError::unsupported("the VM has no disk that could hold a snapshot")
        .hint("give it one: `vmrun ctl disk-add snapshots.qcow2,size=8G`")
}

pub(super) fn loadable(snapshot: &Snapshot, disks: &[Writable]) -> Result<(), ChangeError> {
    let name = &snapshot.name;
    if !snapshot.missing.is_empty() {
        let missing = snapshot.missing.join("', '");
        let message = format!("snapshot '{name}' is not on all disks: '{missing}' does not have it");
        return Err(
            ChangeError::unsupported(message).hint("unplug the disk, or attach it with `readonly=on`")
        );
    }
    if !snapshot.is_complete() {
        let message = format!("snapshot '{name}' has disks only and not the state of a machine");
        return Err(ChangeError::unsupported(message)
            .hint("shut the VM down and use `qemu-img snapshot -a` on its images"));
    }
    can_hold(disks)
}

pub(super) fn unknown(name: &SnapshotName, known: &[Snapshot]) -> ChangeError {
    let error = ChangeError::no_such("snapshot", name);
    let score = |known: &str| strsim::jaro_winkler(name.as_str(), known);
    let mut near: Vec<&str> = known.iter().map(|snapshot| snapshot.name.as_str()).collect();
    near.retain(|known| score(known) >= ALIKE);
    near.sort_by(|a, b| score(b).total_cmp(&score(a)));
    match (near.is_empty(), known.is_empty()) {
        (false, _) => error.hint(format!("did you mean '{}'?", near.join("' or '"))),
        (true, true) => error.hint("it has none; `snapshot-save` makes one"),
        (true, false) => error.hint("`snapshot-list` shows those it has"),
    }
}
