//! `snapshot-delete`.

use clap::Args;

use crate::control::verbs;
use crate::control::wire::SnapshotReply;
use crate::spec::SnapshotName;

use super::super::failure::Failure;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct SnapshotDelete {
    /// Snapshot name, as printed by snapshot-list
    name: SnapshotName,
}

impl Verb for SnapshotDelete {
    const ABOUT: &'static str = "Delete a snapshot";
    const WAITS_FOR: &'static str = "deleting the snapshot";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::DeleteSnapshot { name: self.name.into() };
        let SnapshotReply { snapshot } = context.call(call)?;
        context.output.print(&snapshot, || format!("deleted {}", snapshot.name))
    }
}
