//! `save` and `freeze`: save the VM to a file, or into a template.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use crate::host::saved::sync_folder;
use crate::host::template::{self, MACHINE};

use super::{answer, freezable, guard, snapshot, streams};
use crate::spec::VmSpec;
use crate::vm::change::{Done, Freeze, Progress};
use crate::vm::changes::machine_state::present;
use crate::vm::changes::saving::{Folder, Saving};
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::handle::ShutdownOptions;
use crate::vm::owner::{Owner, Reply};
use crate::vm::state::journal::Job;
use crate::vm::state::opened;
use crate::vm::state::run_state::RunState;
use crate::vm::state::waiting_shell::WaitingShellFacts;

/// What the VM is put into.
pub(super) enum Target {
    /// A file.
    File(PathBuf),
    /// The folder of a template.
    Template { folder: Folder, keep_running: bool, waiting_shell: Option<WaitingShellFacts> },
}

impl Target {
    pub(super) fn template(freeze: Freeze, waiting_shell: Option<WaitingShellFacts>) -> Self {
        let Freeze { folder: path, keep_running, until_unused, .. } = freeze;
        let part = template::part(&path);
        Self::Template { folder: Folder { path, part, until_unused }, keep_running, waiting_shell }
    }

    /// What people know it by.
    fn path(&self) -> &Path {
        match self {
            Self::File(file) => file,
            Self::Template { folder, .. } => &folder.path,
        }
    }

    /// The file with the description and the state.
    fn file(&self) -> PathBuf {
        match self {
            Self::File(file) => file.clone(),
            Self::Template { folder, .. } => folder.part.join(MACHINE),
        }
    }

    fn folder(&self) -> Option<&Folder> {
        match self {
            Self::File(_) => None,
            Self::Template { folder, .. } => Some(folder),
        }
    }

    fn waiting_shell(&self) -> Option<&WaitingShellFacts> {
        match self {
            Self::File(_) => None,
            Self::Template { waiting_shell, .. } => waiting_shell.as_ref(),
        }
    }

    /// What it is in a message.
    fn needs(&self) -> &'static str {
        match self {
            Self::File(_) => "saving the VM",
            Self::Template { .. } => "freezing the VM",
        }
    }

    fn goes_on(&self) -> bool {
        matches!(self, Self::Template { keep_running: true, .. })
    }
}

/// Saves the VM and ends QEMU, unless the VM keeps running: the reply is sent when the file is complete, before QEMU ends.
pub(super) fn start(owner: &mut Owner, target: Target, progress: watch::Sender<Progress>, reply: Reply) {
    let spec = check(owner, &target).cloned();
    let (spec, record) = match spec.and_then(|spec| Ok((spec, owner.plugged.of_now(&owner.inventory)?))) {
        Ok(found) => found,
        Err(error) => return answer(reply, Err(error)),
    };
    let running = owner.inventory.run_state == RunState::Running;
    let verb = if matches!(target, Target::File(_)) { "saved to" } else { "frozen into" };
    let what = format!("the VM is being {verb} {}", target.path().display());
    let file = target.file();
    log::info!("{what}");
    let job = Job {
        what: what.clone(),
        resume: running,
        file: Some(file.clone()),
        part: None,
        template: target.folder().map(|folder| folder.part.clone()),
    };
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
        file,
        folder: target.folder().cloned(),
        waiting_shell: target.waiting_shell().cloned(),
        freezing: None,
        goes_on: target.goes_on(),
        needs: target.needs(),
        console: owner.console(),
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
                Ok(paused) => saved(owner, target, paused, reply),
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
fn saved(owner: &mut Owner, target: Target, paused: Duration, reply: Reply) {
    owner.abort = None;
    let path = target.path().to_owned();
    match &target {
        Target::File(file) => owner.evidence.saved(file),
        Target::Template { keep_running: true, .. } => {}
        Target::Template { folder, .. } => owner.evidence.frozen(&folder.path),
    }
    let sync = move || sync_folder(&path).map_err(ChangeError::host);
    owner.spawn_blocking(sync, move |owner, synced| {
        if let Err(error) = synced {
            log::warn!("the saved VM may be gone if this machine crashes now: {error}");
        }
        ended(owner);
        if target.goes_on() {
            return answer(reply, Ok(Done::Frozen { paused }));
        }
        owner.shut_down(ShutdownOptions { timeout: Duration::ZERO, force: true, no_repeat: true });
        answer(reply, Ok(Done::Nothing));
    });
}

fn ended(owner: &mut Owner) {
    owner.abort = None;
    owner.busy = None;
    owner.journal.job_ended();
}

/// Whether a VM can be frozen so now; changes nothing.
pub(in crate::vm) fn check_freeze(
    owner: &Owner,
    freeze: Freeze,
    waiting_shell: Option<WaitingShellFacts>,
) -> Result<(), ChangeError> {
    check(owner, &Target::template(freeze, waiting_shell)).map(drop)
}

/// The description from which the VM can be rebuilt.
fn check<'a>(owner: &'a Owner, target: &Target) -> Result<&'a VmSpec, ChangeError> {
    let Some(spec) = owner.origin.spec() else {
        return Err(ChangeError::unsupported("vmrun has not started this VM, and could not build it again")
            .hint("only a VM of `vmrun qemu` can be saved"));
    };
    let state = owner.inventory.run_state;
    if !matches!(state, RunState::Running | RunState::Paused) {
        let kind = ErrorKind::NotNow { state: state.to_string() };
        return Err(ChangeError::new(kind, format!("a VM that is {state} cannot be saved")));
    }
    if snapshot::is_inconsistent(owner) {
        return Err(guard::inconsistent(target.needs()));
    }
    match target {
        Target::File(_) if owner.facts.ephemeral => {
            let error = ChangeError::unsupported("the disks of an ephemeral VM are thrown away at its end");
            return Err(error.hint("start a VM that you want to save without `--ephemeral`"));
        }
        Target::File(_) => {}
        Target::Template { keep_running, .. } => freezable::check(owner, spec, *keep_running)?,
    }
    streams::refuse_running(owner, target.waiting_shell().map(|shell| shell.number))?;
    snapshot::check_settled(owner).map(|()| spec)
}
