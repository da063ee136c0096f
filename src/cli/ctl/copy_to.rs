//! `copy-to`.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::machine::{copy_in, copy_to_from_stream};

use super::super::failure::Failure;
use super::agent_args::AgentArgs;
use super::copy_progress::{Progress, STREAM};
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(in crate::cli) struct CopyTo {
    /// File or folder on this host; - for standard input
    source: PathBuf,
    /// Destination in the guest: an absolute path of a file or directory
    destination: String,
    #[command(flatten)]
    agent: AgentArgs,
}

impl CopyTo {
    pub(in crate::cli) fn new(source: PathBuf, destination: String, agent: AgentArgs) -> Self {
        Self { source, destination, agent }
    }
}

impl Verb for CopyTo {
    const ABOUT: &'static str = "Copy a file or a folder into the guest, through its agent";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        // not in the middle of what is typed
        let typed = self.source.as_os_str() == STREAM && io::stdin().is_terminal();
        let mut progress = if typed { Progress::hidden() } else { Progress::new() };
        let mut show = |done, total| progress.show(done, total);
        let (client, source, destination) = (&mut context.client, self.source, &self.destination);
        let agent = Some(self.agent.agent_timeout);
        let copied = match source.as_os_str() == STREAM {
            true => {
                let stdin = (io::stdin().lock(), Path::new("standard input"));
                copy_to_from_stream(client, stdin, destination, agent, &mut show)?
            }
            false => copy_in(client, &source, destination, agent, &mut show)?,
        };
        progress.report(context, &copied)
    }
}
