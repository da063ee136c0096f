//! The ladder of a graceful shutdown: ask, ask again, quit, kill. The time is a parameter; nothing here does I/O.
//!
//! ```text
//! agent ──⅓ of the budget──► acpi ──½ of the rest──► acpi again ──the rest──► quit ──5 s──► kill
//! ```
//! Each step ends at once when QEMU ends.

use std::time::Duration;

use tokio::time::Instant;

use super::handle::ShutdownOptions;

/// How long QEMU may take to quit: it flushes its disks first.
const QUIT_GRACE: Duration = Duration::from_secs(5);

/// One step of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ShutdownStep {
    /// `guest-shutdown` of the guest agent.
    Agent,
    /// The power button.
    Acpi,
    /// The power button once more, for guests that were not ready for the first one.
    AcpiAgain,
    /// QMP `quit`.
    Quit,
    /// SIGKILL.
    Kill,
}

impl ShutdownStep {
    /// The name in events.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Acpi => "acpi",
            Self::AcpiAgain => "acpi_again",
            Self::Quit => "quit",
            Self::Kill => "kill",
        }
    }

    /// The description for the log.
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
    step: ShutdownStep,
    no_repeat: bool,
    /// The machine has a power button.
    button: bool,
    /// When the budget of the steps that ask the guest ends.
    deadline: Instant,
    /// When the next step is due; `None` on the last one.
    next: Option<Instant>,
}

impl Ladder {
    /// Takes the first step. `agent`: the guest agent has answered before; `button`: the machine has a power button. A guest that
    /// can be asked in neither way gets no time: QEMU quits at once.
    pub(super) fn start(options: ShutdownOptions, agent: bool, button: bool, now: Instant) -> Self {
        let step = match (options.force, agent, button) {
            (false, true, _) => ShutdownStep::Agent,
            (false, false, true) => ShutdownStep::Acpi,
            (true, ..) | (false, false, false) => ShutdownStep::Quit,
        };
        let deadline = now + options.timeout;
        let mut ladder = Self { step, no_repeat: options.no_repeat, button, deadline, next: None };
        ladder.enter(step, now);
        ladder
    }

    /// The current step.
    pub(super) fn step(&self) -> ShutdownStep {
        self.step
    }

    /// When to call [`Self::advance`].
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Goes to the next step.
    pub(super) fn advance(&mut self, now: Instant) -> ShutdownStep {
        let up = match self.step {
            ShutdownStep::Agent if self.button => ShutdownStep::Acpi,
            ShutdownStep::Agent => ShutdownStep::Quit,
            ShutdownStep::Acpi if !self.no_repeat && now < self.deadline => ShutdownStep::AcpiAgain,
            ShutdownStep::Acpi | ShutdownStep::AcpiAgain => ShutdownStep::Quit,
            ShutdownStep::Quit | ShutdownStep::Kill => ShutdownStep::Kill,
        };
        self.enter(up, now);
        up
    }

    /// Goes to this step unless it is there or further; returns whether it moved.
    pub(super) fn jump(&mut self, step: ShutdownStep, now: Instant) -> bool {
        let up = step > self.step;
        if up {
            self.enter(step, now);
        }
        up
    }

    /// Limits the budget to `budget` from now on, if that is shorter; the current step is not repeated.
    pub(super) fn end_within(&mut self, budget: Duration, now: Instant) {
        let deadline = now + budget;
        if deadline < self.deadline && self.step < ShutdownStep::Quit {
            self.deadline = deadline;
            self.enter(self.step, now);
        }
    }

    fn enter(&mut self, step: ShutdownStep, now: Instant) {
        self.step = step;
        let left = self.deadline.saturating_duration_since(now);
        self.next = match step {
            ShutdownStep::Agent if self.button => Some(now + left / 3),
            ShutdownStep::Agent => Some(self.deadline),
            ShutdownStep::Acpi if self.no_repeat => Some(self.deadline),
            ShutdownStep::Acpi => Some(now + left / 2),
            ShutdownStep::AcpiAgain => Some(self.deadline),
            ShutdownStep::Quit => Some(now + QUIT_GRACE),
            ShutdownStep::Kill => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(seconds: u64) -> ShutdownOptions {
        ShutdownOptions { timeout: Duration::from_secs(seconds), force: false, no_repeat: false }
    }

    fn all_steps(mut ladder: Ladder, start: Instant) -> Vec<(ShutdownStep, u64)> {
        let mut steps = vec![(ladder.step(), 0)];
        while let Some(next) = ladder.next() {
            let step = ladder.advance(next);
            steps.push((step, next.duration_since(start).as_secs()));
        }
        steps
    }

    #[test]
    fn the_budget_is_shared_out() {
        let now = Instant::now();
        assert_eq!(
            all_steps(Ladder::start(options(30), true, true, now), now),
            [
                (ShutdownStep::Agent, 0),
                (ShutdownStep::Acpi, 10),
                (ShutdownStep::AcpiAgain, 20),
                (ShutdownStep::Quit, 30),
                (ShutdownStep::Kill, 35)
            ]
        );
        assert_eq!(
            all_steps(Ladder::start(options(30), false, true, now), now),
            [
                (ShutdownStep::Acpi, 0),
                (ShutdownStep::AcpiAgain, 15),
                (ShutdownStep::Quit, 30),
                (ShutdownStep::Kill, 35)
            ]
        );
    }

    #[test]
    fn a_machine_without_a_button_has_none_pressed() {
        let now = Instant::now();
        assert_eq!(
            all_steps(Ladder::start(options(30), true, false, now), now),
            [(ShutdownStep::Agent, 0), (ShutdownStep::Quit, 30), (ShutdownStep::Kill, 35)]
        );
        assert_eq!(
            all_steps(Ladder::start(options(30), false, false, now), now),
            [(ShutdownStep::Quit, 0), (ShutdownStep::Kill, 5)]
        );
    }

    #[test]
    fn asking_can_be_left_out_or_done_once() {
        let now = Instant::now();
        let force = ShutdownOptions { force: true, ..options(30) };
        assert_eq!(
            all_steps(Ladder::start(force, true, true, now), now),
            [(ShutdownStep::Quit, 0), (ShutdownStep::Kill, 5)]
        );
        let once = ShutdownOptions { no_repeat: true, ..options(30) };
        assert_eq!(
            all_steps(Ladder::start(once, false, true, now), now),
            [(ShutdownStep::Acpi, 0), (ShutdownStep::Quit, 30), (ShutdownStep::Kill, 35)]
        );
    }

    #[test]
    fn the_asking_can_be_shortened_but_not_made_longer() {
        let now = Instant::now();
        let mut ladder = Ladder::start(options(3600), false, true, now);
        ladder.end_within(Duration::from_secs(30), now);
        ladder.end_within(Duration::from_secs(60), now);
        assert_eq!(
            all_steps(ladder, now),
            [
                (ShutdownStep::Acpi, 0),
                (ShutdownStep::AcpiAgain, 15),
                (ShutdownStep::Quit, 30),
                (ShutdownStep::Kill, 35)
            ]
        );
        let mut ladder = Ladder::start(options(3600), false, true, now);
        ladder.jump(ShutdownStep::Quit, now);
        ladder.end_within(Duration::ZERO, now);
        assert_eq!(all_steps(ladder, now), [(ShutdownStep::Quit, 0), (ShutdownStep::Kill, 5)]);
    }

    #[test]
    fn a_jump_never_goes_down() {
        let now = Instant::now();
        let mut ladder = Ladder::start(options(30), false, true, now);
        assert!(ladder.jump(ShutdownStep::Quit, now));
        assert!(!ladder.jump(ShutdownStep::Quit, now));
        assert!(ladder.jump(ShutdownStep::Kill, now));
        assert_eq!(ladder.next(), None);
    }
}
