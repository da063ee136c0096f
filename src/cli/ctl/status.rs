//! `status`.

use clap::Args;

use crate::control::{verbs, wire};
use crate::vm::Outcome;

use super::super::ended::when;
use super::super::failure::Failure;
use super::super::output::{Lines, bytes, facts, milliseconds, table};
use super::device_state::shown as state;
use super::verb::{Context, Verb};
use super::{disk_list, nic_list};

#[derive(Debug, Args)]
pub(super) struct Status {}

impl Verb for Status {
    const ABOUT: &'static str = "Print the VM's status";
    const WAITS_FOR: &'static str = "waiting for the VM's supervisor";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let verbs::StatusReply { status } = context.call(verbs::GetStatus {})?;
        context.output.print(&status, || match &status.outcome {
            Some(outcome) => of_ended(&status, outcome),
            None => as_text(&status),
        })
    }
}

/// A VM that has ended: the facts that are still useful.
fn of_ended(status: &wire::Status, outcome: &Outcome) -> Lines {
    let mut lines = facts(&[
        ("name", Some(status.name.clone())),
        ("state", Some(status.state.clone())),
        ("outcome", Some(outcome.message.clone())),
        ("exit code", Some(outcome.exit_code.to_string())),
        ("ended", status.ended_unix_ms.map(when)),
        ("uptime", Some(milliseconds(status.uptime_ms))),
        ("uuid", Some(status.uuid.clone())),
        ("machine", Some(format!("{} {}", status.arch, status.machine))),
        ("cpus", Some(status.cpus.to_string())),
        ("memory", Some(bytes(status.memory_bytes))),
        ("qemu", Some(status.qemu_version.clone())),
        ("state directory", Some(status.state_directory.clone())),
    ]);
    if let Some(stderr) = &outcome.stderr {
        lines.section("end of QEMU's stderr", Lines::text(stderr));
    }
    lines
}

fn as_text(status: &wire::Status) -> Lines {
    let forwards = status.forwards.iter();
    let forwards: Vec<String> =
        forwards.map(|f| format!("{}:{}:{}/{}", f.address, f.host_port, f.guest_port, f.protocol)).collect();
    let list = |list: Vec<String>| (!list.is_empty()).then(|| list.join(", "));
    let sandbox = match status.sandbox {
        true => "on",
        false if status.wrapped == Some(true) => "off (QEMU's command line has no `-sandbox on`)",
        false if on_bridge(status) => "off (for the bridge helper)",
        false => "off (--no-sandbox)",
    };
    let mut text = facts(&[
        ("name", Some(status.name.clone())),
        ("state", Some(status.state.clone())),
        ("reason", status.reason.clone()),
        ("uptime", Some(milliseconds(status.uptime_ms))),
        ("uuid", Some(status.uuid.clone())),
        ("machine", Some(format!("{} {}", status.arch, status.machine))),
        ("cpus", Some(status.cpus.to_string())),
        ("memory", Some(bytes(status.memory_bytes))),
        ("accel", Some(format!("{} ({})", status.accel, status.accel_reason))),
        ("sandbox", Some(sandbox.to_owned())),
        ("qemu", Some(format!("{}, pid {}", status.qemu_version, status.qemu_pid))),
        ("supervisor", Some(format!("vmrun {}, pid {}", status.supervisor_version, status.supervisor_pid))),
        ("network", Some(network(&status.networking, &status.mac))),
        ("forwards", list(forwards)),
        ("slots", Some(format!("{} of {} used", status.slots_used, status.slots_total))),
        ("run directory", Some(status.run_directory.clone())),
        ("state directory", Some(status.state_directory.clone())),
        ("template", template(status)),
    ]);
    if !status.disks.is_empty() {
        text.section("disks", disk_list::as_table(&status.disks));
    }
    let nics = status.nics.as_deref().unwrap_or_default();
    if !nics.is_empty() {
        text.section("network cards", nic_list::as_table(nics));
    }
    let shares = status.shares.as_deref().unwrap_or_default();
    if !shares.is_empty() {
        let rows = shares.iter().map(|share| {
            let mount = format!("mount -t virtiofs {} DIR", share.tag);
            [share.tag.clone(), share.directory.clone(), mount]
        });
        text.section("shared folders", table(["TAG", "FOLDER", "IN THE GUEST"], rows));
    }
    let mut devices: Vec<[String; 4]> = Vec::new();
    devices.extend(
        status
            .usb
            .iter()
            .map(|usb| [usb.id.clone(), usb.driver.clone(), String::new(), state(&usb.phase, usb.taken)]),
    );
    devices.extend(status.devices.iter().map(|device| {
        [
            device.id.clone(),
            device.driver.clone(),
            device.slot.clone().unwrap_or_default(),
            state(&device.phase, device.taken),
        ]
    }));
    if !devices.is_empty() {
        text.section("devices", table(["ID", "DRIVER", "SLOT", "STATE"], devices));
    }
    text
}

/// The template of a fork, and how many others use it.
fn template(status: &wire::Status) -> Option<String> {
    let template = status.template.as_ref()?;
    Some(match status.siblings {
        None => template.clone(),
        Some(0) => format!("{template}, no other fork"),
        Some(1) => format!("{template}, 1 other fork"),
        Some(others) => format!("{template}, {others} other forks"),
    })
}

/// Whether the sandbox may be off because of QEMU's bridge helper.
fn on_bridge(status: &wire::Status) -> bool {
    let nics = status.nics.iter().flatten().map(|nic| nic.network.as_str());
    nics.chain([status.networking.as_str()]).any(|network| network.starts_with("bridge"))
}

/// The first card's network, and its address, if there is a card.
fn network(networking: &str, mac: &str) -> String {
    match (networking, mac) {
        ("none", _) | (_, "") => networking.to_owned(),
        (networking, mac) => format!("{networking}, mac {mac}"),
    }
}

#[cfg(test)]
mod tests {
    use super::network;

    #[test]
    fn a_card_that_is_not_there_has_no_address() {
        assert_eq!(network("user", "52:54:00:12:34:56"), "user, mac 52:54:00:12:34:56");
        assert_eq!(network("none", "52:54:00:12:34:56"), "none");
        assert_eq!(network("user", ""), "user");
    }
}
