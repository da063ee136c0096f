//! The changes of a running VM, one file for each kind. Each reserves in the inventory, sends its commands to QEMU, then commits or
//! rolls back.

mod device;
mod disk;
mod forward;
mod freezable;
pub(in crate::vm) mod guard;
mod link;
pub(in crate::vm) mod machine_state;
pub(super) mod media;
mod nic;
mod plug;
mod power;
mod properties;
pub(super) mod remove;
mod save;
pub(in crate::vm) mod saving;
pub(super) mod snapshot;
pub(in crate::vm) mod snapshots;
pub(in crate::vm) mod streams;
pub(in crate::vm) mod taken;
mod throttle;
pub(in crate::vm) mod turns;
mod usb;

use std::time::Duration;

use tokio::sync::oneshot;

use super::error::{ChangeError, ErrorKind};
use super::handle::RawTurn;
use super::owner::{Owner, Reply};
use crate::qmp::SessionError;
use crate::vm::change::{Change, Done};

/// Starts an admitted change; the reply is sent when it has taken effect. A raw command keeps its client's turn until QEMU has
/// answered, even if the client has gone.
pub(super) fn start(owner: &mut Owner, change: Change, turn: Option<RawTurn>, reply: Reply) {
    let reply = within(owner, change.rules().deadline, reply);
    match change {
        Change::AddUsb { selector, id } => usb::add(owner, selector, id, reply),
        Change::AddDisk { disk, allow_backing } => disk::add(owner, disk, allow_backing, reply),
        Change::AddNic(nic) => nic::add(owner, nic, reply),
        Change::SetLink { nic, up } => link::set(owner, nic, up, reply),
        Change::AddDevice(device) => device::add(owner, device, reply),
        Change::Remove { kind, id, wait } => remove::start(owner, kind, &id, wait, reply),
        Change::AddForward { forward, nic } => forward::add(owner, forward, nic.as_deref(), reply),
        Change::RemoveForward(pattern) => forward::remove(owner, pattern, reply),
        Change::ResizeDisk { id, size } => disk::resize(owner, id, size, reply),
        Change::ThrottleDisk { id, limits } => throttle::set(owner, id, limits, reply),
        Change::ChangeMedia { id, file, format, allow_backing } => {
            media::change(owner, id, (file, format), allow_backing, reply)
        }
        Change::EjectMedia { id, force } => media::eject(owner, id, force, reply),
        Change::Save { file, progress } => save::start(owner, save::Target::File(file), progress, reply),
        Change::Freeze(freeze, waiting_shell) => {
            let progress = freeze.progress.clone();
            save::start(owner, save::Target::template(freeze, waiting_shell), progress, reply);
        }
        Change::Snapshot(change) => snapshot::start(owner, change, reply),
        Change::Pause => power::pause(owner, reply),
        Change::Resume => power::resume(owner, reply),
        Change::Reset => power::reset(owner, reply),
        Change::Powerdown => power::powerdown(owner, reply),
        Change::Qmp(command) => power::qmp(owner, &command, turn, reply),
        Change::Hmp(line) => power::hmp(owner, &line, turn, reply),
    }
}

pub(super) use power::raw;
pub(super) use save::check_freeze;

/// A reply channel with a deadline. The change itself continues: a command that was sent to QEMU cannot be cancelled, so the
/// inventory needs its result.
fn within(owner: &mut Owner, patience: Duration, reply: Reply) -> Reply {
    let (inner, answer) = oneshot::channel();
    let session = owner.session.clone();
    let relay = async move {
        let result = match tokio::time::timeout(patience, answer).await {
            Ok(answer) => {
                let result = answer.unwrap_or_else(|_| Err(ChangeError::not_running()));
                // the process may still run, with a monitor that vmrun cannot parse
                let breach = session.end().filter(SessionError::is_breach);
                result.map_err(|error| match breach {
                    Some(why) if error.kind == ErrorKind::NotRunning => ChangeError::unreachable(&why),
                    _ => error,
                })
            }
            Err(_) => {
                let message = format!("QEMU did not answer within {} s", patience.as_secs());
                Err(ChangeError::new(ErrorKind::TimedOut, message)
                    .hint("QEMU is stopped or overloaded; the change may still happen, `status` shows it"))
            }
        };
        // the client may have gone, which changes nothing
        drop(reply.send(result));
    };
    owner.spawn(relay, |_, ()| {});
    inner
}

/// Replies. The client may have gone, which changes nothing.
pub(super) fn answer(reply: Reply, result: Result<Done, ChangeError>) {
    drop(reply.send(result));
}
