//! `freeze-fs`.

use std::time::Duration;

use clap::Args;

use crate::control::verbs;
use crate::machine;
use crate::spec::duration;

use super::super::failure::Failure;
use super::agent_args::AgentArgs;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct FreezeFs {
    /// Time after which they are thawed if `thaw-fs` was not called
    #[arg(long = "for", value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "10s")]
    thaw_after: Duration,
    #[command(flatten)]
    agent: AgentArgs,
}

impl Verb for FreezeFs {
    const ABOUT: &'static str =
        "Freeze the guest's file systems for a while, through its agent, so that its disks can be copied";
    const WAITS_FOR: &'static str = "waiting for the guest agent to freeze the file systems";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let reply = context.call(verbs::FreezeFilesystems {
            thaw_after_ms: Some(machine::milliseconds(self.thaw_after)),
            agent_timeout_ms: Some(machine::milliseconds(self.agent.agent_timeout)),
        })?;
        context.output.print(&reply, || format!("{} frozen", in_words(reply.filesystems)))
    }
}

/// The number of file systems in words.
pub(super) fn in_words(count: u64) -> String {
    match count {
        0 => "no file systems were".to_owned(),
        1 => "1 file system was".to_owned(),
        count => format!("{count} file systems were"),
    }
}
