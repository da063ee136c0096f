//! Saves a whole VM to a file: QEMU writes the machine's state into a pipe, the supervisor from there into the file.
//!
//! A pipe, since QEMU 7.2 has no `file:` ("expects a valid migration protocol"), and so that a full disk is noticed here, where the
//! guest can be resumed.

mod describe;
mod files;
mod paused;
mod restore;
mod template;

use std::collections::BTreeMap;
use std::io::PipeReader;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::host::saved::{SavedError, Writing, finish, pump};
use crate::qemu::{Command, migration};
use crate::qmp::{CommandError, Session, View};
use crate::spec::{FileId, Forward, Limits, VmSpec};

use super::guard::{self, Needs};
use super::machine_state::{Present, check_blockers};
use crate::vm::bus::{Bus, BusEvent, Subscriber};
use crate::vm::change::Progress;
use crate::vm::console::Hub;
use crate::vm::error::{ChangeError, ErrorChain, ErrorKind};
use crate::vm::state::facts::Facts;
use crate::vm::state::journal::Cards;
use crate::vm::state::plugged::Record;
use crate::vm::state::waiting_shell::WaitingShellFacts;
use crate::vm::steps::{blocking, to_the_end};
pub(in crate::vm) use describe::Saved;
pub(in crate::vm) use files::FileFacts;
pub(in crate::vm) use paused::close as close_state;
pub(in crate::vm) use restore::load;
pub(in crate::vm) use template::{Folder, Freezing, TemplateFacts, with_paths};

/// Interval between two progress reports, while a client wants them.
const REPORT: Duration = Duration::from_millis(250);

/// What saving needs of the owner.
pub(in crate::vm) struct Saving {
    pub(in crate::vm) session: Session,
    pub(in crate::vm) bus: Bus,
    pub(in crate::vm) spec: VmSpec,
    pub(in crate::vm) facts: Facts,
    pub(in crate::vm) record: Record,
    pub(in crate::vm) cards: Cards,
    pub(in crate::vm) limits: BTreeMap<String, Limits>,
    pub(in crate::vm) forwards: Vec<Forward>,
    /// The files that were opened, by the names of their block nodes.
    pub(in crate::vm) images: BTreeMap<String, FileId>,
    pub(in crate::vm) present: Vec<Present>,
    pub(in crate::vm) running: bool,
    pub(in crate::vm) file: PathBuf,
    /// The folder of the template that is being made; none where the VM is saved.
    pub(in crate::vm) folder: Option<Folder>,
    /// The shell that waits in the guest, and goes on waiting in each fork.
    pub(in crate::vm) waiting_shell: Option<WaitingShellFacts>,
    /// The template, once its folder is there.
    pub(in crate::vm) freezing: Option<Freezing>,
    /// The VM keeps running afterwards.
    pub(in crate::vm) goes_on: bool,
    /// What it is in a message.
    pub(in crate::vm) needs: &'static str,
    /// What the guest prints.
    pub(in crate::vm) console: Option<Hub>,
    pub(in crate::vm) progress: watch::Sender<Progress>,
    /// The VM is shutting down: abort.
    pub(in crate::vm) abort: watch::Receiver<bool>,
}

impl Saving {
    /// Checks whether the VM can be saved, and makes the file, which has no name yet.
    pub(in crate::vm) async fn begin(mut self) -> Result<(Self, Writing), ChangeError> {
        // of a paused VM a template is made without a migration
        let (what, needs) = match self.folder {
            Some(_) => ("a template", Needs::Memory),
            None => ("a file", Needs::ImagesAndMemory),
        };
        guard::check(&self.session, self.needs, needs).await?;
        check_blockers(&self.session, &self.present, what).await?;
        self.complete().await?;
        if let Some(folder) = self.folder.clone() {
            let (spec, facts) = (self.spec.clone(), self.facts.clone());
            let freezing = blocking(move || Freezing::begin(&folder, &spec, &facts)).await?;
            self.freezing = Some(freezing);
        }
        let file = self.file.clone();
        let writing = blocking(move || Writing::create(&file).map_err(from_saved)).await?;
        Ok((self, writing))
    }

    /// Saves the VM: on success the file is complete and the machine is stopped for good. On failure the VM is as before.
    ///
    /// Once the guest is stopped, this waits for QEMU without a deadline: a command that QEMU executes later would stop the guest
    /// again unnoticed.
    ///
    /// Returns how long the guest was stopped for it.
    pub(in crate::vm) async fn save(mut self, mut writing: Writing) -> Result<Duration, ChangeError> {
        let named = move || writing.take_name().map(|()| writing).map_err(from_saved);
        let writing = blocking(named).await?;
        for command in migration::prepare(self.has_memory_file()) {
            self.session.run(&command).await?;
        }
        self.still_wanted()?;
        let stopped = Instant::now();
        if self.running {
            self.finish(&Command::new("stop", Value::Null)).await?;
        }
        let written = self.write(writing).await.and_then(|()| match self.freezing.take() {
            Some(freezing) => freezing.finish(),
            None => Ok(()),
        });
        if self.running && (written.is_err() || self.goes_on) {
            // an error means that QEMU is gone, or that it says so by itself
            let _ = self.finish(&Command::new("cont", Value::Null)).await;
        }
        let paused = if self.running { stopped.elapsed() } else { Duration::ZERO };
        written.map(|()| paused)
    }

    /// The guest's memory is in a file, which is copied, and not in the stream.
    fn has_memory_file(&self) -> bool {
        self.freezing.as_ref().is_some_and(|freezing| freezing.memory.is_some())
    }

    /// Fills a template's folder, while none of its files is written to.
    async fn fill(&mut self) -> Result<Option<u64>, ChangeError> {
        let Some(freezing) = self.freezing.take() else { return Ok(None) };
        let (progress, total_bytes) = (self.progress.clone(), self.spec.memory.bytes());
        // the guest is stopped: what it had printed before has been read while QEMU wrote its state
        let console = self.console.as_ref().map(Hub::recent).unwrap_or_default();
        let filled = blocking(move || {
            let filled = freezing.making.fill(freezing.memory.as_ref(), &console, |done_bytes| {
                progress.send_replace(Progress { done_bytes, total_bytes });
            });
            Ok((freezing, filled))
        });
        let (freezing, filled) = filled.await?;
        let path = freezing.making.part().to_owned();
        // its folder goes last, when nothing is in it any more
        self.freezing = Some(freezing);
        filled.map_err(|source| from_saved(SavedError::Io { path, source }))
    }

    async fn finish(&self, command: &Command) -> Result<Value, CommandError> {
        to_the_end(self.session.submit(command)).await
    }

    fn still_wanted(&self) -> Result<(), ChangeError> {
        if !*self.abort.borrow() {
            return Ok(());
        }
        let kind = ErrorKind::NotNow { state: "stopping".to_owned() };
        Err(ChangeError::new(kind, "the VM is not saved: it is shutting down"))
    }

    async fn unwanted(&self) {
        let _ = self.abort.clone().wait_for(|abort| *abort).await;
    }

    async fn write(&mut self, writing: Writing) -> Result<(), ChangeError> {
        self.still_wanted()?;
        let stream = writing.stream().map_err(ChangeError::host)?;
        let bytes = match &self.freezing {
            Some(freezing) if !self.running => {
                paused::write(&self.session, &self.bus, freezing.making.part(), stream).await?
            }
            _ => self.migrate(stream).await?,
        };
        self.still_wanted()?;
        let memory_bytes = self.fill().await?;
        self.still_wanted()?;
        let description = self.describe(memory_bytes).await?;
        let file = writing.stream().map_err(ChangeError::host)?;
        let path = self.file.clone();
        blocking(move || {
            finish(&file, &description, bytes).map_err(|source| from_saved(SavedError::Io { path, source }))
        })
        .await?;
        // from here to the owner's next step without an await: the owner always knows of the file
        self.still_wanted()?;
        writing.place().map_err(from_saved)
    }

    /// Has QEMU write its state into a pipe, and that into the file. Returns how many bytes it has.
    async fn migrate(&self, stream: std::fs::File) -> Result<u64, ChangeError> {
        let written = Arc::new(AtomicU64::new(0));
        let mut events = self.bus.subscribe(None);
        let (reader, writer) = std::io::pipe().map_err(ChangeError::host)?;
        let pumped = tokio::task::spawn_blocking(pump_into(reader, stream, Arc::clone(&written)));
        to_the_end(self.session.pass(migration::DESCRIPTOR, writer.into())).await?;
        if let Err(error) = self.finish(&migration::save()).await {
            // QEMU would keep it open until it ends, and a thread here would read from it
            let _ = self.finish(&migration::give_up()).await;
            return Err(error.into());
        }
        let ended = self.follow(&mut events, &written).await;
        // QEMU has closed its end, or has ended
        let pumped = pumped.await.map_err(ChangeError::host)?;
        let bytes =
            pumped.map_err(|source| from_saved(SavedError::Io { path: self.file.clone(), source }))?;
        ended?;
        Ok(bytes)
    }

    /// Waits until QEMU has written everything.
    async fn follow(&self, events: &mut Subscriber, written: &AtomicU64) -> Result<(), ChangeError> {
        let total_bytes = self.spec.memory.bytes();
        let mut report = interval(REPORT);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut cancelled = false;
        loop {
            let good = tokio::select! { biased;
                good = ended(events, &self.session) => good?,
                () = self.session.closed() => return Err(ChangeError::not_running()),
                () = self.unwanted(), if !cancelled => {
                    cancelled = true;
                    self.finish(&migration::cancel()).await?;
                    continue;
                }
                _ = report.tick() => {
                    if self.progress.receiver_count() > 0 {
                        let done_bytes = written.load(Ordering::Relaxed);
                        self.progress.send_replace(Progress { done_bytes, total_bytes });
                    }
                    continue;
                }
            };
            if good {
                return Ok(());
            }
            self.still_wanted()?;
            let why = self.finish(&migration::query()).await?;
            let why = why["error-desc"].as_str().unwrap_or("it was cancelled").to_owned();
            let kind = ErrorKind::RefusedByQemu { class: "GenericError".to_owned() };
            return Err(ChangeError::new(kind, format!("QEMU could not save the VM: {why}")));
        }
    }
}

fn pump_into(
    reader: PipeReader,
    file: std::fs::File,
    written: Arc<AtomicU64>,
) -> impl FnOnce() -> std::io::Result<u64> {
    move || pump(reader, file, |bytes| written.store(bytes, Ordering::Relaxed))
}

/// Resolves when a migration has ended; true = successfully.
pub(in crate::vm) async fn ended(events: &mut Subscriber, session: &Session) -> Result<bool, ChangeError> {
    loop {
        let status = match events.next().await {
            Some(BusEvent::Record(record)) => match record.view {
                View::Migration { status } => status,
                _ => None,
            },
            // the one that matters may be among the lost ones
            Some(BusEvent::Lost(_)) => migration::status(&session.run(&migration::query()).await?),
            None => std::future::pending().await,
        };
        if let Some(good) = status.and_then(migration::ended) {
            return Ok(good);
        }
    }
}

fn from_saved(error: SavedError) -> ChangeError {
    match &error {
        SavedError::Exists(path) => {
            let kind = ErrorKind::AlreadyThere { id: path.display().to_string() };
            ChangeError { hint: error.hint(), ..ChangeError::new(kind, error.with_causes()) }
        }
        SavedError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            ChangeError::host(error).hint("free some space, or choose another file; the VM keeps running")
        }
        _ => ChangeError::hinted(SavedError::hint)(error),
    }
}
