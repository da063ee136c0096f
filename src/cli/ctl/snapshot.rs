//! `snapshot-save`, `snapshot-load`, `snapshot-list`, `snapshot-delete`, and the group that they make with `save`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::control::client::ClientError;
use crate::control::verbs;
use crate::control::wire;
use crate::spec::SnapshotName;

use super::super::failure::Failure;
use super::super::lazy::Lazy;
use super::super::output::{Line, bytes, milliseconds, table};
use super::clock::SyncArgs;
use super::{Context, save};

/// Saving and going back.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Put the whole VM into a file, and end it; `vmrun qemu --restore FILE` goes on from there
    Save(Lazy<save::Save>),
    /// Put memory, devices and disks into a snapshot, in the VM's qcow2 images
    SnapshotSave(Lazy<Save>),
    /// Go back to a snapshot
    SnapshotLoad(Lazy<Load>),
    /// List the snapshots
    SnapshotList,
    /// Delete a snapshot
    SnapshotDelete(Lazy<Named>),
}

impl Command {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        match self {
            Self::Save(Lazy(save)) => save.run(context),
            Self::SnapshotSave(Lazy(save)) => save.run(context),
            Self::SnapshotLoad(Lazy(load)) => load.run(context),
            Self::SnapshotList => list(context),
            Self::SnapshotDelete(Lazy(named)) => named.delete(context),
        }
    }
}

/// `snapshot-save`.
#[derive(Debug, Args)]
pub(super) struct Save {
    /// The new snapshot's name
    name: SnapshotName,
    /// Replace a snapshot of this name, once the new one is whole
    #[arg(long)]
    overwrite: bool,
}

impl Save {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::SaveSnapshot { name: self.name.into(), overwrite: Some(self.overwrite) };
        let mut made = None;
        let mut line = Line::new();
        context.client.stream(call, |reply| {
            if let (Some(done), Some(total)) = (reply.done_bytes, reply.total_bytes) {
                line.show(|| format!("{} of at most {}", bytes(done), bytes(total)));
            }
            made = reply.snapshot;
            true
        })?;
        drop(line);
        // the stream also ends, without a word, when the VM does
        let made = made.ok_or(ClientError::Gone)?;
        context.output.print(&made, || made.name.clone())
    }
}

/// `snapshot-load`.
#[derive(Debug, Args)]
pub(super) struct Load {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    clock: SyncArgs,
}

impl Load {
    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::LoadSnapshot { name: self.named.name.into() };
        let wire::SnapshotReply { snapshot } = context.client.call(call)?;
        let (clock, words) = self.clock.sync(context);
        let mut facts = json!(snapshot);
        facts["clock"] = clock;
        context.output.print(&facts, || format!("loaded {}{words}", snapshot.name))
    }
}

/// `snapshot-delete`, and a part of `snapshot-load`.
#[derive(Debug, Args)]
pub(super) struct Named {
    /// As snapshot-list prints it
    name: SnapshotName,
}

impl Named {
    fn delete(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::DeleteSnapshot { name: self.name.into() };
        let wire::SnapshotReply { snapshot } = context.client.call(call)?;
        context.output.print(&snapshot, || format!("deleted {}", snapshot.name))
    }
}

/// `snapshot-list`.
fn list(context: &mut Context) -> Result<u8, Failure> {
    let verbs::SnapshotList { snapshots } = context.client.call(verbs::ListSnapshots {})?;
    context.output.print(&snapshots, || {
        let rows = snapshots.iter().map(|snapshot| {
            [
                snapshot.name.clone(),
                snapshot.id.clone(),
                date(snapshot.created_unix_ms),
                milliseconds(snapshot.vm_clock_ms),
                bytes(snapshot.state_bytes),
                snapshot.disks.join(","),
                status(snapshot),
            ]
        });
        table(["NAME", "ID", "DATE", "UPTIME", "STATE", "DISKS", "LOADABLE"], rows)
    })
}

fn status(snapshot: &wire::Snapshot) -> String {
    match (snapshot.loadable, snapshot.missing.is_empty()) {
        (true, _) => "yes".to_owned(),
        (false, false) => format!("no: not on {}", snapshot.missing.join(",")),
        (false, true) => "no: disks only".to_owned(),
    }
}

fn date(unix_ms: u64) -> String {
    let time: SystemTime = UNIX_EPOCH + Duration::from_millis(unix_ms / 1000 * 1000);
    humantime::format_rfc3339_seconds(time).to_string()
}
