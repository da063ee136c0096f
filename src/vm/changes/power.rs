//! `pause`, `resume`, `reset`, `powerdown`, and raw commands for QEMU's monitors.

use serde_json::Value;

use crate::qemu::{Command, query};
use crate::qmp::{CommandError, hmp};
use crate::spec::{Arch, PowerButton};

use super::{answer, guard, link};
use crate::vm::change::Done;
use crate::vm::changes::guard::Needs;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::guest::agent::Loss;
use crate::vm::handle::RawTurn;
use crate::vm::owner::{Owner, Reply, look_again, refreshed};
use crate::vm::state::run_state::RunState;

fn simple(owner: &mut Owner, execute: &str, reply: Reply) {
    owner.command(&Command::new(execute, Value::Null), |_, result| {
        answer(reply, result.map(|_| Done::Nothing).map_err(ChangeError::from));
    });
}

/// Stops the processors; QEMU replies when they have stopped.
pub(super) fn pause(owner: &mut Owner, reply: Reply) {
    match owner.inventory.run_state {
        RunState::Paused | RunState::IoError | RunState::Panicked => answer(reply, Ok(Done::Nothing)),
        _ => simple(owner, "stop", reply),
    }
}

/// Starts the processors; after an I/O error this retries the failed request.
pub(super) fn resume(owner: &mut Owner, reply: Reply) {
    match owner.inventory.run_state {
        RunState::Running => answer(reply, Ok(Done::Nothing)),
        RunState::Panicked => {
            let kind = ErrorKind::NotNow { state: "panicked".to_owned() };
            let error = ChangeError::new(kind, "the guest's kernel has panicked and cannot go on");
            answer(reply, Err(error.hint("`reset` starts it again")));
        }
        RunState::Suspended => simple(owner, "system_wakeup", reply),
        _ => simple(owner, "cont", reply),
    }
}

/// Resets the machine. A paused VM stays paused; one that panicked runs again.
pub(super) fn reset(owner: &mut Owner, reply: Reply) {
    if owner.inventory.run_state != RunState::Paused {
        return reset_now(owner, reply);
    }
    // a reset would hide the run state that says that the images are closed for writing
    let session = owner.session.clone();
    let checked = async move { guard::check(&session, "a reset", Needs::Images).await };
    owner.spawn(checked, move |owner, checked| match checked {
        Ok(()) => reset_now(owner, reply),
        Err(error) => answer(reply, Err(error)),
    });
}

fn reset_now(owner: &mut Owner, reply: Reply) {
    let panicked = owner.inventory.run_state == RunState::Panicked;
    // QEMU replies before the reset: what the agent answers until then belongs to the guest before it
    owner.agent.lose(Loss::Reset);
    owner.begins_anew();
    owner.command(&Command::new("system_reset", Value::Null), move |owner, result| match result {
        Ok(_) if panicked => simple(owner, "cont", reply),
        Ok(_) => answer(reply, Ok(Done::Nothing)),
        Err(error) => answer(reply, Err(error.into())),
    });
}

/// Presses the power button. A paused guest does not see it.
pub(super) fn powerdown(owner: &mut Owner, reply: Reply) {
    if owner.inventory.run_state != RunState::Running {
        let state = owner.inventory.run_state.to_string();
        let message = format!("the guest does not run (it is {state}) and would not see the power button");
        return answer(
            reply,
            Err(ChangeError::new(ErrorKind::NotNow { state }, message).hint("`resume` first")),
        );
    }
    owner.command(&query::machine_property("acpi"), |owner, acpi| {
        let acpi = acpi.ok();
        match no_button(owner.machine.arch(), acpi.as_ref().and_then(Value::as_str)) {
            None => simple(owner, "system_powerdown", reply),
            Some(why) => {
                let error = ChangeError::unsupported(format!("this machine has no power button: {why}"));
                answer(
                    reply,
                    Err(error.hint("`vmrun ctl shutdown` asks the guest's agent, and then ends the VM")),
                );
            }
        }
    });
}

/// Why a machine has no power button, by its architecture and its property `acpi`. QEMU accepts the command all the same, and no
/// guest gets it.
fn no_button(arch: Arch, acpi: Option<&str>) -> Option<String> {
    match (arch.facts().power_button, acpi) {
        (PowerButton::None, _) => Some(format!("QEMU's {arch} machines have none")),
        (PowerButton::Acpi, Some("off")) => {
            Some(format!("on {arch} it belongs to ACPI, which is switched off"))
        }
        _ => None,
    }
}

/// Runs any command of QEMU's monitor.
pub(super) fn qmp(owner: &mut Owner, command: &Command, turn: Option<RawTurn>, reply: Reply) {
    raw(owner, command, |result| {
        drop(turn);
        answer(reply, result.map(Done::Value).map_err(ChangeError::from));
    });
}

/// The same with QEMU's own error. The inventory is refreshed for what the command changed before the reply is sent.
pub(in super::super) fn raw(
    owner: &mut Owner,
    command: &Command,
    then: impl FnOnce(Result<Value, CommandError>) + Send + 'static,
) {
    let changes_books = may_change_books(command);
    let line = hmp_line(command);
    let forwards_went = ["hostfwd_remove", "netdev_del"].iter().any(|word| line.starts_with(word))
        || command.execute == "netdev_del";
    let link = link_of(command);
    owner.command(command, move |owner, result| match result {
        Ok(value) if link.is_some() => {
            if let Some((name, up)) = link {
                link::set_link_state(owner, &name, up);
            }
            then(Ok(value));
        }
        Ok(value) if changes_books => resync(owner, forwards_went, move || then(Ok(value))),
        result => then(result),
    });
}

/// Commands that can add devices, forwards or limits which are not in the inventory. For removed devices there are events.
fn may_change_books(command: &Command) -> bool {
    const COMMANDS: [&str; 4] = ["device_add", "block_set_io_throttle", "netdev_del", "hostfwd_"];
    let name = match command.execute.as_str() {
        "human-monitor-command" => hmp_line(command),
        name => name,
    };
    COMMANDS.iter().any(|changing| name.starts_with(changing))
}

/// The card whose link a command sets, and to what. QEMU cannot be asked for it later.
fn link_of(command: &Command) -> Option<(String, bool)> {
    let mut words = hmp_line(command).split_ascii_whitespace();
    match (command.execute.as_str(), words.next()) {
        ("set_link", _) => {
            let name = command.arguments.get("name")?.as_str()?;
            Some((name.to_owned(), command.arguments.get("up")?.as_bool()?))
        }
        ("human-monitor-command", Some("set_link")) => {
            Some((words.next()?.to_owned(), words.next()? == "on"))
        }
        _ => None,
    }
}

fn hmp_line(command: &Command) -> &str {
    command.arguments.get("command-line").and_then(Value::as_str).unwrap_or_default().trim_start()
}

/// Adds what QEMU has and the inventory has not.
fn resync(owner: &mut Owner, forwards_went: bool, then: impl FnOnce() + Send + 'static) {
    if owner.is_wrapped() {
        return refreshed(owner, |_| then());
    }
    owner.spawn(look_again(owner), move |owner, seen| {
        match seen {
            Ok(seen) => owner.inventory.take_in(seen.inventory, forwards_went),
            Err(error) => log::warn!("QEMU could not be asked what has changed: {error}"),
        }
        then();
    });
}

/// Runs a line of the human monitor.
pub(super) fn hmp(owner: &mut Owner, line: &str, turn: Option<RawTurn>, reply: Reply) {
    raw(owner, &Command::hmp(line), |result| {
        drop(turn);
        let said = result.map_err(ChangeError::from).and_then(|text| {
            let text = text.as_str().unwrap_or_default();
            hmp::understood(text).map_err(|error| {
                let kind = ErrorKind::RefusedByQemu { class: "CommandNotFound".to_owned() };
                ChangeError::new(kind, error.to_string()).hint("`vmrun ctl hmp help` lists QEMU's commands")
            })?;
            Ok(Done::Text(text.to_owned()))
        });
        answer(reply, said);
    });
}
