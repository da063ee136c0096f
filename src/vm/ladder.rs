//! The ladder of a graceful shutdown: ask, ask again, quit, kill. Time comes in from outside; nothing here does I/O.
//!
//! ```text
//! agent ──⅓ of the budget──► acpi ──½ of the rest──► acpi again ──the rest──► quit ──5 s──► kill
//! ```
//! Each rung ends at once when QEMU ends.

use std::time::Duration;

use tokio::time::Instant;

use super::handle::ShutdownOptions;

/// How long QEMU may take to quit: it flushes its disks first.
const QUIT_GRACE: Duration = Duration::from_secs(5);

/// One step of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rung {
    /// `guest-shutdown` of the guest agent.
    Agent,
    /// The power button.
    Acpi,
    /// The power button once more, for guests that were not listening yet.
    AcpiAgain,
    /// QMP `quit`.
    Quit,
    /// SIGKILL.
    Kill,
}

impl Rung {
    /// For programs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Acpi => "acpi",
            Self::AcpiAgain => "acpi_again",
            Self::Quit => "quit",
            Self::Kill => "kill",
        }
    }

    /// For the log.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Agent => "asking the guest through its agent",
            Self::Acpi => "pressing the power button",
            Self::AcpiAgain => "pressing the power button again",
            Self::Quit => "telling QEMU to quit",
            Self::Kill => "killing QEMU",
        }
    }
}

/// A shutdown that is under way.
#[derive(Debug)]
pub(super) struct Ladder {
    rung: Rung,
    no_repeat: bool,
    /// The machine has a power button.
    button: bool,
    /// When the asking ends.
    deadline: Instant,
    /// When the next rung is due; none on the last one.
    next: Option<Instant>,
}

impl Ladder {
    /// Steps on the first rung. `agent`: the guest agent has answered before; `button`: the machine has a power button. Who can be asked
    /// in no way is told to quit at once.
    pub(super) fn start(options: ShutdownOptions, agent: bool, button: bool, now: Instant) -> Self {
        let rung = match (options.force, agent, button) {
            (false, true, _) => Rung::Agent,
            (false, false, true) => Rung::Acpi,
            (true, ..) | (false, false, false) => Rung::Quit,
        };
        let deadline = now + options.timeout;
        let mut ladder = Self { rung, no_repeat: options.no_repeat, button, deadline, next: None };
        ladder.step_on(rung, now);
        ladder
    }

    /// The rung it stands on.
    pub(super) fn rung(&self) -> Rung {
        self.rung
    }

    /// When to call [`Self::climb`].
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Goes one rung up.
    pub(super) fn climb(&mut self, now: Instant) -> Rung {
        let up = match self.rung {
            Rung::Agent if self.button => Rung::Acpi,
            Rung::Agent => Rung::Quit,
            Rung::Acpi if !self.no_repeat && now < self.deadline => Rung::AcpiAgain,
            Rung::Acpi | Rung::AcpiAgain => Rung::Quit,
            Rung::Quit | Rung::Kill => Rung::Kill,
        };
        self.step_on(up, now);
        up
    }

    /// Goes up to at least this rung; tells whether that was a move.
    pub(super) fn jump(&mut self, rung: Rung, now: Instant) -> bool {
        let up = rung > self.rung;
        if up {
            self.step_on(rung, now);
        }
        up
    }

    /// Asks no longer than `budget` from now on, if that is sooner; the step that it stands on is not taken again.
    pub(super) fn end_within(&mut self, budget: Duration, now: Instant) {
        let deadline = now + budget;
        if deadline < self.deadline && self.rung < Rung::Quit {
            self.deadline = deadline;
            self.step_on(self.rung, now);
        }
    }

    fn step_on(&mut self, rung: Rung, now: Instant) {
        self.rung = rung;
        let left = self.deadline.saturating_duration_since(now);
        self.next = match rung {
            Rung::Agent if self.button => Some(now + left / 3),
            Rung::Agent => Some(self.deadline),
            Rung::Acpi if self.no_repeat => Some(self.deadline),
            Rung::Acpi => Some(now + left / 2),
            Rung::AcpiAgain => Some(self.deadline),
            Rung::Quit => Some(now + QUIT_GRACE),
            Rung::Kill => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(seconds: u64) -> ShutdownOptions {
        ShutdownOptions { timeout: Duration::from_secs(seconds), force: false, no_repeat: false }
    }

    fn climb_all(mut ladder: Ladder, start: Instant) -> Vec<(Rung, u64)> {
        let mut rungs = vec![(ladder.rung(), 0)];
        while let Some(next) = ladder.next() {
            let rung = ladder.climb(next);
            rungs.push((rung, next.duration_since(start).as_secs()));
        }
        rungs
    }

    #[test]
    fn the_budget_is_shared_out() {
        let now = Instant::now();
        assert_eq!(
            climb_all(Ladder::start(options(30), true, true, now), now),
            [(Rung::Agent, 0), (Rung::Acpi, 10), (Rung::AcpiAgain, 20), (Rung::Quit, 30), (Rung::Kill, 35)]
        );
        assert_eq!(
            climb_all(Ladder::start(options(30), false, true, now), now),
            [(Rung::Acpi, 0), (Rung::AcpiAgain, 15), (Rung::Quit, 30), (Rung::Kill, 35)]
        );
    }

    #[test]
    fn a_machine_without_a_button_has_none_pressed() {
        let now = Instant::now();
        assert_eq!(
            climb_all(Ladder::start(options(30), true, false, now), now),
            [(Rung::Agent, 0), (Rung::Quit, 30), (Rung::Kill, 35)]
        );
        assert_eq!(
            climb_all(Ladder::start(options(30), false, false, now), now),
            [(Rung::Quit, 0), (Rung::Kill, 5)]
        );
    }

    #[test]
    fn asking_can_be_left_out_or_done_once() {
        let now = Instant::now();
        let force = ShutdownOptions { force: true, ..options(30) };
        assert_eq!(climb_all(Ladder::start(force, true, true, now), now), [(Rung::Quit, 0), (Rung::Kill, 5)]);
        let once = ShutdownOptions { no_repeat: true, ..options(30) };
        assert_eq!(
            climb_all(Ladder::start(once, false, true, now), now),
            [(Rung::Acpi, 0), (Rung::Quit, 30), (Rung::Kill, 35)]
        );
    }

    #[test]
    fn the_asking_can_be_shortened_but_not_made_longer() {
        let now = Instant::now();
        let mut ladder = Ladder::start(options(3600), false, true, now);
        ladder.end_within(Duration::from_secs(30), now);
        ladder.end_within(Duration::from_secs(60), now);
        assert_eq!(
            climb_all(ladder, now),
            [(Rung::Acpi, 0), (Rung::AcpiAgain, 15), (Rung::Quit, 30), (Rung::Kill, 35)]
        );
        let mut ladder = Ladder::start(options(3600), false, true, now);
        ladder.jump(Rung::Quit, now);
        ladder.end_within(Duration::ZERO, now);
        assert_eq!(climb_all(ladder, now), [(Rung::Quit, 0), (Rung::Kill, 5)]);
    }

    #[test]
    fn a_jump_never_goes_down() {
        let now = Instant::now();
        let mut ladder = Ladder::start(options(30), false, true, now);
        assert!(ladder.jump(Rung::Quit, now));
        assert!(!ladder.jump(Rung::Quit, now));
        assert!(ladder.jump(Rung::Kill, now));
        assert_eq!(ladder.next(), None);
    }
}
