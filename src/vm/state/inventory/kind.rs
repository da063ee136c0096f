//! The kinds of devices: what each is called, what it sits behind, what of it stays in QEMU. What is decided by the kind alone is
//! decided here; a new kind is a variant, for which the compiler demands every answer.

use super::entry::{DiskFacts, Entry, NicFacts};
use crate::qemu::models::OnBus;
use crate::qemu::plan::Controller;
use crate::spec::FileId;

/// The kind of device that a request is for, so that `usb-remove` cannot remove a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// `usb-remove`.
    Usb,
    /// `disk-remove`.
    Disk,
    /// `nic-remove`.
    Nic,
    /// `device-remove`: any kind.
    Any,
}

impl DeviceKind {
    /// What it is called in messages.
    pub fn label(self) -> &'static str {
        match self {
            Self::Usb => "USB device",
            Self::Disk => "disk",
            Self::Nic => "network card",
            Self::Any => "device",
        }
    }

    /// Whether a device is of this kind.
    pub fn fits(self, entry: &Entry) -> bool {
        match self {
            Self::Usb => matches!(entry.kind, Kind::Usb { .. }),
            Self::Disk => entry.kind.disk().is_some(),
            Self::Nic => entry.kind.nic().is_some(),
            Self::Any => true,
        }
    }
}

/// The kind of a device, with its facts.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A USB device that is not a disk of `disk-add`.
    Usb {
        /// Description for display, e.g. `046d:c52b Logitech Unifying Receiver`.
        description: String,
        /// Its image, if it is a stick: its block nodes are deleted with it.
        file: Option<String>,
        /// Identity of that image.
        identity: Option<FileId>,
    },
    /// A disk or CD-ROM drive.
    Disk(DiskFacts),
    /// Any other device that was requested by name.
    Other,
    /// A network card.
    Nic(NicFacts),
    /// A controller that vmrun has made for other devices (USB or SCSI).
    Controller,
}

impl Kind {
    /// The facts of a disk or CD-ROM drive.
    pub fn disk(&self) -> Option<&DiskFacts> {
        if let Self::Disk(facts) = self { Some(facts) } else { None }
    }

    /// The same, to change them.
    pub fn disk_mut(&mut self) -> Option<&mut DiskFacts> {
        if let Self::Disk(facts) = self { Some(facts) } else { None }
    }

    /// The facts of a network card.
    pub fn nic(&self) -> Option<&NicFacts> {
        if let Self::Nic(facts) = self { Some(facts) } else { None }
    }

    /// The same, to change them.
    pub fn nic_mut(&mut self) -> Option<&mut NicFacts> {
        if let Self::Nic(facts) = self { Some(facts) } else { None }
    }

    /// The controller on whose bus the device sits, if it has no slot of its own.
    pub fn controller(&self) -> Option<Controller> {
        match self {
            Self::Usb { .. } => Some(Controller::Usb),
            Self::Disk(facts) => OnBus::of(facts.bus).controller,
            Self::Nic(_) | Self::Other | Self::Controller => None,
        }
    }

    /// Whether QEMU lists it as a block device.
    pub fn is_block_device(&self) -> bool {
        match self {
            Self::Usb { file, .. } => file.is_some(),
            Self::Disk(_) => true,
            Self::Nic(_) | Self::Other | Self::Controller => false,
        }
    }

    /// Whether something of it stays in QEMU when the device is removed.
    pub fn has_backend(&self) -> bool {
        match self {
            Self::Usb { file, .. } => file.is_some(),
            Self::Disk(facts) => facts.own_node().is_some(),
            Self::Nic(facts) => !facts.foreign,
            Self::Other | Self::Controller => false,
        }
    }

    /// Identity of the image that it uses.
    pub fn image(&self) -> Option<FileId> {
        match self {
            Self::Usb { identity, .. } => *identity,
            Self::Disk(facts) => facts.identity,
            Self::Nic(_) | Self::Other | Self::Controller => None,
        }
    }
}
