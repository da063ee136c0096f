//! `pause`, `resume`, `reset`, `reboot`, `powerdown`, `shutdown`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::control::verbs::{self, Method};
use crate::control::wire::Nothing;
use crate::machine;
use crate::spec::{Condition, duration};

use super::super::failure::Failure;
use super::super::lazy::Lazy;
use super::super::output::milliseconds;
use super::Context;
use super::clock::SyncArgs;
use super::guest::AgentArgs;

/// About power and processors.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Stop the guest's processors
    Pause,
    /// Let the guest's processors run again
    Resume(Lazy<Resume>),
    /// Reset the machine without asking the guest
    Reset,
    /// Let the guest reboot, and wait until it is up again
    Reboot(Lazy<Reboot>),
    /// Press the power button once
    Powerdown,
    /// Shut the VM down and wait until it is off: ask, ask again, quit, kill
    Shutdown(Lazy<Shutdown>),
}

impl Command {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        match self {
            Self::Pause => plain(context, verbs::Pause {}, "paused"),
            Self::Resume(Lazy(resume)) => resume.run(context),
            Self::Reset => plain(context, verbs::Reset {}, "reset"),
            Self::Reboot(Lazy(reboot)) => reboot.run(context),
            Self::Powerdown => plain(context, verbs::Powerdown {}, "the power button was pressed"),
            Self::Shutdown(Lazy(shutdown)) => shutdown.run(context),
        }
    }
}

/// A command without parameters and without a reply.
fn plain<M>(context: &mut Context, method: M, done: &str) -> Result<u8, Failure>
where
    M: Method<Reply = Nothing>,
{
    context.client.call(method)?;
    context.output.print(&json!({}), || done.to_owned())
}

/// `resume`.
#[derive(Debug, Args)]
pub(super) struct Resume {
    #[command(flatten)]
    clock: SyncArgs,
}

impl Resume {
    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        context.client.call(verbs::Resume {})?;
        let (clock, words) = self.clock.sync(context);
        context.output.print(&json!({ "clock": clock }), || format!("running{words}"))
    }
}

/// `reboot`.
#[derive(Debug, Args)]
pub(super) struct Reboot {
    /// Reset the machine instead of asking the guest
    #[arg(long)]
    force: bool,
    /// What tells that it is up again, as for `wait`; the guest agent's answer unless given
    #[arg(long, value_name = "CONDITION")]
    until: Option<Condition>,
    /// How long all of it may take
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "2m")]
    timeout: Duration,
    #[command(flatten)]
    agent: AgentArgs,
}

impl Reboot {
    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::Reboot {
            force: Some(self.force),
            until: self.until.map(|until| until.to_string()),
            timeout_ms: Some(machine::milliseconds(self.timeout)),
            agent_timeout_ms: Some(machine::milliseconds(self.agent.agent_timeout)),
        };
        let reply = context.client.call(call)?;
        context.output.print(&reply, || match reply.up_after_ms {
            Some(after) => format!("up again after {}", milliseconds(after)),
            None => "reset; nothing tells when the guest is up again: see --until".to_owned(),
        })
    }
}

/// `shutdown`.
#[derive(Debug, Args)]
pub(super) struct Shutdown {
    /// How long the guest is asked before QEMU is told to quit
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "30s")]
    timeout: Duration,
    /// Do not ask the guest
    #[arg(long)]
    force: bool,
    /// Press the power button only once
    #[arg(long)]
    no_repeat: bool,
}

impl Shutdown {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::Shutdown {
            timeout_ms: Some(machine::milliseconds(self.timeout)),
            force: Some(self.force),
            no_repeat: Some(self.no_repeat),
        };
        let verbs::OutcomeReply { outcome } = context.client.call(call)?;
        context.output.print(&outcome, || outcome.message.clone())?;
        Ok(outcome.exit_code)
    }
}
