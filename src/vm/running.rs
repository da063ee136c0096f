//! A VM that runs: its owner put together with those who talk to it, and what is left to do when QEMU has ended.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::host::dirs::{RunDir, StateDir, remove_ephemeral, remove_socket};
use crate::qemu::Machine;
use crate::qmp::{EventReceiver, Session};
use crate::spec::{VmName, VmSpec};

use super::bus::{Bus, Pulse};
use super::console::Console;
use super::handle::{Ask, Handle, RawTurns};
use super::owner::{Owner, Parts};
use super::signals::Signals;
use crate::vm::guest::agent::AgentLink;
use crate::vm::launch::prepare::{Doors, Shares, remove_screen};
use crate::vm::launch::process::Process;
use crate::vm::state::facts::Facts;
use crate::vm::state::images::Images;
use crate::vm::state::inventory::Inventory;
use crate::vm::state::journal::Journal;
use crate::vm::state::opened::Files;
use crate::vm::state::outcome::Outcome;
use crate::vm::state::plugged::Plugged;
use crate::vm::state::record;
use crate::vm::state::run_state::RunState;
use crate::vm::state::status::Told;

/// The last outcome, in the state directory.
pub(super) const OUTCOME_FILE: &str = "outcome.json";

/// A VM that runs.
pub struct Running {
    /// To talk to it.
    pub handle: Handle,
    owner: Owner,
    outcome: watch::Sender<Option<Outcome>>,
    run: Arc<RunDir>,
    state: Arc<StateDir>,
    shares: Shares,
    user_qmp: Option<PathBuf>,
    control: Option<Doors>,
}

/// All that a running VM consists of, whether it was started or taken over.
pub(super) struct Whole {
    pub(super) spec: VmSpec,
    /// Where it is not the one that the description asks for.
    pub(super) machine: Option<Machine>,
    pub(super) facts: Facts,
    pub(super) inventory: Inventory,
    pub(super) session: Session,
    pub(super) events: EventReceiver,
    pub(super) agent: AgentLink,
    /// The guest has opened the agent's port already.
    pub(super) agent_open: bool,
    pub(super) console: Console,
    pub(super) images: Images,
    pub(super) process: Process,
    pub(super) inbox: mpsc::Sender<Ask>,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) signals: Signals,
    pub(super) started: Instant,
    pub(super) journal: Journal,
    pub(super) plugged: Plugged,
    pub(super) run: Arc<RunDir>,
    pub(super) state: Arc<StateDir>,
    pub(super) shares: Shares,
    pub(super) user_qmp: Option<PathBuf>,
    pub(super) control: Doors,
}

impl Running {
    /// Puts the owner together with those who talk to it.
    pub(super) fn assemble(whole: Whole) -> Self {
        let bus = Bus::default();
        let run_state = whole.inventory.run_state;
        let panicked = run_state == RunState::Panicked;
        let (pulse, beats) =
            watch::channel(Pulse { run_state, panicked, stopping: false, nothing_to_boot: None });
        let (outcome, ended) = watch::channel(None);
        let told = Told::default();
        let handle = Handle {
            inbox: whole.inbox,
            raw_turns: RawTurns::new(),
            outcome: ended,
            pulse: beats,
            told: told.clone(),
            agent: whole.agent.clone(),
            console: whole.console,
            bus: bus.clone(),
        };
        let mut owner = Owner::new(Parts {
            machine: whole.machine.unwrap_or_else(|| Machine::of(&whole.spec)),
            spec: whole.spec,
            facts: whole.facts,
            inventory: whole.inventory,
            session: whole.session,
            agent: whole.agent,
            images: whole.images,
            files: Files::of(whole.process.pid()),
            state: Arc::clone(&whole.state),
            bus,
            pulse,
            told,
            journal: whole.journal,
            plugged: whole.plugged,
            events: whole.events,
            process: whole.process,
            inbox: whole.asks,
            signals: whole.signals,
            started: whole.started,
        });
        if handle.console.check().is_ok() {
            owner.watch_boot(&handle.console.hub);
        }
        if panicked {
            owner.evidence.panicked();
        }
        crate::vm::changes::taken::follow_all(&mut owner);
        if whole.agent_open {
            super::events::agent_port(&mut owner, true);
        }
        Self {
            handle,
            owner,
            outcome,
            run: whole.run,
            state: whole.state,
            shares: whole.shares,
            user_qmp: whole.user_qmp,
            control: Some(whole.control),
        }
    }

    /// Budget of the ladder on a signal.
    pub fn stop_timeout(&self) -> Duration {
        Duration::from_millis(self.owner.facts.stop_timeout_ms)
    }

    /// The VM's name.
    pub fn name(&self) -> &VmName {
        self.run.name()
    }

    /// The sockets for clients, which listen since before QEMU was started; they can be taken once.
    pub fn take_doors(&mut self) -> std::io::Result<Doors> {
        self.control.take().ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    /// Owns the VM until QEMU has ended, cleans up, and only then tells the outcome to all who wait for it.
    pub async fn run(self) -> Outcome {
        let Self { handle, owner, outcome, run, state, mut shares, user_qmp, .. } = self;
        let (spec, facts) = (Arc::clone(&owner.spec), Arc::clone(&owner.facts));
        let ephemeral = facts.ephemeral;
        let started = owner.started;
        let end = owner.run().await;
        let ran = started.elapsed();
        handle.console.finish().await;
        log::info!("{end}");
        shares.end();
        remove_screen(&spec.display);
        state.remove_pid();
        if let Some(path) = user_qmp {
            remove_socket(&path);
        }
        let written = serde_json::to_vec_pretty(&end).map_err(std::io::Error::other);
        if let Err(error) = written.and_then(|text| state.write(OUTCOME_FILE, &text)) {
            log::warn!("the outcome could not be written down: {error}");
        }
        record::write(&spec, &facts, &end, Some(ran), &handle.console.recent());
        if ephemeral {
            remove_ephemeral(&state);
        }
        // whoever hears of the outcome can start the next VM; clients may read the console's log until they leave
        if let Err(error) = state.release() {
            log::warn!("the state directory could not be released: {error}");
        }
        drop(state);
        // the owner, which had the other handle, is gone
        if let Some(run) = Arc::into_inner(run) {
            run.discard();
        }
        outcome.send_replace(Some(end.clone()));
        end
    }
}
