//! `save`.

use std::path::PathBuf;

use clap::Args;

use crate::control::client::ClientError;
use crate::control::verbs;
use crate::machine;

use super::super::failure::Failure;
use super::super::waiting::Progress;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Save {
    /// File to save to; it must not exist
    file: PathBuf,
}

impl Verb for Save {
    const ABOUT: &'static str =
        "Save the whole VM to a file and end it; `vmrun qemu --restore FILE` restores it";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::Save { file: machine::absolute_text(&self.file)? };
        let mut outcome = None;
        let progress = Progress::new("saving the VM");
        context.client.stream(call, |reply| {
            progress.bytes(reply.done_bytes, reply.total_bytes);
            outcome = reply.outcome;
            true
        })?;
        drop(progress);
        // the stream also ends, without a reply, when the VM does
        let outcome = outcome.ok_or(ClientError::Gone)?;
        context.output.print(&outcome, || outcome.message.clone())?;
        Ok(outcome.exit_code)
    }
}
