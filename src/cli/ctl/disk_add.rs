//! `disk-add`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::control::wire;
use crate::host::image::SECTOR;
use crate::machine;
use crate::spec::{DiskSpec, Size};

use super::super::failure::Failure;
use super::device_state::warn_if_not_taken;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct DiskAdd {
    /// [file=]PATH[,size=1G[,grow=on]][,format=F][,bus=virtio|scsi|usb|nvme][,readonly=on][,serial=S][,id=ID]
    /// [,cache=none|writeback|writethrough|directsync|unsafe][,aio=threads|native|io_uring][,discard=unmap|ignore]
    /// [,detect-zeroes=off|on|unmap][,logical-block-size=512|4096][,iothread=on][,boot=N]
    #[arg(value_parser = OsStringValueParser::new().try_map(|text: OsString| DiskSpec::parse(&text)))]
    disk: DiskSpec,
    /// File, or folder of files, that the image may refer to as backing or data files, besides its own folder; repeatable
    #[arg(long, value_name = "PATH")]
    allow_backing: Vec<PathBuf>,
}

impl Verb for DiskAdd {
    const ABOUT: &'static str =
        "Plug a disk: [file=]PATH[,size=1G[,grow=on]][,format=F][,bus=B][,readonly=on][,serial=S][,id=ID]";
    const WAITS_FOR: &'static str = "making and plugging the disk";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let wanted = self.disk.size.map(Size::bytes);
        let call = machine::add_disk(self.disk, &self.allow_backing)?;
        let wire::DiskReply { disk } = context.call(call)?;
        if let (Some(wanted), Some(now)) = (wanted, disk.size_bytes) {
            tell_size(&disk, wanted.next_multiple_of(SECTOR), now);
        }
        warn_if_not_taken(&disk.id, disk.taken);
        context.output.print(&disk, || disk.id.clone())
    }
}

/// An existing image keeps its size, unless it is grown.
fn tell_size(disk: &wire::Disk, wanted: u64, now: u64) {
    let is = match now.cmp(&wanted) {
        std::cmp::Ordering::Equal => return,
        std::cmp::Ordering::Less => "smaller than `size=`: `grow=on` makes it larger",
        std::cmp::Ordering::Greater => "larger than `size=`",
    };
    let file = disk.file.as_deref().unwrap_or_default();
    log::warn!("{file} was there, and is {is}; it has {}", Size(now));
}
