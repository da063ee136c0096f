//! `snapshot-save`.

use clap::Args;

use crate::control::client::ClientError;
use crate::control::verbs;
use crate::spec::SnapshotName;

use super::super::failure::Failure;
use super::super::waiting::Progress;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct SnapshotSave {
    /// Name of the new snapshot
    name: SnapshotName,
    /// Replace a snapshot of this name, once the new one is complete
    #[arg(long)]
    overwrite: bool,
}

impl Verb for SnapshotSave {
    const ABOUT: &'static str = "Save memory, devices and disks in a snapshot, in the VM's qcow2 images";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::SaveSnapshot { name: self.name.into(), overwrite: self.overwrite.then_some(true) };
        let mut made = None;
        let progress = Progress::new("saving the snapshot");
        context.client.stream(call, |reply| {
            progress.bytes(reply.done_bytes, reply.total_bytes);
            made = reply.snapshot;
            true
        })?;
        drop(progress);
        // the stream also ends, without a reply, when the VM does
        let made = made.ok_or(ClientError::Gone)?;
        context.output.print(&made, || made.name.clone())
    }
}
