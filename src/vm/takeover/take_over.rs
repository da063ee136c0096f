//! The end of every take-over: QEMU has been asked for what it has, and gets its new supervisor.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::host::dirs::{RunDir, StateDir, StoreEnvironment};
use crate::host::raw_images::RawImages;
use crate::host::usage;
use crate::qemu::Machine;
use crate::qmp::{EventReceiver, Session};

use super::adopt::VmFile;
use crate::vm::console::Console;
use crate::vm::guest::agent::AgentLink;
use crate::vm::handle::INBOX_LENGTH;
use crate::vm::launch::prepare::{Doors, Shares};
use crate::vm::launch::process::Process;
use crate::vm::running::{Running, Whole};
use crate::vm::signals::Signals;
use crate::vm::state::facts::Facts;
use crate::vm::state::images::Images;
use crate::vm::state::inventory::{Inventory, Kind};
use crate::vm::state::journal::{Journal, Pending};
use crate::vm::state::open_files::OpenFiles;
use crate::vm::state::plugged::{Plugged, fill_options};

/// What there is of a VM that is taken over; see the fields of the same names of [`Whole`].
pub(in crate::vm) struct TakeOver {
    pub(in crate::vm) run: Arc<RunDir>,
    pub(in crate::vm) control: Doors,
    pub(in crate::vm) file: VmFile,
    pub(in crate::vm) process: Process,
    pub(in crate::vm) signals: Signals,
    pub(in crate::vm) state: Arc<StateDir>,
    pub(in crate::vm) session: Session,
    pub(in crate::vm) events: EventReceiver,
    pub(in crate::vm) machine: Option<Machine>,
    /// What QEMU has, after what was half-done has been looked at.
    pub(in crate::vm) inventory: Inventory,
    /// What was half-done.
    pub(in crate::vm) pending: Pending,
    pub(in crate::vm) agent: AgentLink,
    pub(in crate::vm) agent_open: bool,
    pub(in crate::vm) console: Console,
}

impl TakeOver {
    /// Puts the books in order, and the VM together.
    pub(in crate::vm) fn into_running(self) -> Running {
        let Self {
            run,
            control,
            file,
            process,
            signals,
            state,
            session,
            events,
            machine,
            inventory,
            pending,
            agent,
            agent_open,
            console,
        } = self;
        let mut inventory = inventory;
        let VmFile { spec, facts, user_qmp, .. } = file;
        let journal = settled(Journal::new(Arc::clone(&run), pending.clone()), &pending, &inventory);
        let images = Images::new(
            Arc::clone(&state),
            !facts.ephemeral,
            run.path(),
            RawImages::new(StoreEnvironment::from_env()),
        );
        images.saw(&inventory, &OpenFiles::of(facts.qemu_pid));
        let plugged = Plugged::read(Arc::clone(&run));
        let kind = machine.clone().unwrap_or_else(|| Machine::of(&spec));
        fill_options(&mut inventory, &kind, Some(&spec), plugged.record());
        let (inbox, asks) = mpsc::channel(INBOX_LENGTH);
        Running::assemble(Whole {
            images,
            started: started(&facts),
            plugged,
            // they ended with the supervisor that had started them
            shares: Shares::default(),
            spec,
            machine,
            facts,
            inventory,
            session,
            events,
            agent,
            agent_open,
            console,
            process,
            inbox,
            asks,
            signals,
            journal,
            run,
            state,
            user_qmp,
            control,
        })
    }
}

/// When QEMU was started, as the kernel remembers it: a clock that was set since then does not matter.
fn started(facts: &Facts) -> Instant {
    let age = usage::age("/proc".as_ref(), facts.qemu_start_time).unwrap_or_default();
    Instant::now().checked_sub(age).unwrap_or_else(Instant::now)
}

/// What was being added is there or was taken back, and a job has ended; removals go on until the guest has answered.
fn settled(mut journal: Journal, pending: &Pending, inventory: &Inventory) -> Journal {
    let is_gone = |id: &&String| inventory.device(id).is_none();
    for id in pending.adding.keys().chain(pending.removing.iter().filter(is_gone)) {
        journal.settled(id);
    }
    for id in pending.cards.keys().filter(is_gone) {
        journal.card_gone(id);
    }
    let media: Vec<&str> = inventory
        .devices()
        .filter_map(|entry| match &entry.kind {
            Kind::Disk(facts) => facts.node.as_deref(),
            _ => None,
        })
        .collect();
    for node in pending.images.keys().filter(|node| is_gone(node) && !media.contains(&node.as_str())) {
        journal.closed(node);
    }
    journal.job_ended();
    journal
}
