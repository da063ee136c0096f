//! `set-time`, and the setting of the guest's clock by `resume` and `snapshot-load`.

use clap::Args;
use serde_json::{Value, json};

use crate::control::verbs;
use crate::machine;

use super::super::failure::Failure;
use super::super::output::milliseconds;
use super::agent_args::AgentArgs;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct SetTime {
    #[command(flatten)]
    agent: AgentArgs,
}

impl Verb for SetTime {
    const ABOUT: &'static str = "Set the guest's clock to this host's, through its agent";
    const WAITS_FOR: &'static str = "waiting for the guest agent to set the clock";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let agent_timeout_ms = Some(machine::milliseconds(self.agent.agent_timeout));
        let reply = context.call(verbs::SetTime { agent_timeout_ms })?;
        context.output.print(&reply, || in_words(&reply))
    }
}

/// For commands after which the guest's clock is late.
#[derive(Debug, Args)]
pub(super) struct SyncArgs {
    /// Leave the guest's clock, which was stopped, as it is
    #[arg(long)]
    no_time_sync: bool,
}

impl SyncArgs {
    /// Sets the guest's clock if there is an agent; returns the result as JSON and as text. A failure to set it does not fail the
    /// command.
    pub(super) fn sync(&self, context: &mut Context) -> (Value, String) {
        if self.no_time_sync {
            return (json!({ "set": false, "why": "--no-time-sync" }), String::new());
        }
        match context.call(verbs::SetTime { agent_timeout_ms: None }) {
            Ok(reply) => (json!(reply), format!("; {}", in_words(&reply))),
            Err(error) => {
                let why = Failure::from(error).message;
                (json!({ "set": false, "why": why }), format!("; the guest's clock was not set: {why}"))
            }
        }
    }
}

fn in_words(reply: &verbs::SetTimeReply) -> String {
    let off = milliseconds(reply.behind_ms.unsigned_abs());
    match (reply.set, reply.behind_ms < 0) {
        (false, _) => "the guest's clock is right".to_owned(),
        (true, false) => format!("the guest's clock was {off} behind and was set"),
        (true, true) => format!("the guest's clock was {off} ahead and was set"),
    }
}
