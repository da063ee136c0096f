//! Disks: what was typed ([`DiskSpec`]) and what is meant ([`Disk`]).

mod error;
mod options;
mod parse;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use error::DiskError;
pub use options::{AioMode, BlockSize, CacheMode, DiscardMode, DiskOptions, ZeroesMode};
pub use parse::checked_serial;

use super::id::DeviceId;
use super::image::Image;
use super::size::Size;
use super::words::word_type;

/// An image format, by QEMU's driver name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// Bytes as they are.
    Raw,
    /// QEMU copy on write, version 2 or 3.
    Qcow2,
    /// VMware.
    Vmdk,
    /// VirtualBox.
    Vdi,
    /// Hyper-V.
    Vhdx,
    /// Virtual PC (`.vhd`).
    Vpc,
    /// QEMU enhanced disk.
    Qed,
}

word_type!(ImageFormat, "image format", {
    Raw = "raw",
    Qcow2 = "qcow2",
    Vmdk = "vmdk",
    Vdi = "vdi",
    Vhdx = "vhdx",
    Vpc = "vpc" | "vhd",
    Qed = "qed",
});

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskBus {
    /// `virtio-blk-pci` or `-ccw`.
    #[default]
    Virtio,
    /// `scsi-hd` on a `virtio-scsi` controller.
    Scsi,
    /// `ide-hd` on AHCI; cannot be hot-plugged.
    Sata,
    /// `usb-storage`.
    Usb,
    /// `nvme`.
    Nvme,
}

word_type!(DiskBus, "disk bus", {
    Virtio = "virtio",
    Scsi = "scsi",
    Sata = "sata",
    Usb = "usb",
    Nvme = "nvme",
});

/// `--disk` and `disk-add`: `[file=]PATH[,size=1G[,grow=on]][,format=qcow2][,bus=…][,readonly=on|off][,serial=S][,id=ID]`,
/// and the options of [`DiskOptions`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskSpec {
    /// The image; none = a default name in the state directory.
    pub file: Option<PathBuf>,
    /// To create it with, if it does not exist.
    pub size: Option<Size>,
    /// An image that is smaller than `size` is made larger; the partitions in it stay as they are.
    pub grow: bool,
    /// The format; none = found out (or qcow2 for a new `*.qcow2`, else raw).
    pub format: Option<ImageFormat>,
    /// The bus.
    pub bus: DiskBus,
    /// Attached read-only.
    pub readonly: bool,
    /// Serial number shown to the guest: 1 to 20 printable ASCII characters (virtio-blk's limit).
    pub serial: Option<String>,
    /// Id; none = vmrun picks one.
    pub id: Option<DeviceId>,
    /// Everything else.
    pub options: DiskOptions,
}

/// A disk whose image and id are decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Device id; the block nodes are named after it (`<id>` the format node, `<id>.file` the file node).
    pub id: DeviceId,
    /// The image.
    #[serde(flatten)]
    pub image: Image,
    /// The bus.
    pub bus: DiskBus,
    /// Attached read-only.
    #[serde(default)]
    pub readonly: bool,
    /// Shown to the guest.
    #[serde(default)]
    pub serial: Option<String>,
    /// Everything else.
    #[serde(default)]
    pub options: DiskOptions,
}
