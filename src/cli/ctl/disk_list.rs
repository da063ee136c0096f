//! `disk-list`.

use clap::Args;

use crate::control::{verbs, wire};

use super::super::failure::Failure;
use super::super::output::{Lines, bytes, wide_table};
use super::device_state::shown as state;
use super::disk_throttle;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct DiskList {}

impl Verb for DiskList {
    const ABOUT: &'static str = "List the disks and CD-ROM drives";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let verbs::DiskList { disks } = context.call(verbs::ListDisks {})?;
        context.output.print(&disks, || as_table(&disks))
    }
}

/// Disks as a table.
pub(super) fn as_table(disks: &[wire::Disk]) -> Lines {
    let rows = disks.iter().map(|disk| {
        [
            disk.id.clone(),
            if disk.removable { format!("{} (cd)", disk.bus) } else { disk.bus.clone() },
            disk.size_bytes.map(bytes).unwrap_or_default(),
            disk.format.clone().unwrap_or_default(),
            if disk.readonly { "ro" } else { "rw" }.to_owned(),
            disk.slot.clone().unwrap_or_default(),
            state(&disk.phase, disk.taken),
        ]
    });
    let names = ["ID", "BUS", "SIZE", "FORMAT", "MODE", "SLOT", "STATE"];
    // most disks have no limits and no options: these columns are shown only if needed
    let limits = disks.iter().map(|disk| disk.limits.as_ref().map(disk_throttle::shown).unwrap_or_default());
    let extra = [("LIMITS", limits.collect::<Vec<_>>()), ("OPTIONS", disks.iter().map(options).collect())];
    let extra: Vec<_> =
        extra.into_iter().filter(|(_, column)| column.iter().any(|cell| !cell.is_empty())).collect();
    let names = names.into_iter().chain(extra.iter().map(|(name, _)| *name)).chain(["FILE"]);
    let rows = rows.zip(disks).enumerate().map(|(number, (row, disk))| {
        let extra = extra.iter().map(|(_, column)| column[number].clone());
        row.into_iter().chain(extra).chain([disk.file.clone().unwrap_or_default()]).collect()
    });
    wide_table(names.collect(), rows)
}

/// A disk's options, as the user types them.
fn options(disk: &wire::Disk) -> String {
    let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
    let options = [
        ("cache", disk.cache.clone()),
        ("aio", disk.aio.clone()),
        ("discard", disk.discard.clone()),
        ("detect-zeroes", disk.detect_zeroes.clone()),
        ("logical-block-size", disk.logical_block_size.map(|bytes| bytes.to_string())),
        ("iothread", disk.iothread.map(switch)),
        ("boot", disk.boot.map(|number| number.to_string())),
    ];
    let said = options.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    said.collect::<Vec<_>>().join(",")
}
