//! `shutdown`.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::control::client::Client;
use crate::control::verbs;
use crate::machine;
use crate::spec::duration;
use crate::vm::{Ending, Outcome};

use super::super::failure::Failure;
use super::super::output::Output;
use super::super::target::NOT_RUNNING;
use super::super::waiting;
use super::verb::{Context, Verb};

#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct Shutdown {
    /// How long to ask the guest before QEMU quits
    #[arg(long, short, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "30s")]
    timeout: Duration,
    /// Do not ask the guest
    #[arg(long)]
    force: bool,
    /// Press the power button only once
    #[arg(long)]
    no_repeat: bool,
    /// Succeed if the VM does not run
    #[arg(long)]
    if_running: bool,
}

impl Verb for Shutdown {
    const ABOUT: &'static str = "Shut the VM down and wait until it is off: ask, ask again, quit, kill";
    const AFTER_THE_END: bool = true;

    fn not_running(&self, failure: Failure, output: Output) -> Result<u8, Failure> {
        match self.if_running {
            true => output.print(&Value::Null, || failure.message),
            false => Err(failure),
        }
    }

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        if self.if_running && context.client.has_ended() {
            return context.output.print(&Value::Null, || "the VM has ended already".to_owned());
        }
        let outcome = match self.call(&mut context.client) {
            Err(failure) if failure.code == NOT_RUNNING => return self.not_running(failure, context.output),
            outcome => outcome?,
        };
        context.output.print(&outcome, || outcome.message.clone())?;
        Ok(self.exit_code(&outcome))
    }
}

impl Shutdown {
    /// One that does not ask the guest.
    pub(in crate::cli) fn forced(if_running: bool) -> Self {
        Self { timeout: Duration::from_secs(30), force: true, no_repeat: false, if_running }
    }

    /// Shuts a VM down; returns how it ended.
    pub(in crate::cli) fn call(self, client: &mut Client) -> Result<Outcome, Failure> {
        let call = verbs::Shutdown {
            timeout_ms: Some(machine::milliseconds(self.timeout)),
            force: self.force.then_some(true),
            no_repeat: self.no_repeat.then_some(true),
        };
        let reply =
            waiting::while_shown(client, "the guest was asked to shut down", |client| client.call(call))?;
        Ok(reply.outcome)
    }

    /// The exit code of the command. A VM that was forced off as the user wanted is as it should be.
    pub(in crate::cli) fn exit_code(self, outcome: &Outcome) -> u8 {
        match outcome.ending {
            Ending::Quit | Ending::Killed if self.force => 0,
            _ => outcome.exit_code,
        }
    }

    /// Whether a VM that does not run is a success.
    pub(in crate::cli) fn if_running(self) -> bool {
        self.if_running
    }
}
