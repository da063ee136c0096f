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
use super::agent::AgentLink;
use super::console::Console;
use super::facts::Facts;
use super::handle::INBOX_LENGTH;
use super::images::Images;
use super::inventory::{Inventory, Kind};
use super::journal::{Journal, Pending};
use super::open_files::OpenFiles;
use super::plugged::Plugged;
use super::prepare::{Doors, Shares};
use super::process::Process;
use super::running::{Running, Whole};
use super::signals::Signals;

/// What there is of a VM that is taken over; see the fields of the same names of [`Whole`].
pub(super) struct TakeOver {
    pub(super) run: Arc<RunDir>,
    pub(super) control: Doors,
    pub(super) file: VmFile,
    pub(super) process: Process,
    pub(super) signals: Signals,
    pub(super) state: Arc<StateDir>,
    pub(super) session: Session,
    pub(super) events: EventReceiver,
    pub(super) machine: Option<Machine>,
    /// What QEMU has, after what was half-done has been looked at.
    pub(super) inventory: Inventory,
    /// What was half-done.
    pub(super) pending: Pending,
    pub(super) agent: AgentLink,
    pub(super) agent_open: bool,
    pub(super) console: Console,
}

impl TakeOver {
    /// Puts the books in order, and the VM together.
    pub(super) fn into_running(self) -> Running {
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
        let VmFile { spec, facts, user_qmp, .. } = file;
        let journal = settled(Journal::new(Arc::clone(&run), pending.clone()), &pending, &inventory);
        let images = Images::new(
            Arc::clone(&state),
            !facts.ephemeral,
            run.path(),
            RawImages::new(StoreEnvironment::from_env()),
        );
        images.saw(&inventory, &OpenFiles::of(facts.qemu_pid));
        let (inbox, asks) = mpsc::channel(INBOX_LENGTH);
        Running::assemble(Whole {
            images,
            started: started(&facts),
            plugged: Plugged::read(Arc::clone(&run)),
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
