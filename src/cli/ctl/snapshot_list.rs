//! `snapshot-list`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::control::{verbs, wire};

use super::super::failure::Failure;
use super::super::output::{bytes, milliseconds, table};
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct SnapshotList {}

impl Verb for SnapshotList {
    const ABOUT: &'static str = "List the snapshots";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let verbs::SnapshotList { snapshots } = context.call(verbs::ListSnapshots {})?;
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
