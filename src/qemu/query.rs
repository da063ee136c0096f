//! What vmrun asks QEMU for in more than one place. The answers are read by [`super::query_block`], [`super::pci`],
//! [`super::reply`], and the modules of `qmp` for the texts of the human monitor.

use serde_json::{Value, json};

use super::Command;

fn plain(name: &str) -> Command {
    Command::new(name, Value::Null)
}

/// The run state.
pub fn status() -> Command {
    plain("query-status")
}

/// Block devices with their drives.
pub fn blocks() -> Command {
    plain("query-block")
}

/// All block nodes, without their whole chains: `flat` leaves out what is repeated.
pub fn block_nodes() -> Command {
    Command::new("query-named-block-nodes", json!({ "flat": true }))
}

/// Chardevs, with whether the guest has opened the port behind each.
pub fn chardevs() -> Command {
    plain("query-chardev")
}

/// Processors with their threads.
pub fn cpus() -> Command {
    plain("query-cpus-fast")
}

/// The machine's type with its version, e.g. `pc-q35-7.2-machine`: a plain `q35` is another with each QEMU.
pub fn machine_type() -> Command {
    machine_property("type")
}

/// A property of the machine.
pub fn machine_property(name: &str) -> Command {
    Command::new("qom-get", json!({ "path": "/machine", "property": name }))
}

/// Ids and models of everything that has an id: a device that is not there any more is gone, whatever events came.
pub fn peripherals() -> Command {
    Command::new("qom-list", json!({ "path": "/machine/peripheral" }))
}

/// A property of a device that has an id.
pub fn property(id: &str, name: &str) -> Command {
    Command::new("qom-get", json!({ "path": format!("/machine/peripheral/{id}"), "property": name }))
}

/// The tree of devices and buses; read by `qmp::qtree`.
pub fn device_tree() -> Command {
    Command::hmp("info qtree")
}

/// User networks with their forwards and connections; read by `qmp::hmp`.
pub fn user_networks() -> Command {
    Command::hmp("info usernet")
}

/// USB devices with their ports; read by `qmp::hmp`.
pub fn usb_devices() -> Command {
    Command::hmp("info usb")
}
