//! `media-change` and `media-eject`.

use std::path::PathBuf;

use serde_json::Value;

use crate::qemu::media::{media_change, media_eject};
use crate::qemu::plan::Step;

use super::super::change::Done;
use super::super::error::{ChangeError, ErrorKind};
use super::super::inventory::{DiskFacts, Kind};
use super::super::owner::{Owner, Reply};
use super::answer;

fn drive(owner: &Owner, id: &str) -> Result<DiskFacts, ChangeError> {
    match owner.inventory.device(id).map(|entry| &entry.kind) {
        Some(Kind::Disk(facts)) if facts.removable => Ok(facts.clone()),
        Some(_) => Err(ChangeError::unsupported(format!("'{id}' is not a CD-ROM drive"))),
        None => Err(ChangeError::no_such("CD-ROM drive", id)),
    }
}

/// Puts another image into a drive.
pub(super) fn change(owner: &mut Owner, id: String, file: PathBuf, allow: Vec<PathBuf>, reply: Reply) {
    if let Err(error) = drive(owner, &id) {
        return answer(reply, Err(error));
    }
    let images = owner.images.for_reading();
    owner.spawn_blocking(
        move || images.open(&file, None, &allow),
        move |owner, opened| {
            let (facts, image) = match drive(owner, &id).and_then(|facts| Ok((facts, opened?))) {
                Ok(both) => both,
                Err(error) => return answer(reply, Err(error)),
            };
            let node = owner.inventory.next_medium();
            let drive = owner.inventory.qemu_name(&id);
            let discard = facts.medium().map(|old| old.discard()).unwrap_or_default();
            let steps = media_change(drive, facts.medium(), &node, &image.path, image.format, true);
            owner.run_plan(steps, move |owner, result| {
                let facts = DiskFacts {
                    file: Some(image.shown),
                    format: Some(image.format),
                    size_bytes: image.size_bytes,
                    node: Some(node),
                    identity: Some(image.identity),
                    foreign: false,
                    ..facts
                };
                settle(owner, &id, result, facts, discard, reply);
            });
        },
    );
}

/// Takes the medium out of a drive.
pub(super) fn eject(owner: &mut Owner, id: String, force: bool, reply: Reply) {
    let facts = match drive(owner, &id) {
        Ok(facts) => facts,
        Err(error) => return answer(reply, Err(error)),
    };
    if facts.node.is_none() {
        let error = ChangeError::new(
            ErrorKind::NotNow { state: "empty".to_owned() },
            format!("drive '{id}' is empty"),
        );
        return answer(reply, Err(error));
    }
    let discard = facts.medium().map(|old| old.discard()).unwrap_or_default();
    let steps = media_eject(owner.inventory.qemu_name(&id), facts.medium(), force);
    owner.run_plan(steps, move |owner, result| {
        let result = result.map_err(|error| match tray_is_held(&error) {
            true => ChangeError::new(
                ErrorKind::RefusedByGuest { id: id.clone() },
                format!("the guest has locked drive '{id}'; it has been asked to open it"),
            )
            .hint("unmount the medium in the guest and try again, or use `--force`"),
            false => error,
        });
        let facts =
            DiskFacts { file: None, format: None, size_bytes: None, node: None, identity: None, ..facts };
        settle(owner, &id, result, facts, discard, reply);
    });
}

/// QEMU says "locked" of some drives; of others opening the tray succeeds as a *request* to the guest, which shows in
/// the next step: the medium cannot be taken out of a closed tray.
fn tray_is_held(error: &ChangeError) -> bool {
    error.message.contains("locked") || error.message.contains("is not open")
}

/// Books what is in the drive now, and closes the image of what was in it.
fn settle(
    owner: &mut Owner,
    id: &str,
    result: Result<Vec<Value>, ChangeError>,
    facts: DiskFacts,
    discard: Vec<Step>,
    reply: Reply,
) {
    let done = result.and_then(|_| {
        let entry = owner.inventory.device_mut(id).ok_or_else(|| ChangeError::no_such("CD-ROM drive", id))?;
        entry.kind = Kind::Disk(facts);
        Ok(Done::Device(Box::new(entry.clone())))
    });
    if done.is_err() || discard.is_empty() {
        return answer(reply, done);
    }
    owner.run_plan(discard, move |_, closed| match closed {
        Err(error) if error.kind == ErrorKind::NotRunning => answer(reply, Err(error)),
        Err(error) => {
            log::warn!("QEMU keeps the image of the medium that was taken out open: {error}");
            answer(reply, done);
        }
        Ok(_) => answer(reply, done),
    });
}

/// The guest (or we) moved a tray: nothing in the books says so, the medium stays the same.
pub(in super::super) fn tray_moved(_owner: &mut Owner, id: &str, open: bool) {
    log::debug!("tray of '{id}' is {}", if open { "open" } else { "closed" });
}
