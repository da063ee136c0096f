//! `disk-throttle`: I/O limits of a disk, which QEMU keeps per drive.

use crate::qemu::{Command, block, query};
use crate::spec::Limits;

use super::answer;
use crate::qemu::query_block::{drive_of, limits_of};
use crate::vm::change::Done;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::owner::{Owner, Reply};
use crate::vm::state::inventory::{DeviceKind, Phase};

/// Sets limits, or removes all of them.
pub(super) fn set(owner: &mut Owner, id: String, limits: Option<Limits>, reply: Reply) {
    if let Err(error) = check(owner, &id) {
        return answer(reply, Err(error));
    }
    // the drive of virtio and USB disks belongs to an inner device, whose name only QEMU knows
    owner.command(&query::blocks(), move |owner, result| {
        let drive = result.map_err(ChangeError::from).and_then(|blocks| {
            let found = drive_of(&blocks, &id).and_then(|drive| drive["qdev"].as_str());
            found.map(str::to_owned).ok_or_else(|| ChangeError::no_such("disk", &id))
        });
        match (drive, owner.inventory.device_mut(&id).and_then(|entry| entry.kind.disk_mut())) {
            (Ok(drive), Some(facts)) => {
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

fn check(owner: &Owner, id: &str) -> Result<(), ChangeError> {
    let disk = owner.inventory.device(id).and_then(|entry| Some((entry.phase, entry.kind.disk()?)));
    let (state, why) = match disk {
        None => return Err(owner.inventory.no_such(DeviceKind::Disk, id)),
        Some((Phase::Adding, _)) => ("adding", format!("'{id}' is just being added")),
        Some((_, facts)) if facts.node.is_none() => ("empty", format!("drive '{id}' has no medium")),
        Some(_) => return Ok(()),
    };
    Err(ChangeError::new(ErrorKind::NotNow { state: state.to_owned() }, why))
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
        Err(refused) => owner.command(&query::blocks(), move |owner, result| {
            // the limits that QEMU reports are the ones that apply
            let kept = result.ok().and_then(|blocks| drive_of(&blocks, &id).map(limits_of));
            let facts = owner.inventory.device_mut(&id).and_then(|entry| entry.kind.disk_mut());
            if let (Some(kept), Some(facts)) = (kept, facts) {
                facts.limits = kept;
            }
            answer(reply, Err(refused.into()));
        }),
    });
}
