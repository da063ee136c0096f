//! The devices that a snapshot was made with. QEMU does not check: a missing device makes the loading fail half-way, and a later
//! device silently disappears for the guest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::host::dirs::StateDir;
use crate::qemu::models::Class;
use crate::qemu::snapshot::Snapshot;
use crate::qmp::{CommandError, Session};
use crate::spec::Layout;

use crate::vm::changes::machine_state::Present;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::look::addresses;

/// In the state directory.
const FILE: &str = "snapshots.json";

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::vm) struct Entry {
    /// Distinguishes it from another of the same name that was not made by vmrun.
    created_unix_ms: u64,
    /// How its devices were placed: QEMU matches state by that.
    #[serde(default)]
    layout: Layout,
    devices: Vec<Present>,
}

/// By the snapshot's id in the images.
pub(in crate::vm) type Entries = BTreeMap<String, Entry>;

/// Asks QEMU for what the inventory does not have.
pub(super) async fn complete(session: &Session, devices: &mut [Present]) -> Result<(), CommandError> {
    if devices.iter().all(|device| !Class::of(&device.driver).is_usb()) {
        return Ok(());
    }
    let found = addresses(session, &[]).await?;
    for device in devices {
        device.port = found.usb_port(&device.id).map(str::to_owned);
    }
    Ok(())
}

fn read(state: &StateDir) -> Entries {
    state.read(FILE).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// A snapshot without an entry can still be loaded, so an error here is only logged.
fn write(state: &StateDir, entries: &Entries) {
    let written = serde_json::to_vec_pretty(entries)
        .map_err(std::io::Error::other)
        .and_then(|text| state.write(FILE, &text));
    if let Err(error) = written {
        log::warn!("the devices of a snapshot could not be written down: {error}");
    }
}

pub(super) fn remember(state: &StateDir, snapshot: &Snapshot, layout: Layout, present: &[Present]) {
    let mut entries = read(state);
    let entry = Entry { created_unix_ms: snapshot.created_unix_ms, layout, devices: present.to_vec() };
    entries.insert(snapshot.tag.clone(), entry);
    write(state, &entries);
}

pub(super) fn forget(state: &StateDir, tag: &str) {
    let mut entries = read(state);
    if entries.remove(tag).is_some() {
        write(state, &entries);
    }
}

/// Refuses a snapshot that was made with other devices than the VM has now.
pub(super) fn check(
    state: &StateDir,
    snapshot: &Snapshot,
    layout: Layout,
    now: &[Present],
) -> Result<(), ChangeError> {
    let entries = read(state);
    let known = entries.get(&snapshot.tag).filter(|entry| entry.created_unix_ms == snapshot.created_unix_ms);
    let Some(Entry { devices: then, layout: placed, .. }) = known else { return Ok(()) };
    if *placed != layout {
        let (made, has) = match layout {
            Layout::Fixed => ("an earlier", "this"),
            Layout::Grown => ("a later", "an earlier"),
        };
        let message = format!(
            "snapshot '{}' was made under {made} vmrun, which placed devices otherwise than {has} one",
            snapshot.name
        );
        let error = ChangeError::new(ErrorKind::NotNow { state: "other-places".to_owned() }, message);
        return Err(error.hint(
            "start the VM with the vmrun that made it; without its memory, `qemu-img snapshot -a` goes back to its disks",
        ));
    }
    let lacks = |from: &[Present], what: &[Present]| -> Vec<String> {
        what.iter().filter(|device| !from.contains(device)).map(described).collect()
    };
    let (gone, new) = (lacks(now, then), lacks(then, now));
    if gone.is_empty() && new.is_empty() {
        return Ok(());
    }
    let mut message = format!("snapshot '{}' was made with other devices:", snapshot.name);
    if !gone.is_empty() {
        message += &format!(" it has {}, which the VM has not", gone.join(", "));
    }
    if !new.is_empty() {
        let and = if gone.is_empty() { "" } else { ", and" };
        message += &format!("{and} it has not {}, which the VM has", new.join(", "));
    }
    let error = ChangeError::new(ErrorKind::NotNow { state: "other-devices".to_owned() }, message);
    Err(error.hint("plug and unplug until they are the same, in the same slots and ports (`usb-add usb-kbd,port=1 --id keys`)"))
}

fn described(device: &Present) -> String {
    let Present { id, driver, slot, port } = device;
    match (slot, port) {
        (Some(slot), _) => format!("'{id}' ({driver} in {slot})"),
        (None, Some(port)) => format!("'{id}' ({driver} at USB port {port})"),
        (None, None) => format!("'{id}' ({driver})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_another_layout_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        let snapshot = Snapshot {
            name: "a".to_owned(),
            tag: "a".to_owned(),
            id: "1".to_owned(),
            created_unix_ms: 5,
            vm_clock_ms: 1,
            state_bytes: 1,
            disks: Vec::new(),
            missing: Vec::new(),
        };
        for (then, now, words) in [
            (Layout::Grown, Layout::Fixed, "was made under an earlier vmrun"),
            (Layout::Fixed, Layout::Grown, "was made under a later vmrun"),
        ] {
            remember(&state, &snapshot, then, &[]);
            assert_eq!(check(&state, &snapshot, then, &[]), Ok(()));
            let error = check(&state, &snapshot, now, &[]).unwrap_err();
            assert_eq!(error.kind, ErrorKind::NotNow { state: "other-places".to_owned() });
            assert!(error.message.contains(words), "{error}");
            assert!(error.hint.is_some_and(|hint| hint.contains("with the vmrun that made it")));
        }
    }
}
