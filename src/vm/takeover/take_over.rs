//! The last step of every takeover: from the answers of QEMU to a running supervisor.

use std::sync::Arc;

use tokio::time::Instant;

use crate::host::dirs::StoreEnvironment;
use crate::host::raw_images::RawImages;
use crate::host::usage;

use crate::vm::console::Console;
use crate::vm::look::Seen;
use crate::vm::parts::{Assembly, Devices, Home, Qemu};
use crate::vm::process::shares::Shares;
use crate::vm::running::Running;
use crate::vm::signals::Signals;
use crate::vm::state::facts::Facts;
use crate::vm::state::images::Images;
use crate::vm::state::journal::{Journal, Pending};
use crate::vm::state::open_files::OpenFiles;
use crate::vm::state::origin::Description;
use crate::vm::state::plugged::{Plugged, fill_options};

/// The parts of a VM that is taken over.
pub(super) struct TakeOver {
    pub(super) description: Description,
    pub(super) qemu: Qemu,
    pub(super) home: Home,
    pub(super) console: Console,
    pub(super) signals: Signals,
    /// What QEMU has, after unfinished changes were handled.
    pub(super) seen: Seen,
    /// The unfinished changes.
    pub(super) pending: Pending,
}

impl TakeOver {
    /// Updates inventory and journal, and assembles the VM.
    pub(super) fn into_running(self) -> Running {
        let Self { description, qemu, home, console, signals, seen, pending } = self;
        let (run, facts) = (&home.run, &description.facts);
        let journal = finished_journal(Journal::new(Arc::clone(run), pending.clone()), &pending, &seen);
        let images = Images::new(
            Arc::clone(&home.state),
            !facts.ephemeral,
            run.path(),
            RawImages::new(StoreEnvironment::from_env()),
        );
        let Seen { machine, mut inventory, .. } = seen;
        images.saw(&inventory, &OpenFiles::of(facts.qemu_pid));
        let plugged = Plugged::read(Arc::clone(run));
        fill_options(&mut inventory, &machine, description.origin.spec(), plugged.record());
        Running::assemble(Assembly {
            description,
            qemu,
            home,
            devices: Devices { machine, inventory, journal, plugged, images },
            console,
            signals,
            // the helpers ended with the supervisor that had started them
            shares: Shares::default(),
            // its ports went with the supervisor that had their sockets
            waiting_shell: None,
        })
    }
}

/// When QEMU was started, by its age in the kernel: a clock that was set since does not matter.
pub(super) fn started(facts: &Facts) -> Instant {
    let age = usage::age("/proc".as_ref(), facts.qemu_start_time).unwrap_or_default();
    Instant::now().checked_sub(age).unwrap_or_else(Instant::now)
}

/// Updates the journal: additions are finished or rolled back, a job has ended; removals continue until the guest has answered.
fn finished_journal(mut journal: Journal, pending: &Pending, seen: &Seen) -> Journal {
    let is_gone = |id: &&String| seen.inventory.device(id).is_none();
    for id in pending.adding.keys().chain(pending.removing.iter().filter(is_gone)) {
        journal.finished(id);
    }
    for id in pending.cards.keys().filter(is_gone) {
        journal.card_gone(id);
    }
    let media = seen.media();
    for node in pending.images.keys().filter(|node| is_gone(node) && !media.contains(*node)) {
        journal.closed(node);
    }
    journal.job_ended();
    journal
}
