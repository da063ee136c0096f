//! How the owner shuts the VM down: what starts a shutdown, and each step of the ladder.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::qemu::Command;
use crate::spec::duration;

use super::Owner;
use crate::vm::handle::ShutdownOptions;
use crate::vm::ladder::{Ladder, ShutdownStep, Ways};
use crate::vm::signals::{EndSignal, Meaning};
use crate::vm::state::outcome::ShutdownWay;
use crate::vm::state::run_state::RunState;

impl Owner {
    pub(super) fn on_signal(&mut self, signal: EndSignal) {
        let now = Instant::now();
        let timeout = Duration::from_millis(self.facts.stop_timeout_ms);
        match (self.signalled.note(signal, now), &mut self.ladder) {
            (Meaning::Same, _) => log::debug!("{signal}: the same request"),
            (_, None) => {
                log::info!("{signal}: shutting down");
                self.shut_down(ShutdownOptions { timeout, force: false, no_repeat: false });
            }
            // a client's shutdown is under way: the budget of a signal limits its rest
            (Meaning::First, Some(ladder)) => {
                log::info!("{signal}: already shutting down");
                ladder.end_within(timeout, now);
            }
            (Meaning::Again, Some(ladder)) => {
                let target =
                    if ladder.step() < ShutdownStep::Quit { ShutdownStep::Quit } else { ShutdownStep::Kill };
                log::info!(
                    "{signal} again: {}",
                    if target == ShutdownStep::Quit { "quitting" } else { "killing" }
                );
                ladder.jump(target, now);
                self.take_step(target);
            }
        }
    }

    /// Starts the ladder, or shortens the one that is under way.
    pub(in crate::vm) fn shut_down(&mut self, options: ShutdownOptions) {
        let now = Instant::now();
        self.evidence.requested();
        if let Some(abort) = &self.abort {
            abort.send_replace(true);
        }
        // a guest whose state was saved to a file must not run on
        let options = ShutdownOptions { force: options.force || self.evidence.is_saved(), ..options };
        let step = match &mut self.ladder {
            Some(ladder) if options.force => match ladder.jump(ShutdownStep::Quit, now) {
                true => ShutdownStep::Quit,
                false => return,
            },
            Some(_) => return,
            none => {
                let extra = self.origin.spec().map(|spec| spec.extra.as_slice()).unwrap_or_default();
                let button = self.machine.has_power_button(Some(self.origin.machine()), extra);
                let ways = Ways { agent: self.agent.is_alive(), button };
                none.insert(Ladder::start(options, ways, self.began, now)).step()
            }
        };
        if step < ShutdownStep::Quit && self.inventory.run_state == RunState::Paused {
            // a paused guest cannot shut down
            self.command(&Command::new("cont", Value::Null), |_, _| {});
        }
        self.take_step(step);
    }

    /// When the VM's lifetime ends, unless it is shutting down anyway.
    pub(super) fn lifetime(&self) -> Option<Instant> {
        let lifetime = self.facts.max_lifetime_ms.filter(|_| !self.outlived && self.ladder.is_none())?;
        Some(self.started + Duration::from_millis(lifetime))
    }

    /// The VM's lifetime is over.
    pub(super) fn outlive(&mut self) {
        self.outlived = true;
        let lifetime = Duration::from_millis(self.facts.max_lifetime_ms.unwrap_or_default());
        log::warn!(
            "the VM has run for {}, which is its lifetime: shutting it down",
            duration::format(lifetime)
        );
        let timeout = Duration::from_millis(self.facts.stop_timeout_ms);
        self.shut_down(ShutdownOptions { timeout, force: false, no_repeat: false });
    }

    pub(super) fn advance(&mut self) {
        if let Some(ladder) = &mut self.ladder {
            let step = ladder.advance(Instant::now());
            self.take_step(step);
        }
    }

    /// An agent answers that did not before: a guest that missed the button while it booted.
    pub(in crate::vm) fn agent_answers(&mut self) {
        log::info!("the guest agent answers");
        if self.ladder.as_mut().is_some_and(Ladder::agent_answers) {
            self.take_step(ShutdownStep::Agent);
        }
    }

    fn take_step(&mut self, step: ShutdownStep) {
        log::info!("shutdown: {}", step.description());
        self.bus.publish("VMRUN_LADDER", json!({ "step": step.name() }));
        match step {
            ShutdownStep::Agent => {
                self.evidence.shutdown_requested(ShutdownWay::Agent);
                let agent = self.agent.clone();
                self.spawn(async move { agent.shut_down().await }, |_, result| {
                    if let Err(error) = result {
                        log::info!("the guest agent did not take the request: {error}");
                    }
                });
            }
            ShutdownStep::Acpi | ShutdownStep::AcpiAgain => {
                self.evidence.shutdown_requested(ShutdownWay::Acpi);
                self.command(&Command::new("system_powerdown", Value::Null), |_, result| {
                    if let Err(error) = result {
                        log::info!("the power button could not be pressed: {error}");
                    }
                });
            }
            ShutdownStep::Quit => {
                self.evidence.quit_sent();
                self.command(&Command::new("quit", Value::Null), |_, _| {});
            }
            ShutdownStep::Kill => {
                self.evidence.killed();
                self.process.kill();
            }
        }
    }
}
