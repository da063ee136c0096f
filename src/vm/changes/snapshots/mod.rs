//! Snapshots of a running VM, in its qcow2 images: memory, devices and disks as they were at one moment.
//!
//! QEMU does all of it in its main loop: the monitor of 7.2 does not respond meanwhile, and the progress that it reports is 0 of 1,
//! then 1 of 1. So vmrun waits for the event (JOB_STATUS_CHANGE), and takes the progress from the growing image.

mod check;
mod job;
mod remembered;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use crate::host::dirs::StateDir;
use crate::qemu::snapshot::{self as qemu, Snapshot, Writable};
use crate::qemu::{Command, query};
use crate::qmp::Session;
use crate::spec::{Layout, SnapshotName};

use crate::vm::bus::Bus;
use crate::vm::change::Progress;
use crate::vm::changes::machine_state::{Present, check_blockers, present};
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::state::inventory::Inventory;
use crate::vm::state::origin::Origin;
use crate::vm::state::run_state::RunState;
use crate::vm::steps::to_the_end;
pub(in crate::vm) use job::{run_job, take_back};
#[cfg(any(test, fuzzing))]
pub(in crate::vm) use remembered::Entries;

/// What all of this needs of the owner.
pub(in crate::vm) struct Snapshots {
    session: Session,
    bus: Bus,
    state: Arc<StateDir>,
    present: Vec<Present>,
    memory_bytes: u64,
    layout: Layout,
    run_state: RunState,
}

/// A failure, and whether the guest's memory is incomplete after it.
pub(in crate::vm) struct Failed {
    pub(in crate::vm) error: ChangeError,
    pub(in crate::vm) broken: bool,
}

impl<E: Into<ChangeError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { error: error.into(), broken: false }
    }
}

impl Snapshots {
    pub(in crate::vm) fn new(
        session: &Session,
        bus: &Bus,
        state: &Arc<StateDir>,
        inventory: &Inventory,
        origin: &Origin,
    ) -> Self {
        Self {
            session: session.clone(),
            bus: bus.clone(),
            state: Arc::clone(state),
            present: present(inventory),
            memory_bytes: origin.memory().bytes(),
            layout: origin.layout(),
            run_state: inventory.run_state,
        }
    }

    /// All snapshots, oldest first.
    pub(in crate::vm) async fn list(self) -> Result<Vec<Snapshot>, ChangeError> {
        Ok(qemu::list(&self.disks().await?))
    }

    /// Makes one. The guest is paused meanwhile, and resumed afterwards if it ran before.
    pub(in crate::vm) async fn save(
        mut self,
        name: &SnapshotName,
        overwrite: bool,
        progress: &watch::Sender<Progress>,
    ) -> Result<Snapshot, Failed> {
        let disks = self.disks().await?;
        check::can_hold(&disks)?;
        let there = qemu::named(&disks, name.as_str());
        if !there.is_empty() && !overwrite {
            let kind = ErrorKind::AlreadyThere { id: name.to_string() };
            let error = ChangeError::new(kind, format!("there is a snapshot '{name}' already"));
            return Err(error.hint("choose another name, or replace it with `--overwrite`").into());
        }
        check_blockers(&self.session, &self.present, "a snapshot").await?;
        remembered::complete(&self.session, &mut self.present).await?;
        for outlived in there.iter().skip(1) {
            self.drop_one(outlived).await?;
        }
        let old = there.first();
        let tag = qemu::tag_beside(name.as_str(), old);
        let state = qemu::state_node(&disks, &tag).ok_or_else(check::no_disk)?;
        let nodes = nodes(&disks);
        let growing = job::Growing::new(PathBuf::from(&state.file), self.memory_bytes, progress);
        let saved = self.job(&qemu::save(&tag, &state.node, &nodes), Some(growing)).await;
        self.go_on().await;
        saved.map_err(ChangeError::from).map_err(|error| match old {
            Some(_) => error.hint(format!("the old snapshot '{name}' is still there")),
            None => error,
        })?;
        let drives = to_the_end(self.session.submit(&query::blocks())).await?;
        let made = qemu::named(&qemu::writable(&drives), name.as_str());
        let made = made.into_iter().find(|snapshot| snapshot.tag == tag);
        let made = made.ok_or_else(|| ChangeError::host("QEMU has made no snapshot and does not say why"))?;
        remembered::remember(&self.state, &made, self.layout, &self.present);
        if let Some(old) = old
            && let Err(error) = self.drop_one(old).await
        {
            // the name means the new one; replacing or deleting that one deletes this one, too
            log::warn!("the snapshot that '{name}' has replaced could not be deleted: {error}");
        }
        Ok(made)
    }

    /// Loads one; the guest runs afterwards if it ran before. Everything that would make QEMU refuse is checked first. If the job
    /// fails all the same, vmrun cannot know how far it came (QEMU's error text differs between versions), so the guest stays
    /// stopped, as QEMU left it.
    pub(in crate::vm) async fn load(mut self, name: &SnapshotName) -> Result<Snapshot, Failed> {
        let disks = self.disks().await?;
        let wanted = find(&disks, name)?;
        check::loadable(&wanted, &disks)?;
        check_blockers(&self.session, &self.present, "a snapshot").await?;
        remembered::complete(&self.session, &mut self.present).await?;
        remembered::check(&self.state, &wanted, self.layout, &self.present)?;
        let state = qemu::state_node(&disks, &wanted.tag).ok_or_else(check::no_disk)?;
        match self.job(&qemu::load(&wanted.tag, &state.node, &nodes(&disks)), None).await {
            Ok(()) => {
                self.go_on().await;
                Ok(wanted)
            }
            Err(failed) if failed.begun && !self.runs().await => {
                let error = failed.error;
                let hint =
                    "load another snapshot, or `reset` the VM; its disks may already be as in the snapshot";
                let message =
                    format!("{}; the VM is stopped, since its memory is inconsistent", error.message);
                Err(Failed { error: ChangeError { message, ..error }.hint(hint), broken: true })
            }
            Err(failed) => {
                self.go_on().await;
                Err(failed.error.into())
            }
        }
    }

    /// Deletes one from all disks that have it.
    pub(in crate::vm) async fn delete(self, name: &SnapshotName) -> Result<Snapshot, Failed> {
        let disks = self.disks().await?;
        let there = find(&disks, name)?;
        // first those that it replaced: they must not reappear under its name
        for snapshot in qemu::named(&disks, name.as_str()).iter().rev() {
            self.drop_one(snapshot).await?;
        }
        Ok(there)
    }

    async fn drop_one(&self, snapshot: &Snapshot) -> Result<(), ChangeError> {
        let nodes: Vec<&str> = snapshot.disks.iter().map(String::as_str).collect();
        self.job(&qemu::delete(&snapshot.tag, &nodes), None).await?;
        remembered::forget(&self.state, &snapshot.tag);
        Ok(())
    }

    async fn disks(&self) -> Result<Vec<Writable>, ChangeError> {
        Ok(qemu::writable(&self.session.run(&query::blocks()).await?))
    }

    /// Whether QEMU has resumed the guest by itself.
    async fn runs(&self) -> bool {
        let status = to_the_end(self.session.submit(&query::status())).await;
        status.is_ok_and(|status| status["running"] == Value::Bool(true))
    }

    /// Resumes the guest if it ran before: QEMU leaves it stopped after some failures.
    async fn go_on(&self) {
        if self.run_state != RunState::Running {
            return;
        }
        let status = to_the_end(self.session.submit(&query::status())).await;
        if status.is_ok_and(|status| status["running"] == Value::Bool(false)) {
            // an error means that QEMU is gone, or that QEMU reports it itself
            let _ = to_the_end(self.session.submit(&Command::new("cont", Value::Null))).await;
        }
    }
}

fn nodes(disks: &[Writable]) -> Vec<&str> {
    disks.iter().map(|disk| disk.node.as_str()).collect()
}

fn find(disks: &[Writable], name: &SnapshotName) -> Result<Snapshot, ChangeError> {
    let mut all = qemu::list(disks);
    match all.iter().position(|snapshot| snapshot.name == name.as_str()) {
        Some(position) => Ok(all.swap_remove(position)),
        None => Err(check::unknown(name, &all)),
    }
}
