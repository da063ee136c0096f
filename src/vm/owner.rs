//! The owner task: the only place where a VM's state changes.
//!
//! It is one `select!` with a stated order: QEMU's end, QEMU's events, finished work, new requests, signals, the ladder's clock.
//! It never waits inside a branch: long work runs as a future in `work`, whose end comes back as a closure over the owner.

mod boot;
mod publish;
mod refresh;
mod shutdown;

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::host::dirs::StateDir;
use crate::host::log_context;
use crate::host::oom::OomKills;
use crate::qemu::plan::Step;
use crate::qemu::{Command, Machine};
use crate::qmp::{CommandError, Delivery, EventReceiver, Session, SessionError};

use super::bus::{Bus, WatchedState};
use super::changes;
use super::error::{ChangeError, ErrorKind};
use super::handle::{OwnerRequest, Queued, RawTurn};
use super::ladder::Ladder;
use super::parts::{Devices, Qemu};
use super::signals::{Requests, Signals};
use crate::vm::change::{Change, Done};
use crate::vm::changes::taken::{self, Looks};
use crate::vm::changes::turns::Turns;
use crate::vm::console::Hub;
use crate::vm::guest::agent::AgentLink;
use crate::vm::guest::boot_watch::NothingToBoot;
use crate::vm::guest::resets::Resets;
use crate::vm::process::qemu::Process;
use crate::vm::state::facts::Facts;
use crate::vm::state::images::Images;
use crate::vm::state::inventory::Inventory;
use crate::vm::state::journal::Journal;
use crate::vm::state::opened::Files;
use crate::vm::state::origin::{Description, Origin};
use crate::vm::state::outcome::{Evidence, Outcome};
use crate::vm::state::plugged::Plugged;
use crate::vm::state::run_state::RunState;
use crate::vm::state::status::CachedStatus;
use crate::vm::steps::{run_steps, to_the_end};
pub(super) use refresh::{look_again, refreshed};

/// How long to read events after QEMU's end that it wrote before.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// The reply channel of a change.
pub(super) type Reply = oneshot::Sender<Result<Done, ChangeError>>;
/// Applies the result of finished work to the owner.
pub(super) type Completion = Box<dyn FnOnce(&mut Owner) + Send>;
type Work = Pin<Box<dyn Future<Output = Completion> + Send>>;

/// A client that waits for the removal of a device.
pub(super) struct Removal {
    pub(super) ticket: u64,
    pub(super) reply: Reply,
}

/// A running VM's state and everything that can change it.
pub(super) struct Owner {
    pub(super) origin: Arc<Origin>,
    pub(super) facts: Arc<Facts>,
    pub(super) machine: Machine,
    pub(super) inventory: Inventory,
    pub(super) session: Session,
    pub(super) agent: AgentLink,
    pub(super) images: Images,
    /// What QEMU has open.
    pub(super) files: Files,
    pub(super) state: Arc<StateDir>,
    pub(super) bus: Bus,
    watched: watch::Sender<WatchedState>,
    cached_status: CachedStatus,
    pub(super) journal: Journal,
    /// Why other changes are refused at the moment: an operation that excludes them is under way.
    pub(super) busy: Option<String>,
    /// Aborts that operation, if it can be aborted.
    pub(super) abort: Option<watch::Sender<bool>>,
    pub(super) plugged: Plugged,
    pub(super) removals: HashMap<String, Vec<Removal>>,
    /// Devices whose removal QEMU has not accepted yet.
    pub(super) asking: HashSet<String>,
    /// Changes of CD-ROM drives; those of one drive run one after the other.
    pub(super) turns: Turns,
    pub(super) evidence: Evidence,
    oom_kills: OomKills,
    pub(super) resets: Resets,
    pub(super) looks: Looks,
    /// The ids of the ports of each command in the guest.
    pub(super) stream_ports: HashMap<u64, Vec<String>>,
    pub(super) started: Instant,
    /// When the guest began: at the VM's start, its last reset, or the last snapshot that was loaded.
    began: Instant,
    pub(super) events: EventReceiver,
    pub(super) process: Process,
    pub(super) inbox: mpsc::Receiver<Queued>,
    pub(super) signals: Signals,
    pub(super) signalled: Requests,
    pub(super) ladder: Option<Ladder>,
    work: FuturesUnordered<Work>,
    next_ticket: u64,
    nothing_to_boot: Option<NothingToBoot>,
    /// Why the guest's kernel has panicked, by what the console shows.
    console_panic: Option<String>,
    /// The VM's lifetime is over, and it is being shut down for that.
    outlived: bool,
    /// What the guest prints; `None` where vmrun has not its console.
    console: Option<Hub>,
    /// Counts the guest's restarts: resets and loaded snapshots.
    beginnings: watch::Sender<u64>,
    /// QEMU's monitor is closed.
    silent: bool,
    /// Why a running QEMU cannot be controlled.
    unreachable: Option<ChangeError>,
}

/// The parts of an owner.
pub(super) struct OwnerParts {
    pub(super) description: Description,
    pub(super) qemu: Qemu,
    pub(super) devices: Devices,
    /// What QEMU has open.
    pub(super) files: Files,
    pub(super) state: Arc<StateDir>,
    pub(super) bus: Bus,
    pub(super) watched: watch::Sender<WatchedState>,
    pub(super) cached_status: CachedStatus,
    pub(super) inbox: mpsc::Receiver<Queued>,
    pub(super) signals: Signals,
}

impl Owner {
    pub(super) fn new(parts: OwnerParts) -> Self {
        let OwnerParts {
            description,
            qemu,
            devices,
            files,
            state,
            bus,
            watched,
            cached_status,
            inbox,
            signals,
        } = parts;
        let Description { origin, facts } = description;
        let Qemu { process, session, events, agent, started, .. } = qemu;
        let Devices { machine, inventory, journal, plugged, images } = devices;
        let arch = origin.arch();
        Self {
            origin: Arc::new(origin),
            facts: Arc::new(facts),
            machine,
            inventory,
            session,
            agent,
            images,
            files,
            state,
            bus,
            watched,
            cached_status,
            journal,
            busy: None,
            abort: None,
            plugged,
            removals: HashMap::new(),
            asking: HashSet::new(),
            turns: Turns::default(),
            evidence: Evidence::of(arch),
            oom_kills: OomKills::watch("/proc".as_ref(), "/sys/fs/cgroup".as_ref(), process.pid()),
            started,
            began: started,
            events,
            process,
            inbox,
            signals,
            signalled: Requests::default(),
            resets: Resets::default(),
            looks: Looks::default(),
            stream_ports: HashMap::new(),
            ladder: None,
            work: FuturesUnordered::new(),
            next_ticket: 0,
            nothing_to_boot: None,
            console_panic: None,
            outlived: false,
            console: None,
            beginnings: watch::Sender::new(0),
            silent: false,
            unreachable: None,
        }
    }

    /// Runs until QEMU has ended.
    pub(super) async fn run(mut self) -> Outcome {
        let exit = loop {
            let clock = self.ladder.as_ref().and_then(Ladder::next);
            let lifetime = self.lifetime();
            tokio::select! { biased;
                exit = self.process.ended() => break exit,
                delivery = self.events.next(), if !self.silent => match delivery {
                    Some(delivery) => self.on_delivery(delivery),
                    None => self.on_silence(),
                },
                Some(complete) = self.work.next() => complete(&mut self),
                Some(Queued { request, context }) = self.inbox.recv() => match request {
                    // a query changes nothing
                    OwnerRequest::Status(reply) if !self.is_wrapped() => {
                        let status = Arc::new(self.status());
                        if !taken::status_asked(&mut self) {
                            self.cached_status.set(Arc::clone(&status));
                        }
                        // the client may have gone, which changes nothing
                        let _ = reply.send(status);
                        continue;
                    }
                    request => log_context::within(context, || self.on_request(request)),
                },
                signal = self.signals.next() => self.on_signal(signal),
                () = tokio::time::sleep_until(clock.unwrap_or(self.started)), if clock.is_some() => self.advance(),
                () = tokio::time::sleep_until(lifetime.unwrap_or(self.started)), if lifetime.is_some() => self.outlive(),
            }
            self.cached_status.forget();
            self.publish_state();
        };
        self.cached_status.forget();
        // events that QEMU wrote before it ended may still arrive
        while let Ok(Some(delivery)) = tokio::time::timeout(LAST_EVENTS, self.events.next()).await {
            self.on_delivery(delivery);
        }
        let words = self.process.stderr_tail().await;
        if self.oom_kills.happened() == Some(true) {
            self.evidence.out_of_memory();
        }
        self.inventory.run_state = RunState::Off;
        self.cached_status.set(Arc::new(self.status()));
        self.evidence.outcome(exit, words)
    }

    fn on_request(&mut self, request: OwnerRequest) {
        match request {
            // a wrapped VM can change from outside: its status is never cached
            OwnerRequest::Status(reply) => {
                refreshed(self, |owner| drop(reply.send(Arc::new(owner.status()))));
            }
            OwnerRequest::Change(change, turn, reply) if change.rules().fresh_inventory => {
                refreshed(self, |owner| owner.start_change(change, turn, reply));
            }
            OwnerRequest::Change(change, turn, reply) => self.start_change(change, turn, reply),
            OwnerRequest::Raw(command, turn, reply) => changes::raw(self, &command, |result| {
                drop(turn);
                drop(reply.send(result));
            }),
            OwnerRequest::OpenStreams(streams, reply) => changes::streams::open(self, &streams, reply),
            OwnerRequest::CheckFreeze(freeze, shell, reply) => {
                drop(reply.send(changes::check_freeze(self, freeze, shell)));
            }
            OwnerRequest::CloseStreams(number) => changes::streams::close(self, number),
            OwnerRequest::Shutdown(options) => self.shut_down(options),
            OwnerRequest::CommandEnded(exit_code) => self.evidence.command_ended(exit_code),
        }
    }

    fn start_change(&mut self, change: Change, turn: Option<RawTurn>, reply: Reply) {
        match self.admit(&change) {
            Ok(()) => changes::start(self, change, turn, reply),
            Err(refused) => drop(reply.send(Err(refused))),
        }
    }

    /// The VM was put together by the user, and can change from outside vmrun.
    pub(super) fn is_wrapped(&self) -> bool {
        self.origin.is_wrapped()
    }

    /// Whether a change is allowed in the present state; sends nothing to QEMU.
    fn admit(&self, change: &Change) -> Result<(), ChangeError> {
        if let Some(error) = &self.unreachable {
            return Err(error.clone());
        }
        let rules = change.rules();
        if (self.ladder.is_some() || self.inventory.run_state == RunState::Off) && !rules.while_stopping {
            let refused = ChangeError::new(
                ErrorKind::NotNow { state: "stopping".to_owned() },
                "the VM is shutting down",
            );
            return Err(refused);
        }
        match &self.busy {
            Some(busy) if !rules.while_busy => {
                let kind = ErrorKind::NotNow { state: "busy".to_owned() };
                Err(ChangeError::new(kind, busy.clone()).hint("try again when that is done"))
            }
            _ => Ok(()),
        }
    }

    // ---- work ----

    /// Runs a future beside the owner; `then` gets its result and the owner.
    pub(super) fn spawn<T: Send + 'static>(
        &mut self,
        future: impl Future<Output = T> + Send + 'static,
        then: impl FnOnce(&mut Self, T) + Send + 'static,
    ) {
        let context = log_context::current();
        self.work.push(Box::pin(async move {
            let result = log_context::scope(context, future).await;
            Box::new(move |owner: &mut Self| log_context::within(context, || then(owner, result)))
                as Completion
        }));
    }

    /// Runs a blocking function (files, helper programs) on a thread of its own.
    pub(super) fn spawn_blocking<T: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> Result<T, ChangeError> + Send + 'static,
        then: impl FnOnce(&mut Self, Result<T, ChangeError>) + Send + 'static,
    ) {
        let task = tokio::task::spawn_blocking(job);
        let result = async move { task.await.unwrap_or_else(|error| Err(ChangeError::host(error))) };
        self.spawn(result, then);
    }

    /// Sends all steps of a plan to QEMU at once, collects the replies, and rolls back if one failed.
    pub(super) fn run_plan(
        &mut self,
        steps: Vec<Step>,
        then: impl FnOnce(&mut Self, Result<Vec<Value>, ChangeError>) + Send + 'static,
    ) {
        let commands: Vec<Command> = steps.iter().map(|step| step.command.clone()).collect();
        let answers = self.session.submit_all(&commands).into_iter().map(to_the_end).collect();
        let session = self.session.clone();
        self.spawn(run_steps(session, steps, answers), then);
    }

    /// Runs one command whose reply is the result.
    pub(super) fn command(
        &mut self,
        command: &Command,
        then: impl FnOnce(&mut Self, Result<Value, CommandError>) + Send + 'static,
    ) {
        let answer = to_the_end(self.session.submit(command));
        self.spawn(answer, then);
    }

    /// Later tickets are larger than this one, which an earlier owner has given.
    pub(super) fn tickets_after(&mut self, ticket: u64) {
        self.next_ticket = self.next_ticket.max(ticket);
    }

    pub(super) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    // ---- events ----

    fn on_delivery(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Event(event) => {
                super::events::handle(self, &event);
                self.bus.publish_qemu(&event);
            }
            Delivery::Lost(count) => {
                log::warn!("{count} events of QEMU were lost: more, or longer ones, came than could be kept");
                self.bus.publish("VMRUN_EVENTS_LOST", json!({ "count": count }));
                super::events::catch_up(self);
            }
        }
    }

    /// The monitor is closed: usually QEMU's process ends now, too.
    fn on_silence(&mut self) {
        self.silent = true;
        let why = self.session.end().unwrap_or(SessionError::Ended);
        let wait = if why.is_breach() { Duration::ZERO } else { LAST_EVENTS };
        self.spawn(tokio::time::sleep(wait), move |owner, ()| {
            let error = ChangeError::unreachable(&why);
            log::warn!("{error}");
            owner.inventory.reason = Some(error.message.clone());
            owner.unreachable = Some(error);
            // no more events: those who wait for one get an error
            owner.removals.clear();
        });
    }
}
