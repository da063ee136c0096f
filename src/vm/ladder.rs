//! The ladder of a graceful shutdown: ask, ask again, quit, kill. The time is a parameter; nothing here does I/O.
//!
//! ```text
//! agent ──⅓ of the budget──► acpi ──½ of the rest──► acpi again ──the rest──► quit ──5 s──► kill
//! ```
//! Each step ends at once when QEMU ends.
//!
//! A guest that boots misses what comes before it listens. So for its first [`BOOT`] the button is pressed again every
//! [`WHILE_BOOTING`], and an agent that answers only now is asked at once ([`Ladder::agent_answers`]).

use std::time::Duration;

use tokio::time::Instant;

use super::handle::ShutdownOptions;

/// For how long after its start or reset a guest may not listen to the button yet.
const BOOT: Duration = Duration::from_secs(30);
/// How often the button is pressed in that time.
const WHILE_BOOTING: Duration = Duration::from_secs(2);
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
    due: Option<Instant>,
    /// Until when the guest may be booting.
    booted: Instant,
    /// When the button is pressed again within this step, as the guest may be booting.
    press: Option<Instant>,
    /// The agent was asked since the guest's start or reset.
    agent_asked: bool,
}

/// How a guest can be asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ways {
    /// The guest agent has answered before.
    pub(super) agent: bool,
    /// The machine has a power button.
    pub(super) button: bool,
}

impl Ladder {
    /// Takes the first step. `began`: the guest's start, or its last reset. A guest that can be asked in no way gets no time: QEMU
    /// quits at once.
    pub(super) fn start(options: ShutdownOptions, ways: Ways, began: Instant, now: Instant) -> Self {
        let Ways { agent, button } = ways;
        let step = match (options.force, agent, button) {
            (false, true, _) => ShutdownStep::Agent,
            (false, false, true) => ShutdownStep::Acpi,
            (true, ..) | (false, false, false) => ShutdownStep::Quit,
        };
        let deadline = now + options.timeout;
        let mut ladder = Self {
            step,
            no_repeat: options.no_repeat,
            button,
            deadline,
            due: None,
            // an agent that has answered shows that its guest has booted
            booted: if agent { began } else { began + BOOT },
            press: None,
            agent_asked: agent,
        };
        ladder.enter(step, now);
        ladder
    }

    /// The current step.
    pub(super) fn step(&self) -> ShutdownStep {
        self.step
    }

    /// When to call [`Self::advance`].
    pub(super) fn next(&self) -> Option<Instant> {
        [self.due, self.press].into_iter().flatten().min()
    }

    /// Goes to the next step, or presses the button once more within this one; returns what is to be done.
    pub(super) fn advance(&mut self, now: Instant) -> ShutdownStep {
        if self.press.is_some() && self.due.is_none_or(|due| now < due) {
            self.plan_press(now);
            return ShutdownStep::AcpiAgain;
        }
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

    /// The agent answers: it is asked at once if it could not be asked before; returns whether it is to be asked. The steps that are
    /// left stay, for an agent that does nothing.
    pub(super) fn agent_answers(&mut self) -> bool {
        let asks = self.step < ShutdownStep::Quit && !self.agent_asked;
        if asks {
            self.agent_asked = true;
            self.press = None;
        }
        asks
    }

    /// The guest was reset and boots anew: what it was asked before is lost.
    pub(super) fn guest_restarted(&mut self, now: Instant) {
        self.agent_asked = false;
        self.booted = now + BOOT;
        self.plan_press(now);
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
        self.plan_press(now);
        self.due = match step {
            ShutdownStep::Agent if self.button => Some(now + left / 3),
            ShutdownStep::Agent => Some(self.deadline),
            ShutdownStep::Acpi if self.no_repeat => Some(self.deadline),
            ShutdownStep::Acpi => Some(now + left / 2),
            ShutdownStep::AcpiAgain => Some(self.deadline),
            ShutdownStep::Quit => Some(now + QUIT_GRACE),
            ShutdownStep::Kill => None,
        };
    }

    fn plan_press(&mut self, now: Instant) {
        let asks = matches!(self.step, ShutdownStep::Acpi | ShutdownStep::AcpiAgain) && !self.no_repeat;
        let next = now + WHILE_BOOTING;
        self.press = (asks && next <= self.booted).then_some(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(seconds: u64) -> ShutdownOptions {
        ShutdownOptions { timeout: Duration::from_secs(seconds), force: false, no_repeat: false }
    }

    /// A ladder for a guest that has booted long ago.
    fn start(options: ShutdownOptions, agent: bool, button: bool, now: Instant) -> Ladder {
        Ladder::start(options, Ways { agent, button }, now.checked_sub(BOOT).unwrap(), now)
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
            all_steps(start(options(30), true, true, now), now),
            [
                (ShutdownStep::Agent, 0),
                (ShutdownStep::Acpi, 10),
                (ShutdownStep::AcpiAgain, 20),
                (ShutdownStep::Quit, 30),
                (ShutdownStep::Kill, 35)
            ]
        );
        assert_eq!(
            all_steps(start(options(30), false, true, now), now),
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
            all_steps(start(options(30), true, false, now), now),
            [(ShutdownStep::Agent, 0), (ShutdownStep::Quit, 30), (ShutdownStep::Kill, 35)]
        );
        assert_eq!(
            all_steps(start(options(30), false, false, now), now),
            [(ShutdownStep::Quit, 0), (ShutdownStep::Kill, 5)]
        );
    }

    #[test]
    fn asking_can_be_left_out_or_done_once() {
        let now = Instant::now();
        let force = ShutdownOptions { force: true, ..options(30) };
        assert_eq!(
            all_steps(start(force, true, true, now), now),
            [(ShutdownStep::Quit, 0), (ShutdownStep::Kill, 5)]
        );
        let once = ShutdownOptions { no_repeat: true, ..options(30) };
        assert_eq!(
            all_steps(start(once, false, true, now), now),
            [(ShutdownStep::Acpi, 0), (ShutdownStep::Quit, 30), (ShutdownStep::Kill, 35)]
        );
    }

    fn presses(ladder: Ladder, start: Instant) -> Vec<u64> {
        let steps = all_steps(ladder, start).into_iter();
        steps.filter(|(step, _)| *step < ShutdownStep::Quit).map(|(_, second)| second).collect()
    }

    #[test]
    fn a_guest_that_may_be_booting_gets_the_button_again_and_again() {
        let now = Instant::now();
        let ways = Ways { agent: false, button: true };
        let aged = |seconds: u64| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        let ladder = Ladder::start(options(30), ways, aged(20), now);
        assert_eq!(presses(ladder, now), [0, 2, 4, 6, 8, 10, 15]);
        let ladder = Ladder::start(options(5), ways, aged(0), now);
        // at half of the budget, too
        assert_eq!(presses(ladder, now), [0, 2, 2, 4]);
        let once = ShutdownOptions { no_repeat: true, ..options(30) };
        assert_eq!(presses(Ladder::start(once, ways, aged(0), now), now), [0]);
        // a reset begins anew
        let mut ladder = Ladder::start(options(30), ways, aged(60), now);
        ladder.guest_restarted(now);
        assert_eq!(ladder.next(), Some(now + WHILE_BOOTING));
    }

    #[test]
    fn an_agent_that_answers_late_is_asked_once() {
        let now = Instant::now();
        let ways = Ways { agent: false, button: true };
        let mut ladder = Ladder::start(options(30), ways, now, now);
        assert!(ladder.agent_answers());
        assert!(!ladder.agent_answers());
        // and the rest is as for any guest
        assert_eq!(ladder.next(), Some(now + Duration::from_secs(15)));
        ladder.guest_restarted(now);
        assert!(ladder.agent_answers());
        ladder.jump(ShutdownStep::Quit, now);
        ladder.guest_restarted(now);
        assert!(!ladder.agent_answers());
        let asked = Ways { agent: true, ..ways };
        assert!(!Ladder::start(options(30), asked, now, now).agent_answers());
    }

    #[test]
    fn the_asking_can_be_shortened_but_not_made_longer() {
        let now = Instant::now();
        let mut ladder = start(options(3600), false, true, now);
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
        let mut ladder = start(options(3600), false, true, now);
        ladder.jump(ShutdownStep::Quit, now);
        ladder.end_within(Duration::ZERO, now);
        assert_eq!(all_steps(ladder, now), [(ShutdownStep::Quit, 0), (ShutdownStep::Kill, 5)]);
    }

    #[test]
    fn a_jump_never_goes_down() {
        let now = Instant::now();
        let mut ladder = start(options(30), false, true, now);
        assert!(ladder.jump(ShutdownStep::Quit, now));
        assert!(!ladder.jump(ShutdownStep::Quit, now));
        assert!(ladder.jump(ShutdownStep::Kill, now));
        assert_eq!(ladder.next(), None);
    }
}
