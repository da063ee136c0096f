//! `pause`, `resume`, `reset`, `powerdown`, `shutdown`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::control::methods::{self, Method};
use crate::control::wire;
use crate::machine;
use crate::spec::duration;

use super::super::failure::Failure;
use super::super::lazy::Lazy;
use super::Context;

/// About power and processors.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Stop the guest's processors
    Pause,
    /// Let the guest's processors run again
    Resume,
    /// Reset the machine without asking the guest
    Reset,
    /// Press the power button once
    Powerdown,
    /// Shut the VM down and wait until it is off: ask, ask again, quit, kill
    Shutdown(Lazy<Shutdown>),
}

impl Command {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        match self {
            Self::Pause => plain(context, methods::Pause, "paused"),
            Self::Resume => plain(context, methods::Resume, "running"),
            Self::Reset => plain(context, methods::Reset, "reset"),
            Self::Powerdown => plain(context, methods::Powerdown, "the power button was pressed"),
            Self::Shutdown(Lazy(shutdown)) => shutdown.run(context),
        }
    }
}

/// A command without parameters and without a reply.
fn plain<M>(context: &mut Context, method: M, done: &str) -> Result<u8, Failure>
where
    M: Method<Parameters = wire::Empty, Reply = wire::Nothing>,
{
    context.client.call(method, wire::Empty {})?;
    context.output.print(&json!({}), || done.to_owned())
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
        let call = wire::Shutdown {
            timeout_ms: Some(machine::milliseconds(self.timeout)),
            force: Some(self.force),
            no_repeat: Some(self.no_repeat),
        };
        let wire::OutcomeReply { outcome } = context.client.call(methods::Shutdown, call)?;
        context.output.print(&outcome, || outcome.message.clone())?;
        Ok(outcome.exit_code)
    }
}
