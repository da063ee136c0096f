//! A running VM: assembles the owner with its handles, and cleans up after QEMU has ended.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::host::dirs::{remove_ephemeral, remove_socket};
use crate::spec::VmName;

use super::bus::{Bus, WatchedState};
use super::handle::{Handle, INBOX_LENGTH, RawTurns};
use super::owner::{Owner, OwnerParts};
use super::parts::{Assembly, Home};
use crate::vm::console::From;
use crate::vm::guest::inputs::Inputs;
use crate::vm::guest::waiting_shell::WaitingShells;
use crate::vm::process::shares::Shares;
use crate::vm::process::sockets::{ControlSockets, remove_screen};
use crate::vm::state::opened::Files;
use crate::vm::state::outcome::{OUTCOME_FILE, Outcome};
use crate::vm::state::record;
use crate::vm::state::run_state::RunState;
use crate::vm::state::status::CachedStatus;
use crate::vm::state::templates::forget_templates;

/// A running VM.
pub struct Running {
    /// The interface to it.
    pub handle: Handle,
    owner: Owner,
    outcome: watch::Sender<Option<Outcome>>,
    home: Home,
    shares: Shares,
}

impl Running {
    /// Assembles the owner and its handles.
    pub(super) fn assemble(assembly: Assembly) -> Self {
        let Assembly { description, qemu, home, devices, console, signals, shares, waiting_shell } = assembly;
        let (inbox, asks) = mpsc::channel(INBOX_LENGTH);
        let bus = Bus::default();
        let run_state = devices.inventory.run_state;
        let panicked = run_state == RunState::Panicked;
        let (watched, watched_receiver) = watch::channel(WatchedState {
            run_state,
            panicked,
            stopping: false,
            nothing_to_boot: None,
            console_panic: false,
            guest_resets: 0,
        });
        let (outcome, ended) = watch::channel(None);
        let cached_status = CachedStatus::default();
        let handle = Handle {
            inbox,
            raw_turns: RawTurns::new(),
            outcome: ended,
            watched: watched_receiver,
            cached_status: cached_status.clone(),
            agent: qemu.agent.clone(),
            waiting_shells: WaitingShells::default(),
            inputs: Inputs::default(),
            console,
            bus: bus.clone(),
        };
        let (files, agent_open) = (Files::of(qemu.process.pid()), qemu.agent_open);
        let state = Arc::clone(&home.state);
        let mut owner = Owner::new(OwnerParts {
            description,
            qemu,
            devices,
            files,
            state,
            bus,
            watched,
            cached_status,
            inbox: asks,
            signals,
        });
        if handle.console.check().is_ok() {
            owner.watch_boot(&handle.console.hub);
        }
        if let Some(shell) = waiting_shell {
            crate::vm::changes::streams::take_in(&mut owner, shell.facts());
            handle.waiting_shells.put(shell, &handle.bus);
        }
        if panicked {
            owner.evidence.panicked();
        }
        crate::vm::changes::taken::follow_all(&mut owner);
        if agent_open {
            super::events::agent_port(&mut owner, true);
        }
        Self { handle, owner, outcome, home, shares }
    }

    /// Budget of the shutdown ladder on a signal.
    pub fn stop_timeout(&self) -> Duration {
        Duration::from_millis(self.owner.facts.stop_timeout_ms)
    }

    /// The VM's name.
    pub fn name(&self) -> &VmName {
        self.home.run.name()
    }

    /// The sockets for clients, which accept connections since before QEMU was started; they can be taken once.
    pub fn take_control_sockets(&mut self) -> std::io::Result<ControlSockets> {
        self.home.control.take().ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    /// Runs the owner until QEMU has ended, cleans up, and then publishes the outcome.
    pub async fn run(self) -> Outcome {
        let Self { handle, owner, outcome, home, mut shares } = self;
        // the server that has taken the sockets serves clients
        let Home { run, state, user_qmp, control: _ } = home;
        let (origin, facts) = (Arc::clone(&owner.origin), Arc::clone(&owner.facts));
        let ephemeral = facts.ephemeral;
        let started = owner.started;
        let end = owner.run().await;
        let ran = started.elapsed();
        handle.console.finish().await;
        log::info!("{end}");
        shares.end();
        if let Some(spec) = origin.spec() {
            remove_screen(&spec.display);
        }
        state.remove_pid();
        if let Some(path) = user_qmp {
            remove_socket(&path);
        }
        let written = serde_json::to_vec_pretty(&end).map_err(std::io::Error::other);
        if let Err(error) = written.and_then(|text| state.write(OUTCOME_FILE, &text)) {
            log::warn!("the outcome could not be written down: {error}");
        }
        record::write(&origin, &facts, &end, Some(ran), &handle.console.recent());
        if let Some(folder) = &facts.keep_logs {
            let mut reader = handle.console.hub.reader(From::Start);
            let console = std::iter::from_fn(|| reader.try_next().map(|chunk| chunk.bytes));
            record::keep_logs(folder, origin.name(), console, &end);
        }
        if ephemeral {
            remove_ephemeral(&state);
        }
        forget_templates(&origin, &facts);
        // a client that gets the outcome can start the next VM; clients may read the console's log until they close
        if let Err(error) = state.release() {
            log::warn!("the state directory could not be released: {error}");
        }
        drop(state);
        // the owner, which had the other handle, is gone
        if let Some(run) = Arc::into_inner(run) {
            run.discard();
        }
        // before the end itself: the event streams end with that
        handle.bus.publish("VMRUN_OUTCOME", json!(end));
        outcome.send_replace(Some(end.clone()));
        end
    }
}
