//! `snapshot-load`.

use clap::Args;
use serde_json::json;

use crate::control::verbs;
use crate::control::wire::SnapshotReply;
use crate::spec::SnapshotName;

use super::super::failure::Failure;
use super::set_time::SyncArgs;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct SnapshotLoad {
    /// Snapshot name, as printed by snapshot-list
    name: SnapshotName,
    #[command(flatten)]
    clock: SyncArgs,
}

impl Verb for SnapshotLoad {
    const ABOUT: &'static str = "Load a snapshot";
    const WAITS_FOR: &'static str = "loading the snapshot";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::LoadSnapshot { name: self.name.into() };
        let SnapshotReply { snapshot } = context.call(call)?;
        let (clock, words) = self.clock.sync(context);
        let mut facts = json!(snapshot);
        facts["clock"] = clock;
        context.output.print(&facts, || format!("loaded {}{words}", snapshot.name))
    }
}
