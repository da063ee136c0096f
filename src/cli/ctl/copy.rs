//! `copy-to` and `copy-from`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::machine::{Copied, copy_from, copy_from_to_stream, copy_to, copy_to_from_stream};

use super::super::failure::Failure;
use super::super::output;
use super::Context;
use super::guest::AgentArgs;

/// `copy-to`.
#[derive(Debug, Args)]
pub(super) struct CopyTo {
    /// A file of this machine, or - for the standard input
    source: PathBuf,
    /// Where it is to be in the guest: an absolute path, or that of a directory
    destination: String,
    #[command(flatten)]
    agent: AgentArgs,
}

impl CopyTo {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let mut progress = Progress::new();
        let mut show = |done, total| progress.show(done, total);
        let (client, source, destination) = (&mut context.client, self.source, &self.destination);
        let agent = Some(self.agent.agent_timeout);
        let copied = match source.as_os_str() == STREAM {
            true => {
                let stdin = (io::stdin().lock(), Path::new("standard input"));
                copy_to_from_stream(client, stdin, destination, agent, &mut show)?
            }
            false => copy_to(client, &source, destination, agent, &mut show)?,
        };
        progress.report(context, &copied)
    }
}

/// `copy-from`.
#[derive(Debug, Args)]
pub(super) struct CopyFrom {
    /// A file of the guest, as an absolute path
    source: String,
    /// Where it is to be on this machine, or a directory; - for the standard output
    destination: PathBuf,
    #[command(flatten)]
    agent: AgentArgs,
}

impl CopyFrom {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let mut progress = Progress::new();
        let mut show = |done, total| progress.show(done, total);
        let (client, source, agent) = (&mut context.client, &self.source, Some(self.agent.agent_timeout));
        if is_stdout(&self.destination) {
            let mut stdout = output::Stdout::default();
            let name = Path::new("standard output");
            let copied = copy_from_to_stream(client, source, (&mut stdout, name), agent, &mut show);
            // a reader that has seen enough is no error
            if stdout.is_broken() {
                return stdout.finish();
            }
            copied?;
            return Ok(0);
        }
        let copied = copy_from(client, source, &self.destination, agent, &mut show)?;
        progress.report(context, &copied)
    }
}

/// Standard input or output in a file's place.
const STREAM: &str = "-";

/// The names of standard output: what is written there goes on where the last program has stopped.
fn is_stdout(path: &Path) -> bool {
    [STREAM, "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path.as_os_str() == *name)
}

/// How far it has got, as one line on the terminal that is written over and over.
struct Progress {
    started: Instant,
    shown: output::Line,
}

impl Progress {
    fn new() -> Self {
        Self { started: Instant::now(), shown: output::Line::new() }
    }

    fn show(&mut self, done: u64, total: Option<u64>) {
        let Self { started, shown } = self;
        shown.show(|| line(started.elapsed(), done, total));
    }

    fn report(&self, context: &Context, copied: &Copied) -> Result<u8, Failure> {
        let took_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Copied { path, size_bytes, checked } = copied;
        let facts = json!({ "path": path, "size_bytes": size_bytes, "took_ms": took_ms, "checked": checked });
        context.output.print(&facts, || path.clone())
    }
}

fn line(took: Duration, done: u64, total: Option<u64>) -> String {
    let seconds = took.as_secs_f64().max(0.001);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let speed = output::bytes((done as f64 / seconds) as u64);
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let percent = (done * 100 / total).min(100);
            format!("{percent:3} %  {} of {}  {speed}/s", output::bytes(done), output::bytes(total))
        }
        None => format!("{}  {speed}/s", output::bytes(done)),
    }
}
