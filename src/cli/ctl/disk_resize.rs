//! `disk-resize`.

use clap::Args;

use crate::control::{verbs, wire};
use crate::machine;
use crate::spec::Size;

use super::super::failure::Failure;
use super::super::output::bytes;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct DiskResize {
    /// Disk id, as printed by disk-list
    id: String,
    /// New size, e.g. 20G; a plain number is GB
    #[arg(value_parser = Size::of_disk)]
    size: Size,
}

impl Verb for DiskResize {
    const ABOUT: &'static str = "Grow a disk";
    const WAITS_FOR: &'static str = "resizing the disk";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::ResizeDisk { id: self.id, size_bytes: machine::size_bytes(self.size) };
        let wire::DiskReply { disk } = context.call(call)?;
        context.output.print(&disk, || format!("{} has {} now", disk.id, bytes(disk.size_bytes.unwrap_or(0))))
    }
}
