//! `save`: the whole VM into a file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::super::change::Done;
use super::super::error::{ChangeError, ErrorKind};
use super::super::handle::ShutdownOptions;
use super::super::journal::Job;
use super::super::owner::{Owner, Reply};
use super::super::saving::Saving;
use super::super::snapshots::{Progress, present};
use super::super::state::RunState;
use super::{answer, snapshot};

/// Saves the VM and ends QEMU: the answer comes when the file is whole, QEMU's end after that.
pub(super) fn start(owner: &mut Owner, file: PathBuf, progress: watch::Sender<Progress>, reply: Reply) {
    let record = match check(owner).and_then(|()| owner.plugged.of_now(&owner.inventory)) {
        Ok(record) => record,
        Err(error) => return answer(reply, Err(error)),
    };
    let running = owner.inventory.run_state == RunState::Running;
    let what = format!("the VM is being saved to {}", file.display());
    log::info!("{what}");
    owner.journal.job(Some(Job { what: what.clone(), resume: running, file: Some(file.clone()) }));
    owner.busy = Some(what);
    let abort = Arc::new(Notify::new());
    owner.abort = Some(Arc::clone(&abort));
    let saving = Saving {
        session: owner.session.clone(),
        bus: owner.bus.clone(),
        spec: owner.spec.clone(),
        facts: owner.facts.clone(),
        record,
        cards: owner.journal.cards().clone(),
        limits: owner.inventory.limits().map(|(id, limits)| (id.to_string(), *limits)).collect(),
        forwards: owner.inventory.forwards_asked_for().map(|bound| bound.forward).collect(),
        present: present(&owner.inventory),
        running,
        file: file.clone(),
        progress,
        abort,
    };
    owner.spawn(saving.save(), move |owner, result| {
        owner.busy = None;
        owner.abort = None;
        owner.journal.job(None);
        if result.is_ok() {
            owner.evidence.saved(file);
            owner.shut_down(ShutdownOptions { timeout: Duration::ZERO, force: true, no_repeat: true });
        }
        answer(reply, result.map(|()| Done::Nothing));
    });
}

fn check(owner: &Owner) -> Result<(), ChangeError> {
    if owner.is_wrapped() {
        return Err(ChangeError::unsupported("vmrun has not started this VM, and could not build it again")
            .hint("only a VM of `vmrun qemu` can be saved"));
    }
    let state = owner.inventory.run_state;
    if !matches!(state, RunState::Running | RunState::Paused) {
        let kind = ErrorKind::NotNow { state: state.to_string() };
        return Err(ChangeError::new(kind, format!("a VM that is {state} cannot be saved")));
    }
    if owner.facts.ephemeral {
        let error = ChangeError::unsupported("the disks of an ephemeral VM are thrown away at its end");
        return Err(error.hint("a VM that is to be saved must be started without `--ephemeral`"));
    }
    snapshot::settled(owner)
}
