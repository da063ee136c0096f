//! `freeze`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::control::client::ClientError;
use crate::control::verbs;
use crate::machine;

use super::super::failure::Failure;
use super::super::output::Line;
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
        let call = verbs::Freeze { folder: folder.clone(), keep_running: self.keep_running.then_some(true) };
        let (mut outcome, mut is_complete) = (None, false);
        let mut line = Line::new();
        context.client.stream(call, |reply| {
            line.show_bytes(reply.done_bytes, reply.total_bytes);
            is_complete = reply.done_bytes.is_none();
            outcome = reply.outcome;
            true
        })?;
        drop(line);
        if self.keep_running && is_complete {
            context.output.print(&json!({ "folder": folder }), || format!("the template is in {folder}"))?;
            return Ok(0);
        }
        // the stream also ends, without a reply, when the VM does
        let outcome = outcome.ok_or(ClientError::Gone)?;
        context.output.print(&outcome, || outcome.message.clone())?;
        Ok(outcome.exit_code)
    }
}
