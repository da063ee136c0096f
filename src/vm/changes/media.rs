//! `media-change` and `media-eject`.

use std::path::PathBuf;

use crate::qemu::media::{media_change, media_eject};
use crate::qemu::refusals::Refusal;
use crate::spec::{DiskOptions, ImageFormat};

use super::{answer, plug};
use crate::vm::change::Done;
use crate::vm::changes::turns;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::owner::{Owner, Reply};
use crate::vm::state::images::Opened;
use crate::vm::state::inventory::{DiskFacts, Kind};

fn drive(owner: &Owner, id: &str) -> Result<DiskFacts, ChangeError> {
    match owner.inventory.device(id).map(|entry| entry.kind.disk()) {
        Some(Some(facts)) if facts.removable => Ok(facts.clone()),
        Some(_) => Err(ChangeError::unsupported(format!("'{id}' is not a CD-ROM drive"))),
        None => Err(ChangeError::no_such("CD-ROM drive", id)),
    }
}

/// Puts another image into a drive.
pub(super) fn change(
    owner: &mut Owner,
    id: String,
    (file, format): (PathBuf, Option<ImageFormat>),
    allow: Vec<PathBuf>,
    reply: Reply,
) {
    if let Err(error) = drive(owner, &id) {
        return answer(reply, Err(error));
    }
    turns::begin(owner, &id.clone(), move |owner| {
        let images = owner.images.for_reading();
        owner.spawn_blocking(
            move || images.open(&file, format, &allow),
            move |owner, opened| match opened {
                Ok(image) => insert(owner, id, image, reply),
                Err(error) => end(owner, &id, reply, Err(error)),
            },
        );
    });
}

/// Second part: the image is open; sends the commands to QEMU.
fn insert(owner: &mut Owner, id: String, image: Opened, reply: Reply) {
    let node = owner.inventory.next_medium();
    let opening = image.image.clone();
    plug::open_image(owner, node.clone(), (opening, true, DiskOptions::default()), move |owner, opened| {
        let facts = match opened {
            Ok(()) => drive(owner, &id),
            Err(error) => return end(owner, &id, reply, Err(error)),
        };
        let facts = match facts {
            Ok(facts) => facts,
            Err(error) => return close(owner, node, move |owner| end(owner, &id, reply, Err(error))),
        };
        let drive = owner.inventory.qemu_name(&id);
        let steps = media_change(drive, facts.medium(), &node, true);
        owner.run_plan(steps, move |owner, result| {
            if let Err(error) = result {
                return close(owner, node, move |owner| end(owner, &id, reply, Err(error)));
            }
            let old = facts.own_node().map(str::to_owned);
            let facts = DiskFacts {
                file: Some(image.shown),
                format: Some(image.image.format),
                size_bytes: image.size_bytes,
                node: Some(node),
                identity: image.identity,
                foreign: false,
                ..facts
            };
            finish_change(owner, &id, facts, old, reply);
        });
    });
}

/// Removes the medium from a drive.
pub(super) fn eject(owner: &mut Owner, id: String, force: bool, reply: Reply) {
    if let Err(error) = drive(owner, &id) {
        return answer(reply, Err(error));
    }
    turns::begin(owner, &id.clone(), move |owner| take_out(owner, id, force, reply));
}

fn take_out(owner: &mut Owner, id: String, force: bool, reply: Reply) {
    let facts = match drive(owner, &id) {
        Ok(facts) => facts,
        Err(error) => return end(owner, &id, reply, Err(error)),
    };
    if facts.node.is_none() {
        let kind = ErrorKind::NotNow { state: "empty".to_owned() };
        let error = ChangeError::new(kind, format!("drive '{id}' is empty"));
        return end(owner, &id, reply, Err(error));
    }
    let steps = media_eject(owner.inventory.qemu_name(&id), facts.medium(), force);
    owner.run_plan(steps, move |owner, result| {
        if let Err(error) = result {
            let error = match tray_is_held(&error) {
                true => ChangeError::new(
                    ErrorKind::RefusedByGuest { id: id.clone() },
                    format!("the guest has locked drive '{id}'; it has been asked to open it"),
                )
                .hint("unmount the medium in the guest and try again, or use `--force`"),
                false => error,
            };
            return end(owner, &id, reply, Err(error));
        }
        let old = facts.own_node().map(str::to_owned);
        let facts =
            DiskFacts { file: None, format: None, size_bytes: None, node: None, identity: None, ..facts };
        finish_change(owner, &id, facts, old, reply);
    });
}

/// For some drives QEMU reports "locked". For others, opening the tray is only a *request* to the guest and succeeds; the next step
/// shows it: the medium cannot be removed from a closed tray.
fn tray_is_held(error: &ChangeError) -> bool {
    Refusal::first(&[Refusal::TrayLocked, Refusal::TrayClosed], &error.message).is_some()
}

/// Records the medium that is in the drive now, and closes the image of the old one once it is out of the drive.
fn finish_change(owner: &mut Owner, id: &str, facts: DiskFacts, old: Option<String>, reply: Reply) {
    let done = match owner.inventory.device_mut(id) {
        Some(entry) => {
            entry.kind = Kind::Disk(facts);
            Ok(Done::Device(Box::new(entry.clone())))
        }
        None => Err(ChangeError::no_such("CD-ROM drive", id)),
    };
    let id = id.to_owned();
    match old {
        None => end(owner, &id, reply, done),
        Some(old) => plug::close_image(owner, old, move |owner, closed| match closed {
            Err(error) if error.kind == ErrorKind::NotRunning => end(owner, &id, reply, Err(error)),
            _ => end(owner, &id, reply, done),
        }),
    }
}

fn close(owner: &mut Owner, node: String, then: impl FnOnce(&mut Owner) + Send + 'static) {
    plug::close_image(owner, node, |owner, _| then(owner));
}

/// Replies, and lets the next change of the drive start.
fn end(owner: &mut Owner, id: &str, reply: Reply, result: Result<Done, ChangeError>) {
    answer(reply, result);
    turns::end(owner, id);
}

/// The guest (or vmrun) moved a tray: the medium stays the same, so the inventory does not change.
pub(in super::super) fn tray_moved(_owner: &mut Owner, id: &str, open: bool) {
    log::debug!("tray of '{id}' is {}", if open { "open" } else { "closed" });
}
