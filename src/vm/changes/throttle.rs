//! `disk-throttle`: I/O limits of a disk, which QEMU keeps per drive.

use serde_json::Value;

use crate::qemu::{Command, block};
use crate::spec::Limits;

use super::answer;
use crate::qemu::query_block::{drive_of, limits_of};
use crate::vm::change::Done;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::owner::{Owner, Reply};
use crate::vm::state::inventory::{Kind, Phase};

fn is_disk(entry: &crate::vm::state::inventory::Entry) -> bool {
    matches!(entry.kind, Kind::Disk(_))
}

/// Sets limits, or removes all of them.
pub(super) fn set(owner: &mut Owner, id: String, limits: Option<Limits>, reply: Reply) {
    if let Err(error) = check(owner, &id) {
        return answer(reply, Err(error));
    }
    // the drive of virtio and USB disks belongs to an inner device, whose name only QEMU knows
    owner.command(&query(), move |owner, result| {
        let drive = result.map_err(ChangeError::from).and_then(|blocks| {
            let found = drive_of(&blocks, &id).and_then(|drive| drive["qdev"].as_str());
            found.map(str::to_owned).ok_or_else(|| ChangeError::no_such("disk", &id))
        });
        match (drive, owner.inventory.device_mut(&id).map(|entry| &mut entry.kind)) {
            (Ok(drive), Some(Kind::Disk(facts))) => {
                // committed now: the next request builds on it
                facts.limits = limits.map_or_else(Limits::default, |new| facts.limits.replaced_by(new));
                let throttle = block::throttle(&drive, &facts.limits);
                apply(owner, id, &throttle, reply);
            }
            (Ok(_), _) => answer(reply, Err(ChangeError::no_such("disk", &id))),
            (Err(error), _) => answer(reply, Err(error)),
        }
    });
}

fn query() -> Command {
    Command::new("query-block", Value::Null)
}

fn check(owner: &Owner, id: &str) -> Result<(), ChangeError> {
    match owner.inventory.device(id) {
        Some(entry) if is_disk(entry) && entry.phase == Phase::Adding => {
            let kind = ErrorKind::NotNow { state: "adding".to_owned() };
            Err(ChangeError::new(kind, format!("'{id}' is just being added")))
        }
        Some(entry) => match &entry.kind {
            Kind::Disk(facts) if facts.node.is_none() => {
                let kind = ErrorKind::NotNow { state: "empty".to_owned() };
                Err(ChangeError::new(kind, format!("drive '{id}' has no medium")))
            }
            Kind::Disk(_) => Ok(()),
            _ => Err(owner.inventory.no_such("disk", id, is_disk)),
        },
        None => Err(owner.inventory.no_such("disk", id, is_disk)),
    }
}

fn apply(owner: &mut Owner, id: String, throttle: &Command, reply: Reply) {
    owner.command(throttle, move |owner, result| match result {
        Ok(_) => {
            let entry = owner.inventory.device(&id).cloned();
            answer(
                reply,
                entry.map(Box::new).map(Done::Device).ok_or_else(|| ChangeError::no_such("disk", &id)),
            );
        }
        Err(refused) => owner.command(&query(), move |owner, result| {
            // the limits that QEMU reports are the ones that apply
            let kept = result.ok().and_then(|blocks| drive_of(&blocks, &id).map(limits_of));
            let kind = owner.inventory.device_mut(&id).map(|entry| &mut entry.kind);
            if let (Some(kept), Some(Kind::Disk(facts))) = (kept, kind) {
                facts.limits = kept;
            }
            answer(reply, Err(refused.into()));
        }),
    });
}
