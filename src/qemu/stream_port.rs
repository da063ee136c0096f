//! Ports of the guest's serial controller that are plugged while a command of the guest runs, and carry its standard streams.

use std::ffi::OsString;
use std::os::fd::RawFd;

use serde_json::json;

use super::ids::PREFIX;
use super::plan::Step;
use super::{Command, Device, Machine};

/// A standard stream of a command in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandardStream {
    /// Standard input.
    Input,
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// Before the number of a command in the ids of its ports.
fn prefix() -> String {
    format!("{PREFIX}stream-")
}

/// The id of a port, of its chardev, and the name of the descriptor that becomes that; `number` is one of the command's own.
pub fn id(number: u64, stream: StandardStream) -> String {
    let stream = match stream {
        StandardStream::Input => "in",
        StandardStream::Output => "out",
        StandardStream::Error => "err",
    };
    format!("{}{number}-{stream}", prefix())
}

/// Whether an id is that of such a port.
pub fn is_id(id: &str) -> bool {
    id.starts_with(&prefix())
}

/// Plugs a port on a connected socket that QEMU was given under the port's id (`getfd`). The guest finds it by its name.
pub fn plug(machine: &Machine, id: &str, name: &str) -> [Step; 2] {
    let socket = json!({
        "id": id,
        "backend": { "type": "socket", "data": { "addr": { "type": "fd", "data": { "str": id } }, "server": false } },
    });
    let port = device(machine, id, name);
    let chardev = Step::new(Command::new("chardev-add", socket)).undo(remove_chardev(id));
    [chardev, Step::new(port.hot_plug()).undo(port.unplug())]
}

fn device(machine: &Machine, id: &str, name: &str) -> Device {
    Device::new("virtserialport", id)
        .on(format!("{}.0", machine.ids().virtio_serial).as_str())
        .with("chardev", id)
        .with("name", name)
}

/// Asks for a port's number at its controller.
pub fn number(id: &str) -> Command {
    Command::new("qom-get", json!({ "path": format!("/machine/peripheral/{id}"), "property": "nr" }))
}

/// Arguments for a port that is there from the start, with this number, on a connected socket.
pub fn arguments(machine: &Machine, id: &str, name: &str, nr: u64, socket: RawFd) -> Vec<OsString> {
    let chardev = ["-chardev".into(), format!("socket,id={id},fd={socket}").into()];
    chardev.into_iter().chain(device(machine, id, name).with("nr", nr).argument()).collect()
}

/// Unplugs a port. QEMU does so without the guest's consent; when it has (`DEVICE_DELETED`), [`remove_chardev`] is next.
pub fn unplug(id: &str) -> Command {
    Command::new("device_del", json!({ "id": id }))
}

/// Closes the socket of a port.
pub fn remove_chardev(id: &str) -> Command {
    Command::new("chardev-remove", json!({ "id": id }))
}
