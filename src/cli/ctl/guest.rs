//! What is done through the guest's agent: `exec`, `copy-to`, `copy-from`.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::spec::duration;

use super::super::failure::Failure;
use super::super::lazy::Lazy;
use super::{Context, clock, copy, exec, raw};

/// What the guest agent does.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a command in the guest, through its agent; exits with the command's own code
    Exec(Lazy<exec::Exec>),
    /// Copy a file into the guest, through its agent
    CopyTo(Lazy<copy::CopyTo>),
    /// Copy a file out of the guest, through its agent
    CopyFrom(Lazy<copy::CopyFrom>),
    /// Set the guest's clock to this machine's, through its agent
    SetTime(Lazy<clock::SetTime>),
    /// Run any command of the guest agent, e.g. guest-get-osinfo
    Agent(Lazy<raw::Agent>),
}

/// What all of them have in common.
#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    /// How long an agent is waited for that does not answer yet
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "10s")]
    pub(super) agent_timeout: Duration,
}

impl Command {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        match self {
            Self::Exec(Lazy(exec)) => exec.run(context),
            Self::CopyTo(Lazy(copy)) => copy.run(context),
            Self::CopyFrom(Lazy(copy)) => copy.run(context),
            Self::SetTime(Lazy(set)) => set.run(context),
            Self::Agent(Lazy(agent)) => agent.run(context),
        }
    }
}
