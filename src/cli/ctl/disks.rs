//! `disk-list`, `disk-add`, `disk-resize`, `media-change`, `media-eject`, and the group of all that is about disks.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Subcommand};

use crate::control::{verbs, wire};
use crate::host::image::SECTOR;
use crate::machine;
use crate::spec::{DiskSpec, MediumSpec, Size};

use super::super::failure::Failure;
use super::super::lazy::Lazy;
use super::super::output::{Lines, bytes, wide_table};
use super::{Context, devices, throttle};

/// About disks and media.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the disks and CD-ROM drives
    DiskList,
    /// Plug a disk: [file=]PATH[,size=1G[,grow=on]][,format=F][,bus=B][,readonly=on][,serial=S][,id=ID]
    DiskAdd(Lazy<Add>),
    /// Ask the guest to release a disk, and unplug it
    DiskRemove(Lazy<devices::RemoveDisk>),
    /// Make a disk larger
    DiskResize(Lazy<Resize>),
    /// Limit what a disk does per second
    DiskThrottle(Lazy<throttle::Throttle>),
    /// Put another image into a CD-ROM drive
    MediaChange(Lazy<Change>),
    /// Take the medium out of a CD-ROM drive
    MediaEject(Lazy<Eject>),
}

impl Command {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        match self {
            Self::DiskList => list(context),
            Self::DiskAdd(Lazy(add)) => add.run(context),
            Self::DiskRemove(Lazy(remove)) => remove.run(
                context,
                |id, timeout_ms, force| verbs::RemoveDisk { id, timeout_ms, force },
                "disk",
            ),
            Self::DiskResize(Lazy(resize)) => resize.run(context),
            Self::DiskThrottle(Lazy(throttle)) => throttle.run(context),
            Self::MediaChange(Lazy(change)) => change.run(context),
            Self::MediaEject(Lazy(eject)) => eject.run(context),
        }
    }
}

/// `disk-list`.
fn list(context: &mut Context) -> Result<u8, Failure> {
    let verbs::DiskList { disks } = context.client.call(verbs::ListDisks {})?;
    context.output.print(&disks, || as_table(&disks))
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
            devices::state(&disk.phase, disk.taken),
        ]
    });
    let names = ["ID", "BUS", "SIZE", "FORMAT", "MODE", "SLOT", "STATE"];
    // most disks have no limits and no options: these columns are there for those that have
    let limits = disks.iter().map(|disk| disk.limits.as_ref().map(throttle::shown).unwrap_or_default());
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

/// What was said of a disk, as it is typed.
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

/// `disk-add`.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// [file=]PATH[,size=1G[,grow=on]][,format=F][,bus=virtio|scsi|usb|nvme][,readonly=on][,serial=S][,id=ID]
    /// [,cache=none|writeback|writethrough|directsync|unsafe][,aio=threads|native|io_uring][,discard=unmap|ignore]
    /// [,detect-zeroes=off|on|unmap][,logical-block-size=512|4096][,iothread=on][,boot=N]
    #[arg(value_parser = OsStringValueParser::new().try_map(|text: OsString| DiskSpec::parse(&text)))]
    disk: DiskSpec,
    /// A file, or a folder of files, that the image may lead to as backing or data files, besides its own folder; repeatable
    #[arg(long, value_name = "PATH")]
    allow_backing: Vec<PathBuf>,
}

impl Add {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let wanted = self.disk.size.map(Size::bytes);
        let call = machine::add_disk(self.disk, &self.allow_backing)?;
        let wire::DiskReply { disk } = context.client.call(call)?;
        if let (Some(wanted), Some(now)) = (wanted, disk.size_bytes) {
            tell_size(&disk, wanted.next_multiple_of(SECTOR), now);
        }
        devices::warn_if_not_taken(&disk.id, disk.taken);
        context.output.print(&disk, || disk.id.clone())
    }
}

/// An image that is there keeps its size, unless it is to grow.
fn tell_size(disk: &wire::Disk, wanted: u64, now: u64) {
    let is = match now.cmp(&wanted) {
        std::cmp::Ordering::Equal => return,
        std::cmp::Ordering::Less => "smaller than `size=`: `grow=on` makes it larger",
        std::cmp::Ordering::Greater => "larger than `size=`",
    };
    let file = disk.file.as_deref().unwrap_or_default();
    log::warn!("{file} was there, and is {is}; it has {}", Size(now));
}

/// `disk-resize`.
#[derive(Debug, Args)]
pub(super) struct Resize {
    /// As disk-list prints it
    id: String,
    /// The new size, e.g. 20G; a plain number is GB
    #[arg(value_parser = Size::of_disk)]
    size: Size,
}

impl Resize {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::ResizeDisk { id: self.id, size_bytes: machine::size_bytes(self.size) };
        let wire::DiskReply { disk } = context.client.call(call)?;
        context.output.print(&disk, || format!("{} has {} now", disk.id, bytes(disk.size_bytes.unwrap_or(0))))
    }
}

/// `media-change`.
#[derive(Debug, Args)]
pub(super) struct Change {
    /// The drive, as disk-list prints it
    id: String,
    /// The image: [file=]PATH[,format=raw|qcow2|…]
    #[arg(value_parser = OsStringValueParser::new().try_map(|text: OsString| MediumSpec::parse(&text)))]
    path: MediumSpec,
    /// A file, or a folder of files, that the image may lead to, besides its own folder; repeatable
    #[arg(long, value_name = "PATH")]
    allow_backing: Vec<PathBuf>,
}

impl Change {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let allow_backing = machine::allowed(&self.allow_backing)?;
        let file = machine::absolute_text(&self.path.file)?;
        let format = self.path.format.map(|format| format.as_str().to_owned());
        let call = verbs::ChangeMedia { id: self.id, file, allow_backing, format };
        let wire::DiskReply { disk } = context.client.call(call)?;
        context
            .output
            .print(&disk, || format!("{} has {} now", disk.id, disk.file.clone().unwrap_or_default()))
    }
}

/// `media-eject`.
#[derive(Debug, Args)]
pub(super) struct Eject {
    /// The drive, as disk-list prints it
    id: String,
    /// Even if the guest has locked the drive
    #[arg(long)]
    force: bool,
}

impl Eject {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::EjectMedia { id: self.id, force: Some(self.force) };
        let wire::DiskReply { disk } = context.client.call(call)?;
        context.output.print(&disk, || format!("{} is empty now", disk.id))
    }
}
