//! `pause`, `resume`, `reset`, `powerdown`, and the two ways to QEMU's own monitor.

use serde_json::Value;

use crate::qemu::Command;

use super::super::change::Done;
use super::super::error::{ChangeError, ErrorKind};
use super::super::owner::{Owner, Reply};
use super::super::state::RunState;
use super::answer;

fn simple(owner: &mut Owner, execute: &str, reply: Reply) {
    owner.command(&Command::new(execute, Value::Null), |_, result| {
        answer(reply, result.map(|_| Done::Nothing).map_err(ChangeError::from));
    });
}

/// Stops the processors; QEMU answers when they stand still.
pub(super) fn pause(owner: &mut Owner, reply: Reply) {
    match owner.inventory.run_state {
        RunState::Paused | RunState::IoError | RunState::Panicked => answer(reply, Ok(Done::Nothing)),
        _ => simple(owner, "stop", reply),
    }
}

/// Lets the processors run; after an I/O error this tries the failed request again.
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

/// Resets the machine; a paused one stays paused, one that panicked runs again.
pub(super) fn reset(owner: &mut Owner, reply: Reply) {
    let panicked = owner.inventory.run_state == RunState::Panicked;
    owner.command(&Command::new("system_reset", Value::Null), move |owner, result| match result {
        Ok(_) if panicked => simple(owner, "cont", reply),
        Ok(_) => answer(reply, Ok(Done::Nothing)),
        Err(error) => answer(reply, Err(error.into())),
    });
}

/// Presses the power button. A guest that stands still does not see it.
pub(super) fn powerdown(owner: &mut Owner, reply: Reply) {
    if owner.inventory.run_state != RunState::Running {
        let state = owner.inventory.run_state.to_string();
        let message = format!("the guest does not run (it is {state}) and would not see the power button");
        return answer(
            reply,
            Err(ChangeError::new(ErrorKind::NotNow { state }, message).hint("`resume` first")),
        );
    }
    simple(owner, "system_powerdown", reply);
}

/// Any command of QEMU's monitor.
pub(super) fn qmp(owner: &mut Owner, command: &Command, reply: Reply) {
    owner.command(command, |_, result| answer(reply, result.map(Done::Value).map_err(ChangeError::from)));
}

/// A line of the human monitor.
pub(super) fn hmp(owner: &mut Owner, line: &str, reply: Reply) {
    owner.command(&Command::hmp(line), |_, result| {
        let text = result.map(|text| Done::Text(text.as_str().unwrap_or_default().to_owned()));
        answer(reply, text.map_err(ChangeError::from));
    });
}
