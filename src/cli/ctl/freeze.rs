//! `freeze`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::control::client::ClientError;
use crate::control::verbs;
use crate::machine;

use super::super::failure::Failure;
use super::super::output::milliseconds;
use super::super::waiting::Progress;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Freeze {
    /// The template's folder, which must not be there yet
    dir: PathBuf,
    /// The VM goes on afterwards
    #[arg(long)]
    keep_running: bool,
}

impl Verb for Freeze {
    const ABOUT: &'static str =
        "Freeze the VM into a template and end it; `vmrun qemu --from DIR` starts forks of it in a moment";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let folder = machine::absolute_text(&self.dir)?;
        let call = verbs::Freeze {
            folder: folder.clone(),
            keep_running: self.keep_running.then_some(true),
            until_unused: None,
        };
        let (mut outcome, mut paused_ms, mut is_complete) = (None, None, false);
        let progress = Progress::new("freezing the VM");
        context.client.stream(call, |reply| {
            progress.bytes(reply.done_bytes, reply.total_bytes);
            is_complete = reply.done_bytes.is_none();
            outcome = reply.outcome;
            paused_ms = reply.paused_ms;
            true
        })?;
        drop(progress);
        if self.keep_running && is_complete {
            let frozen = json!({ "folder": folder, "paused_ms": paused_ms });
            let paused = match paused_ms {
                // it was paused before
                None | Some(0) => String::new(),
                Some(paused) => format!("; the VM was paused for {}", milliseconds(paused)),
            };
            context.output.print(&frozen, || format!("the template is in {folder}{paused}"))?;
            return Ok(0);
        }
        // the stream also ends, without a reply, when the VM does
        let outcome = outcome.ok_or(ClientError::Gone)?;
        context.output.print(&outcome, || outcome.message.clone())?;
        Ok(outcome.exit_code)
    }
}
