//! What lies between the supervisor, its helpers and QEMU: sockets, as file descriptors that QEMU inherits, and its standard streams.

use std::ffi::OsString;
use std::os::fd::RawFd;

use super::ids::Ids;
use super::object::Object;

/// File descriptors that QEMU is to find open. All but `shares` are listening Unix sockets, so nothing has to wait for QEMU to make them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channels {
    /// The supervisor's monitor.
    pub qmp: RawFd,
    /// The guest agent.
    pub agent: RawFd,
    /// The monitor of the user's own tools (`--qmp`).
    pub user_qmp: Option<RawFd>,
    /// For each shared folder a socket that is *connected* to its virtiofsd.
    pub shares: Vec<RawFd>,
    /// The file that is the guest's memory, of a VM that can be forked or is a fork.
    pub memory: Option<GuestMemory>,
}

/// A file that is the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestMemory {
    /// The file.
    pub file: RawFd,
    /// What the guest writes goes into the file; otherwise it stays with this QEMU, and the file as it is.
    pub shared: bool,
}

impl GuestMemory {
    /// The memory as an object. Not `memory-backend-memfd`: from QEMU 10.0 on its pages go into the stream of a migration, whatever
    /// `x-ignore-shared` says.
    pub(super) fn object(self, id: &str, bytes: u64) -> Object {
        Object::new("memory-backend-file", id)
            .with("size", bytes)
            .with("mem-path", format!("/proc/self/fd/{}", self.file))
            .with("share", self.shared)
    }
}

impl Channels {
    /// `-chardev` and `-qmp` arguments. (`-chardev` does not take JSON; nothing here was typed by a person.)
    ///
    /// The console is QEMU's standard streams: a byte that the guest prints costs QEMU half as much on a pipe as on a socket (7.2),
    /// and a pipe holds 64 KiB of them while a socket is full after some hundred.
    pub(super) fn arguments(&self, ids: &Ids) -> Vec<OsString> {
        let mut arguments = monitor(ids.monitor, self.qmp);
        arguments.extend(self.user_qmp.into_iter().flat_map(|fd| monitor(ids.user_monitor, fd)));
        arguments.extend(["-chardev".into(), format!("stdio,id={},signal=off", ids.console_chardev).into()]);
        arguments.extend(listening(ids.agent_chardev, self.agent));
        for (number, fd) in self.shares.iter().enumerate() {
            let id = ids.share(number);
            arguments.extend(["-chardev".into(), format!("socket,id={id},fd={fd}").into()]);
        }
        arguments
    }
}

fn listening(id: &str, fd: RawFd) -> [OsString; 2] {
    ["-chardev".into(), format!("socket,id={id},fd={fd},server=on,wait=off").into()]
}

fn monitor(id: &str, fd: RawFd) -> Vec<OsString> {
    listening(id, fd).into_iter().chain(qmp(id)).collect()
}

/// A QMP monitor on a chardev. It is the same as `-mon`, which QEMU 11.1 warns of, and, unlike the object that it names in its
/// place, all versions have it.
pub(super) fn qmp(chardev: &str) -> [OsString; 2] {
    ["-qmp".into(), format!("chardev:{chardev}").into()]
}
