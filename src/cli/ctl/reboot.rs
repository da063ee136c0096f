//! `reboot`.

use std::time::Duration;

use clap::Args;

use crate::control::verbs;
use crate::machine;
use crate::spec::{Condition, duration};

use super::super::failure::Failure;
use super::super::output::milliseconds;
use super::super::waiting;
use super::agent_args::AgentArgs;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Reboot {
    /// Reset the machine instead of asking the guest
    #[arg(long)]
    force: bool,
    /// Condition that shows that the guest is up again, as for `wait` [default: the guest agent's answer]
    #[arg(long, value_name = "CONDITION")]
    until: Option<Condition>,
    /// How long the reboot may take
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "2m")]
    timeout: Duration,
    #[command(flatten)]
    agent: AgentArgs,
}

impl Verb for Reboot {
    const ABOUT: &'static str = "Reboot the guest and wait until it is up again";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::Reboot {
            force: self.force.then_some(true),
            until: self.until.map(|until| until.to_string()),
            timeout_ms: Some(machine::milliseconds(self.timeout)),
            agent_timeout_ms: Some(machine::milliseconds(self.agent.agent_timeout)),
        };
        let reply =
            waiting::while_shown(&mut context.client, "rebooting the guest", |client| client.call(call))?;
        context.output.print(&reply, || match reply.up_after_ms {
            Some(after) => format!("up again after {}", milliseconds(after)),
            None => "reset; nothing tells when the guest is up again: see --until".to_owned(),
        })
    }
}
