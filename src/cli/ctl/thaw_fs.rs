//! `thaw-fs`.

use clap::Args;

use crate::control::verbs;
use crate::machine;

use super::super::failure::Failure;
use super::agent_args::AgentArgs;
use super::freeze_fs::in_words;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct ThawFs {
    #[command(flatten)]
    agent: AgentArgs,
}

impl Verb for ThawFs {
    const ABOUT: &'static str = "Thaw the guest's file systems, through its agent";
    const WAITS_FOR: &'static str = "waiting for the guest agent to thaw the file systems";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let agent_timeout_ms = Some(machine::milliseconds(self.agent.agent_timeout));
        let reply = context.call(verbs::ThawFilesystems { agent_timeout_ms })?;
        context.output.print(&reply, || format!("{} thawed", in_words(reply.filesystems)))
    }
}
