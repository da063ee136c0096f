//! One QEMU job, from its command to its end.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use qapi::qmp::JobStatus;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::qemu::Command;
use crate::qemu::query;
use crate::qemu::snapshot::{self as qemu, JobState};
use crate::qmp::{CommandError, Session, View};

use super::Snapshots;
use crate::vm::bus::{Bus, BusEvent, Record, Subscriber};
use crate::vm::change::Progress;
use crate::vm::changes::saving::close_state;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::state::journal::Job;
use crate::vm::steps::to_the_end;

/// Interval between two checks of a growing image; only while a client wants progress.
const LOOK: Duration = Duration::from_millis(250);
/// The unit of `st_blocks`, in bytes.
const BLOCK: u64 = 512;

/// An image that grows while a snapshot is written to it.
pub(in crate::vm) struct Growing<'a> {
    file: PathBuf,
    before: u64,
    total_bytes: u64,
    progress: &'a watch::Sender<Progress>,
}

impl<'a> Growing<'a> {
    pub(super) fn new(file: PathBuf, total_bytes: u64, progress: &'a watch::Sender<Progress>) -> Self {
        let mut growing = Self { file, before: 0, total_bytes, progress };
        growing.before = growing.size();
        growing
    }

    fn size(&self) -> u64 {
        std::fs::metadata(&self.file).map_or(0, |facts| facts.blocks() * BLOCK)
    }

    fn look(&self) {
        if self.progress.receiver_count() > 0 {
            let done_bytes = self.size().saturating_sub(self.before);
            self.progress.send_replace(Progress { done_bytes, total_bytes: self.total_bytes });
        }
    }
}

/// Why a job failed.
pub(in crate::vm) struct JobError {
    pub(super) error: ChangeError,
    /// QEMU had started the job: unlike a refused command, it may have changed something.
    pub(super) begun: bool,
}

impl From<CommandError> for JobError {
    /// The error of the command that starts a job.
    fn from(error: CommandError) -> Self {
        Self { error: error.into(), begun: false }
    }
}

impl From<JobError> for ChangeError {
    fn from(failed: JobError) -> Self {
        failed.error
    }
}

impl Snapshots {
    pub(super) async fn job(&self, command: &Command, growing: Option<Growing<'_>>) -> Result<(), JobError> {
        run_job(&self.session, &self.bus, command, growing).await
    }
}

/// Runs a job; returns when it has ended, successfully or not.
pub(in crate::vm) async fn run_job(
    session: &Session,
    bus: &Bus,
    command: &Command,
    growing: Option<Growing<'_>>,
) -> Result<(), JobError> {
    let mut events = bus.subscribe(None);
    let started = to_the_end(session.submit(command));
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let growing = growing.as_ref();
    // QEMU replies when the job exists, but its monitor may not respond until the job has ended
    tokio::pin!(started);
    loop {
        tokio::select! { biased;
            answer = &mut started => break answer.map(drop)?,
            () = tick(&mut look, growing) => {}
        }
    }
    loop {
        tokio::select! { biased;
            () = concluded(&mut events) => {}
            () = session.closed() => return Err(CommandError::Disconnected.into()),
            () = tick(&mut look, growing) => continue,
        }
        // a QEMU that hangs now still has the job, whose id is taken until it is dismissed
        let jobs = to_the_end(session.submit(&query())).await;
        let error = match jobs.map(|jobs| qemu::job(&jobs)) {
            Ok(JobState::UnderWay) => continue,
            Ok(JobState::Gone) => return Ok(()),
            Ok(JobState::Concluded(error)) => error.map(|error| refused(command, &error)),
            Err(error) => Some(error.into()),
        };
        dismiss(session).await;
        return error.map_or(Ok(()), |error| Err(JobError { error, begun: true }));
    }
}

async fn tick(look: &mut Interval, growing: Option<&Growing<'_>>) {
    match growing {
        Some(growing) => {
            look.tick().await;
            growing.look();
        }
        None => std::future::pending().await,
    }
}

/// Resolves when our job may have ended.
async fn concluded(events: &mut Subscriber) {
    let ended = |record: &Record| matches!(&record.view, View::Job { id, status: JobStatus::concluded | JobStatus::null } if id == qemu::JOB);
    loop {
        match events.next().await {
            Some(BusEvent::Record(record)) if !ended(&record) => {}
            Some(BusEvent::Record(_) | BusEvent::Lost(_)) => return,
            // the owner is gone, and with it the client that waits for this
            None => std::future::pending().await,
        }
    }
}

/// QEMU runs a job in its main loop, so when its monitor responds, the job is over or ends at once.
const LAST_STEPS: usize = 100;

/// Ends what a supervisor that died has started: its job, and the pause of the guest.
pub(in crate::vm) async fn take_back(session: &Session, job: &Job) -> Result<(), CommandError> {
    for _ in 0..LAST_STEPS {
        match qemu::job(&session.run(&query()).await?) {
            JobState::UnderWay => continue,
            JobState::Gone => log::info!("{} when the supervisor died; that is over", job.what),
            JobState::Concluded(error) => {
                match error {
                    None => log::info!("{} when the supervisor died; that has succeeded", job.what),
                    Some(error) => log::warn!("{} when the supervisor died: {error}", job.what),
                }
                dismiss(session).await;
            }
        }
        break;
    }
    if job.file.is_some() {
        // the pipe that it was written through was closed with that supervisor
        let _ = session.run(&crate::qemu::migration::cancel()).await;
        if job.template.is_some() {
            close_state(session).await;
        }
        job.remove_part();
    }
    let status = session.run(&query::status()).await?;
    if job.resume && status["running"] == false {
        session.run(&Command::new("cont", Value::Null)).await?;
    }
    Ok(())
}

fn query() -> Command {
    Command::new("query-jobs", Value::Null)
}

async fn dismiss(session: &Session) {
    let dismiss = Command::new("job-dismiss", json!({ "id": qemu::JOB }));
    if let Err(error) = to_the_end(session.submit(&dismiss)).await {
        log::warn!("a job of QEMU's could not be dismissed: {error}");
    }
}

fn refused(command: &Command, error: &str) -> ChangeError {
    let kind = ErrorKind::RefusedByQemu { class: "GenericError".to_owned() };
    ChangeError::new(kind, format!("QEMU refused {}: {error}", command.execute))
}
