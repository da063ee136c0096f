//! `copy-from`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::machine::{copy_from_to_stream, copy_out};

use super::super::failure::Failure;
use super::super::output;
use super::agent_args::AgentArgs;
use super::copy_progress::{Progress, STREAM};
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(in crate::cli) struct CopyFrom {
    /// File or folder in the guest, as an absolute path
    source: String,
    /// Destination file or directory on this host; - for standard output
    destination: PathBuf,
    #[command(flatten)]
    agent: AgentArgs,
}

impl CopyFrom {
    pub(in crate::cli) fn new(source: String, destination: PathBuf, agent: AgentArgs) -> Self {
        Self { source, destination, agent }
    }
}

impl Verb for CopyFrom {
    const ABOUT: &'static str = "Copy a file or a folder out of the guest, through its agent";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let to_stdout = is_stdout(&self.destination);
        let mut progress =
            if to_stdout && output::stdout_is_terminal() { Progress::hidden() } else { Progress::new() };
        let mut show = |done, total| progress.show(done, total);
        let (client, source, agent) = (&mut context.client, &self.source, Some(self.agent.agent_timeout));
        if to_stdout {
            let mut stdout = output::Stdout::default();
            let name = Path::new("standard output");
            let copied = copy_from_to_stream(client, source, (&mut stdout, name), agent, &mut show);
            // a reader that has closed its end is no error
            if stdout.is_broken() {
                return stdout.finish();
            }
            copied?;
            return Ok(0);
        }
        let copied = copy_out(client, source, &self.destination, agent, &mut show)?;
        progress.report(context, &copied)
    }
}

/// Names of standard output: output to them continues where the last program stopped.
fn is_stdout(path: &Path) -> bool {
    [STREAM, "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path.as_os_str() == *name)
}
