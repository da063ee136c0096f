//! `save`: saves the whole VM to a file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use crate::host::saved::sync_folder;

use super::{answer, snapshot};
use crate::spec::VmSpec;
use crate::vm::changes::change::Done;
use crate::vm::changes::machine_state::{Progress, present};
use crate::vm::changes::saving::Saving;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::handle::ShutdownOptions;
use crate::vm::owner::{Owner, Reply};
use crate::vm::state::journal::Job;
use crate::vm::state::opened;
use crate::vm::state::run_state::RunState;

/// Saves the VM and ends QEMU: the reply is sent when the file is complete, before QEMU ends.
pub(super) fn start(owner: &mut Owner, file: PathBuf, progress: watch::Sender<Progress>, reply: Reply) {
    let spec = check(owner).cloned();
    let (spec, record) = match spec.and_then(|spec| Ok((spec, owner.plugged.of_now(&owner.inventory)?))) {
        Ok(found) => found,
        Err(error) => return answer(reply, Err(error)),
    };
    let running = owner.inventory.run_state == RunState::Running;
    let what = format!("the VM is being saved to {}", file.display());
    log::info!("{what}");
    let job = Job { what: what.clone(), resume: running, file: Some(file.clone()), part: None };
    if let Err(error) = owner.journal.job(job) {
        return answer(reply, Err(error));
    }
    owner.busy = Some(what);
    let (abort, aborted) = watch::channel(false);
    owner.abort = Some(abort);
    let mut limits = BTreeMap::new();
    limits.extend(owner.inventory.limits().map(|(id, limits)| (id.to_string(), *limits)));
    let saving = Saving {
        session: owner.session.clone(),
        bus: owner.bus.clone(),
        facts: (*owner.facts).clone(),
        record,
        cards: owner.journal.cards().clone(),
        limits,
        forwards: owner.inventory.requested_forwards().map(|bound| bound.forward).collect(),
        images: opened::identities(&opened::images_of(&spec, &owner.journal.pending().images)),
        present: present(&owner.inventory),
        spec,
        running,
        file: file.clone(),
        progress,
        abort: aborted,
    };
    owner.spawn(saving.begin(), move |owner, begun| {
        let noted = begun.and_then(|(saving, writing)| {
            owner.journal.job_makes(writing.made())?;
            Ok((saving, writing))
        });
        match noted {
            Ok((saving, writing)) => owner.spawn(saving.save(writing), move |owner, result| match result {
                Ok(()) => saved(owner, file, reply),
                Err(error) => failed(owner, reply, error),
            }),
            Err(error) => failed(owner, reply, error),
        }
    });
}

fn failed(owner: &mut Owner, reply: Reply, error: ChangeError) {
    ended(owner);
    answer(reply, Err(error));
}

/// The file is complete: however QEMU ends from here on, the VM's outcome is "saved".
fn saved(owner: &mut Owner, file: PathBuf, reply: Reply) {
    owner.abort = None;
    owner.evidence.saved(file.clone());
    let sync = move || sync_folder(&file).map_err(ChangeError::host);
    owner.spawn_blocking(sync, |owner, synced| {
        if let Err(error) = synced {
            log::warn!("the saved VM may be gone if this machine crashes now: {error}");
        }
        ended(owner);
        owner.shut_down(ShutdownOptions { timeout: Duration::ZERO, force: true, no_repeat: true });
        answer(reply, Ok(Done::Nothing));
    });
}

fn ended(owner: &mut Owner) {
    owner.abort = None;
    owner.busy = None;
    owner.journal.job_ended();
}

/// The description from which the VM can be rebuilt.
fn check(owner: &Owner) -> Result<&VmSpec, ChangeError> {
    let Some(spec) = owner.origin.spec() else {
        return Err(ChangeError::unsupported("vmrun has not started this VM, and could not build it again")
            .hint("only a VM of `vmrun qemu` can be saved"));
    };
    let state = owner.inventory.run_state;
    if !matches!(state, RunState::Running | RunState::Paused) {
        let kind = ErrorKind::NotNow { state: state.to_string() };
        return Err(ChangeError::new(kind, format!("a VM that is {state} cannot be saved")));
    }
    if owner.facts.ephemeral {
        let error = ChangeError::unsupported("the disks of an ephemeral VM are thrown away at its end");
        return Err(error.hint("start a VM that you want to save without `--ephemeral`"));
    }
    snapshot::check_settled(owner).map(|()| spec)
}
