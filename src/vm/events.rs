//! How QEMU's events change the inventory.

use std::time::Duration;

use qapi::qmp::{BlockErrorAction, GuestPanicAction};
use serde_json::Value;
use tokio::time::Instant;

use crate::qemu::Command;
use crate::qmp::{Event, View};
use crate::spec::OnPanic;

use super::changes::guard::INCONSISTENT;
use super::changes::{media, remove, streams, taken};
use super::handle::ShutdownOptions;
use super::owner::{Owner, look_again};
use crate::vm::guest::agent::Loss;
use crate::vm::state::inventory::Phase;
use crate::vm::state::run_state::RunState;

/// A guest's ACPI reports on a request to eject memory or a processor (ACPI 6.4, table 6.12).
const EJECT_REQUEST: i64 = 3;

/// Failure codes: unknown failure, unknown event, and those of eject requests: in use, busy, dependency (ACPI 6.4, table 6.14). "In
/// progress" (0x84 in Linux) is no failure.
fn is_refusal(status: i64) -> bool {
    matches!(status, 1 | 2 | 0x80..=0x83)
}

/// Applies an event to the inventory. Unknown events are ignored.
pub(super) fn handle(owner: &mut Owner, event: &Event) {
    log::debug!("event {} {:?}", event.name, event.data);
    match &event.view {
        View::Stop => stopped(owner),
        View::Resume => resumed(owner),
        View::Suspend => owner.inventory.run_state = RunState::Suspended,
        View::Wakeup => {
            owner.inventory.run_state = RunState::Running;
            taken::look_again(owner);
        }
        View::Shutdown { guest, reason } => {
            owner.evidence.shutdown_event(*reason, *guest);
            owner.inventory.run_state = RunState::Off;
        }
        View::Reset { guest } => reset(owner, *guest),
        View::GuestPanicked { action } => panicked(owner, *action == Some(GuestPanicAction::pause)),
        View::BlockIoError { device, node_name, nospace, reason, action } => {
            // with `-blockdev` QEMU names only the node
            let node = node_name.as_deref().unwrap_or_default();
            let disk = if node.is_empty() { device } else { node.trim_end_matches(".file") };
            block_io_error(owner, disk, *nospace, reason, *action);
        }
        View::DeviceDeleted { device: id } => {
            if id == owner.machine.ids().agent {
                owner.agent.lose(Loss::Unplugged);
            }
            streams::unplugged(owner, id);
            remove::deleted(owner, id);
        }
        View::UnplugGuestError { device: id } => remove::refused(owner, id),
        View::AcpiOst { device: id, source: EJECT_REQUEST, status } if is_refusal(*status) => {
            remove::refused(owner, id);
        }
        View::SerialPortChange { id, open } if id == owner.machine.ids().agent => agent_port(owner, *open),
        View::TrayMoved { id, open } => media::tray_moved(owner, id, *open),
        _ => {}
    }
}

/// Events were lost: asks QEMU for what is known only from events: which devices were removed and whether the guest runs.
pub(super) fn catch_up(owner: &mut Owner) {
    let leaving = owner.inventory.devices().filter(|entry| entry.phase == Phase::Removing);
    let leaving: Vec<String> = leaving.map(|entry| entry.id.to_string()).collect();
    let before = owner.inventory.run_state;
    owner.spawn(look_again(owner), move |owner, seen| {
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => return log::warn!("QEMU could not be asked what has happened: {error}"),
        };
        let state = seen.inventory.run_state;
        leaving.iter().filter(|id| !seen.present.contains(*id)).for_each(|id| remove::deleted(owner, id));
        // it may have been closed and reopened
        agent_port(owner, false);
        if seen.agent_open {
            agent_port(owner, true);
        }
        // an event that came meanwhile is newer; and QEMU reports a paused VM that was reset as not started yet
        if owner.inventory.run_state == before && before != RunState::Off && state != RunState::Starting {
            owner.inventory.run_state = state;
        }
    });
}

fn stopped(owner: &mut Owner) {
    // an I/O error, a panic and a power-off have events of their own, before or after STOP
    if matches!(owner.inventory.run_state, RunState::Starting | RunState::Running | RunState::Suspended) {
        owner.inventory.run_state = RunState::Paused;
    }
}

fn resumed(owner: &mut Owner) {
    // a VM with `-no-shutdown` can continue after its end
    if owner.inventory.run_state != RunState::Off || owner.is_wrapped() {
        owner.inventory.run_state = RunState::Running;
        owner.inventory.reason = None;
        taken::look_again(owner);
    }
}

fn reset(owner: &mut Owner, guest: bool) {
    owner.evidence.reset();
    if owner.inventory.reason.as_deref() == Some(INCONSISTENT) {
        owner.inventory.reason = None;
    }
    owner.begins_anew();
    owner.agent.lose(Loss::Reset);
    taken::look_again(owner);
    let by_guest = owner.resets.count(guest, Instant::now());
    let Some(limit) = owner.facts.max_resets else { return };
    if by_guest > limit && !owner.evidence.has_too_many_resets() {
        log::warn!("the guest has reset {by_guest} times: ending the VM");
        owner.evidence.too_many_resets();
        owner.shut_down(ShutdownOptions { timeout: Duration::ZERO, force: true, no_repeat: true });
    }
}

fn panicked(owner: &mut Owner, paused: bool) {
    owner.evidence.panicked();
    owner.agent.lose(Loss::Panicked);
    log::warn!("the guest's kernel panicked");
    let on_panic = owner.origin.spec().map(|spec| spec.on_panic).unwrap_or_default();
    if paused && on_panic == OnPanic::Reset {
        log::info!("resetting it");
        owner.command(&Command::new("system_reset", Value::Null), |owner, result| {
            if result.is_ok() {
                owner.command(&Command::new("cont", Value::Null), |_, _| {});
            }
        });
    } else if paused {
        owner.inventory.run_state = RunState::Panicked;
        owner.inventory.reason = Some("the guest's kernel panicked".to_owned());
    }
}

fn block_io_error(owner: &mut Owner, disk: &str, nospace: bool, reason: &str, action: BlockErrorAction) {
    let why = match nospace {
        true => format!("no space left on the host for '{disk}'"),
        false => format!("'{disk}' has an I/O error: {reason}"),
    };
    log::warn!("{why}");
    if action == BlockErrorAction::stop {
        owner.inventory.run_state = RunState::IoError;
        owner.inventory.reason = Some(why);
    }
}

pub(super) fn agent_port(owner: &mut Owner, open: bool) {
    if !open {
        owner.agent.lose(Loss::Closed);
        return;
    }
    taken::look_again(owner);
    let agent = owner.agent.clone();
    owner.spawn(async move { agent.opened().await }, |owner, result| match result {
        Ok(()) => owner.agent_answers(),
        Err(error) => log::info!("the guest has opened the agent's port, but no agent answers: {error}"),
    });
}
