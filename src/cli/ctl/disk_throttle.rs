//! `disk-throttle`.

use clap::Args;

use crate::control::{verbs, wire};
use crate::spec::throttle::{ByteRate, OperationRate};

use super::super::failure::Failure;
use super::super::output::bytes;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
#[command(arg_required_else_help = false)]
pub(super) struct DiskThrottle {
    /// Disk id, as printed by disk-list
    id: String,
    #[command(flatten)]
    limits: Flags,
}

impl Verb for DiskThrottle {
    const ABOUT: &'static str = "Limit a disk's I/O per second";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let Flags { iops, iops_read, iops_write, bps, bps_read, bps_write, off } = self.limits;
        let operations = |rate: Option<OperationRate>| rate.map(|rate| number(rate.0));
        let bytes = |rate: Option<ByteRate>| rate.map(|rate| number(rate.0));
        let call = verbs::ThrottleDisk {
            id: self.id,
            iops: operations(iops),
            iops_read: operations(iops_read),
            iops_write: operations(iops_write),
            bytes_per_s: bytes(bps),
            bytes_per_s_read: bytes(bps_read),
            bytes_per_s_write: bytes(bps_write),
            off: off.then_some(true),
        };
        let wire::DiskReply { disk } = context.call(call)?;
        context.output.print(&disk, || match &disk.limits {
            Some(limits) => format!("{}: {}", disk.id, shown(limits)),
            None => format!("{} has no limits now", disk.id),
        })
    }
}

/// At least one of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Flags {
    /// Operations per second, reads and writes together
    #[arg(long, value_name = "N", conflicts_with_all = ["iops_read", "iops_write"], allow_negative_numbers = true)]
    iops: Option<OperationRate>,
    /// Reads per second
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    iops_read: Option<OperationRate>,
    /// Writes per second
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    iops_write: Option<OperationRate>,
    /// Bytes per second, read and written together, e.g. 10M
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["bps_read", "bps_write"], allow_hyphen_values = true)]
    bps: Option<ByteRate>,
    /// Bytes read per second
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    bps_read: Option<ByteRate>,
    /// Bytes written per second
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    bps_write: Option<ByteRate>,
    /// Remove all limits
    #[arg(long, conflicts_with_all = ["iops", "iops_read", "iops_write", "bps", "bps_read", "bps_write"])]
    off: bool,
}

fn number(rate: u64) -> i64 {
    i64::try_from(rate).unwrap_or(i64::MAX)
}

/// Limits for display: `100/s, read 10 MiB/s`.
pub(super) fn shown(limits: &wire::Limits) -> String {
    let operations = [("", limits.iops), ("read ", limits.iops_read), ("write ", limits.iops_write)]
        .map(|(what, limit)| limit.map(|limit| format!("{what}{limit} iops")));
    let rates =
        [("", limits.bytes_per_s), ("read ", limits.bytes_per_s_read), ("write ", limits.bytes_per_s_write)]
            .map(|(what, limit)| limit.map(|limit| format!("{what}{}/s", bytes(limit))));
    operations.into_iter().chain(rates).flatten().collect::<Vec<_>>().join(", ")
}
