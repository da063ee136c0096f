//! The changes of a running VM, one file for each kind. Each books first, asks QEMU second, commits or strikes off third.

mod device;
mod disk;
mod forward;
pub(super) mod media;
mod plug;
mod power;
mod properties;
pub(super) mod remove;
mod usb;

use super::change::Change;
use super::owner::{Owner, Reply};

/// Starts a change that was admitted; the reply comes when it came true.
pub(super) fn start(owner: &mut Owner, change: Change, reply: Reply) {
    match change {
        Change::AddUsb { selector, id } => usb::add(owner, selector, id, reply),
        Change::AddDisk(disk) => disk::add(owner, disk, reply),
        Change::AddDevice(device) => device::add(owner, device, reply),
        Change::Remove { kind, id, wait } => remove::start(owner, kind, &id, wait, reply),
        Change::AddForward(forward) => forward::add(owner, forward, reply),
        Change::RemoveForward(pattern) => forward::remove(owner, pattern, reply),
        Change::ResizeDisk { id, size } => disk::resize(owner, id, size, reply),
        Change::ChangeMedia { id, file } => media::change(owner, id, file, reply),
        Change::EjectMedia { id, force } => media::eject(owner, id, force, reply),
        Change::Pause => power::pause(owner, reply),
        Change::Resume => power::resume(owner, reply),
        Change::Reset => power::reset(owner, reply),
        Change::Powerdown => power::powerdown(owner, reply),
        Change::Qmp(command) => power::qmp(owner, &command, reply),
        Change::Hmp(line) => power::hmp(owner, &line, reply),
    }
}

pub(super) use power::raw;

/// Answers; whoever asked may have gone, which changes nothing.
fn answer(reply: Reply, result: Result<super::change::Done, super::error::ChangeError>) {
    drop(reply.send(result));
}
