//! What commands that use the guest agent have in common.

use std::time::Duration;

use clap::Args;

use crate::spec::duration;

/// How patient they are.
#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    /// How long an agent is waited for that does not answer yet
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "10s")]
    pub(super) agent_timeout: Duration,
}
