//! The flags of commands that use the guest agent.

use std::time::Duration;

use clap::Args;

use crate::spec::duration;

/// How long they wait for it.
#[derive(Debug, Args)]
pub(in crate::cli) struct AgentArgs {
    /// How long to wait for an agent that does not answer yet
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "10s")]
    pub(in crate::cli) agent_timeout: Duration,
}
