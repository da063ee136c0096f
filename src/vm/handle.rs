//! Requests to a VM's owner task.

use std::sync::Arc;
use std::time::Duration;

use qapi::qmp::QmpCommand;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::host::log_context::{self, LogContext};
use crate::qemu::Command;
use crate::qemu::stream_port::StandardStream;
use crate::qmp::session::COMMAND_TIMEOUT;
use crate::qmp::{CommandError, decoded};

use super::bus::{Bus, WatchedState};
use super::console::Console;
use super::error::ChangeError;
use crate::vm::change::{Change, Done, Freeze, Ports};
use crate::vm::guest::agent::AgentLink;
use crate::vm::guest::inputs::Inputs;
use crate::vm::guest::waiting_shell::WaitingShells;
use crate::vm::state::outcome::Outcome;
use crate::vm::state::status::{CachedStatus, Status};
use crate::vm::state::waiting_shell::WaitingShellFacts;

/// How many requests may wait for the owner; further clients wait in their own connections.
pub(super) const INBOX_LENGTH: usize = 256;
/// How many raw commands of clients may be with QEMU at a time. QEMU executes commands in order, and vmrun's own (a change, a query
/// of `status`, `quit`) must not wait behind those of a hundred clients: vmrun's need no turn.
const RAW_AT_ONCE: usize = 2;
/// The longest time from QEMU's end until its outcome is known: its last events are read, its helpers end.
const END_IS_NEAR: Duration = Duration::from_secs(5);

/// A request in the owner's inbox, with the client's request that it belongs to.
pub(super) struct Queued {
    pub(super) request: OwnerRequest,
    pub(super) context: Option<LogContext>,
}

/// A request to the owner, with its reply channel.
pub(super) enum OwnerRequest {
    Status(oneshot::Sender<Arc<Status>>),
    Change(Change, Option<RawTurn>, oneshot::Sender<Result<Done, ChangeError>>),
    /// A command of QEMU's monitor: a client's, with its turn, or one of vmrun's own queries without.
    Raw(Command, Option<RawTurn>, oneshot::Sender<Result<Value, CommandError>>),
    /// Ports for the standard streams of a command in the guest.
    OpenStreams(Vec<StandardStream>, oneshot::Sender<Result<Ports, ChangeError>>),
    /// Whether the VM can be frozen so, with this waiting shell.
    CheckFreeze(Freeze, Option<WaitingShellFacts>, oneshot::Sender<Result<(), ChangeError>>),
    /// The command with this number has ended.
    CloseStreams(u64),
    Shutdown(ShutdownOptions),
    /// The command that the VM was started for has ended, with this exit code.
    CommandEnded(u8),
}

/// The right to have a raw command with QEMU; held until QEMU has answered, even if its client has gone.
pub(super) type RawTurn = OwnedSemaphorePermit;

/// Gives out the turns of raw commands, first come first served.
#[derive(Debug, Clone)]
pub(super) struct RawTurns(Arc<Semaphore>);

impl RawTurns {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(RAW_AT_ONCE)))
    }

    /// Waits for a turn; `None` if the semaphore is closed, which does not happen.
    async fn next(&self) -> Option<RawTurn> {
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

/// How to shut down.
#[derive(Debug, Clone, Copy)]
pub struct ShutdownOptions {
    /// Budget of the steps that ask the guest.
    pub timeout: Duration,
    /// Do not ask the guest.
    pub force: bool,
    /// Press the power button only once.
    pub no_repeat: bool,
}

/// The interface to a VM's owner task. Cheap to clone; outlives the VM, after whose end every request is answered with
/// [`super::ErrorKind::NotRunning`].
#[derive(Clone)]
pub struct Handle {
    pub(super) inbox: mpsc::Sender<Queued>,
    pub(super) raw_turns: RawTurns,
    pub(super) watched: watch::Receiver<WatchedState>,
    pub(super) cached_status: CachedStatus,
    pub(super) agent: AgentLink,
    /// The shell in the guest that waits for a command.
    pub(super) waiting_shells: WaitingShells,
    /// The inputs of the commands that run in the guest.
    pub(super) inputs: Inputs,
    /// The VM's console.
    pub console: Console,
    /// QEMU's events and our own.
    pub bus: Bus,
    pub(super) outcome: watch::Receiver<Option<Outcome>>,
}

impl Handle {
    /// The VM's status, from its inventory.
    pub async fn status(&self) -> Result<Arc<Status>, ChangeError> {
        // earlier requests of others come first
        let no_waiters = self.inbox.capacity() == self.inbox.max_capacity() && !self.inbox.is_closed();
        if let Some(status) = self.cached_status.get().filter(|_| no_waiters) {
            return Ok(status);
        }
        let (reply, answer) = oneshot::channel();
        self.send(OwnerRequest::Status(reply)).await.ok_or_else(ChangeError::not_running)?;
        answer.await.map_err(|_| ChangeError::not_running())
    }

    /// Follows the owner's state.
    pub fn watch(&self) -> watch::Receiver<WatchedState> {
        self.watched.clone()
    }

    /// Makes a change; returns when it has taken effect. A raw command ([`Change::Qmp`], [`Change::Hmp`]), which only clients send,
    /// waits for its turn.
    pub async fn change(&self, change: Change) -> Result<Done, ChangeError> {
        let turn = match change {
            Change::Qmp(_) | Change::Hmp(_) => self.raw_turns.next().await,
            _ => None,
        };
        if change.saves_devices() {
            self.end_waiting_shell().await;
        }
        self.make(change, turn).await
    }

    /// Freezes the VM into a template, with a shell that waits in each fork for its first command.
    pub async fn freeze(&self, freeze: Freeze) -> Result<Done, ChangeError> {
        let (reply, answer) = oneshot::channel();
        let check = OwnerRequest::CheckFreeze(freeze.clone(), self.waiting_shells.facts(), reply);
        self.send(check).await.ok_or_else(ChangeError::not_running)?;
        answer.await.map_err(|_| ChangeError::not_running())??;
        self.with_waiting_shell(async |waiting| self.make(Change::Freeze(freeze, waiting), None).await).await
    }

    async fn make(&self, change: Change, turn: Option<RawTurn>) -> Result<Done, ChangeError> {
        let (reply, answer) = oneshot::channel();
        self.send(OwnerRequest::Change(change, turn, reply)).await.ok_or_else(ChangeError::not_running)?;
        answer.await.map_err(|_| ChangeError::not_running())?
    }

    /// Runs any command of QEMU's monitor for a client, with QEMU's own error. Waits for its turn.
    pub async fn client_qmp(&self, command: Command) -> Result<Value, CommandError> {
        let turn = self.raw_turns.next().await.ok_or(CommandError::Disconnected)?;
        self.raw(command, Some(turn)).await
    }

    /// Runs one of vmrun's own queries of QEMU, which waits for no client's turn.
    ///
    /// # Errors
    /// QEMU's own error; `Timeout` when QEMU hangs.
    pub(super) async fn qmp(&self, command: Command) -> Result<Value, CommandError> {
        let name = command.execute.clone();
        let answer = tokio::time::timeout(COMMAND_TIMEOUT, self.raw(command, None)).await;
        answer.unwrap_or(Err(CommandError::Timeout { command: name, after: COMMAND_TIMEOUT }))
    }

    /// Runs one command of `qapi`, with the answer in its type.
    pub(super) async fn query<C: QmpCommand>(&self, command: C) -> Result<C::Ok, CommandError> {
        let answer = self.qmp(Command::of(&command)).await?;
        decoded(C::NAME, answer)
    }

    /// Has the owner plug ports for a command's standard streams.
    pub(super) async fn open_streams(&self, streams: Vec<StandardStream>) -> Result<Ports, ChangeError> {
        let (reply, answer) = oneshot::channel();
        self.send(OwnerRequest::OpenStreams(streams, reply)).await.ok_or_else(ChangeError::not_running)?;
        answer.await.map_err(|_| ChangeError::not_running())?
    }

    /// Has the owner unplug them; requests that are sent after this find them unplugged.
    pub(super) async fn close_streams(&self, number: u64) {
        self.send(OwnerRequest::CloseStreams(number)).await;
    }

    /// None: the owner has ended.
    async fn send(&self, request: OwnerRequest) -> Option<()> {
        self.inbox.send(Queued { request, context: log_context::current() }).await.ok()
    }

    async fn raw(&self, command: Command, turn: Option<RawTurn>) -> Result<Value, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.send(OwnerRequest::Raw(command, turn, reply)).await.ok_or(CommandError::Disconnected)?;
        answer.await.unwrap_or(Err(CommandError::Disconnected))
    }

    /// Notes that the command that the VM was started for has ended, with this exit code: the VM's end is planned.
    pub async fn command_ended(&self, exit_code: u8) {
        self.send(OwnerRequest::CommandEnded(exit_code)).await;
    }

    /// Runs the shutdown ladder; returns when QEMU has ended.
    pub async fn shutdown(&self, options: ShutdownOptions) -> Result<Outcome, ChangeError> {
        // a VM that has just ended has an outcome to report
        self.send(OwnerRequest::Shutdown(options)).await;
        self.ended().await.ok_or_else(ChangeError::not_running)
    }

    /// How the VM ended, for a task that has just noticed that its owner or its QEMU has gone; `None` if it has not ended, for
    /// example when only QEMU's monitor is gone.
    pub async fn ended_soon(&self) -> Option<Outcome> {
        tokio::time::timeout(END_IS_NEAR, self.ended()).await.ok().flatten()
    }

    /// Whether it has ended, and its outcome is known.
    pub fn has_ended(&self) -> bool {
        self.outcome.borrow().is_some()
    }

    /// Its status when it ended; `None` before.
    pub fn last_status(&self) -> Option<Arc<Status>> {
        self.inbox.is_closed().then(|| self.cached_status.get()).flatten()
    }

    /// Waits for the VM's end; `None` if its supervisor went away without an outcome.
    pub async fn ended(&self) -> Option<Outcome> {
        let mut outcome = self.outcome.clone();
        outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone())
    }
}
