//! What the books have of one device, and of one forward.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::qemu::ids;
use crate::qemu::media::Medium;
use crate::qmp::hmp::ForwardLine;
use crate::spec::{
    DeviceId, DiskBus, DiskOptions, FileId, Forward, ImageFormat, Limits, MacAddress, Networking, UserNet,
};

/// Where a device is on its way in or out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Reserved; QEMU has not confirmed it yet.
    Adding,
    /// In the machine.
    Present,
    /// The guest was asked to release it.
    Removing,
}

/// A device of the VM.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// QEMU's id of it.
    pub id: DeviceId,
    /// QEMU's device model.
    pub driver: String,
    /// The slot's name, where it is in one.
    pub slot: Option<String>,
    /// On its way in or out.
    pub phase: Phase,
    /// Whether the guest has taken it; none = that is not known, or it was there from the start.
    pub taken: Option<bool>,
    /// What it is.
    pub kind: Kind,
}

/// What a device is, with the facts of its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A USB device that is not a disk of `disk-add`.
    Usb {
        /// For people, e.g. `046d:c52b Logitech Unifying Receiver`.
        description: String,
        /// Its image, if it is a stick: its block nodes are deleted with it.
        file: Option<String>,
        /// Identity of that image.
        identity: Option<FileId>,
    },
    /// A disk or CD-ROM drive.
    Disk(DiskFacts),
    /// Anything else that was asked for by name.
    Other,
    /// A network card.
    Nic(NicFacts),
    /// Made by vmrun for others to be plugged into (USB or SCSI controller).
    Controller,
}

/// The facts of a network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicFacts {
    /// What it is connected to; none = something that was made by hand in QEMU's monitor.
    pub network: Option<Networking>,
    /// The host's interface behind it, where there is one and it is known.
    pub interface: Option<String>,
    /// Its address; none = it could not be made out.
    pub mac: Option<MacAddress>,
    /// QEMU's id of its back-end.
    pub netdev: String,
    /// Its cable is plugged.
    pub link_up: bool,
    /// The back-end is somebody else's: it stays when the card goes.
    pub foreign: bool,
}

impl NicFacts {
    /// What is said of user networking, if it is on that.
    pub fn user(&self) -> Option<&UserNet> {
        self.network.as_ref().and_then(Networking::user)
    }

    /// The facts of a new card.
    pub fn new(id: &str, network: Networking, mac: MacAddress) -> Self {
        let interface = match &network {
            Networking::Tap(name) => Some(name.to_string()),
            _ => None,
        };
        Self {
            network: Some(network),
            interface,
            mac: Some(mac),
            netdev: ids::netdev(id),
            link_up: true,
            foreign: false,
        }
    }
}

/// A forward and the back-end that it hangs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The forward; its host port is not 0.
    pub forward: Forward,
    /// QEMU's id of the back-end.
    pub netdev: String,
}

impl Bound {
    /// Where the forward listens that a wait for a guest's port makes for itself: on Linux all of 127.0.0.0/8 is this machine, and
    /// nobody else uses this one. So it is told from what users have made, also by a supervisor that finds it in QEMU.
    pub const PROBE: Ipv4Addr =
        if cfg!(target_os = "linux") { Ipv4Addr::new(127, 118, 109, 114) } else { Ipv4Addr::LOCALHOST };

    /// Made by a wait for a guest's port, for as long as that takes: nobody is told of it.
    pub fn is_probe(&self) -> bool {
        self.forward.address == Self::PROBE && Self::PROBE != Ipv4Addr::LOCALHOST
    }
}

impl From<ForwardLine> for Bound {
    fn from(line: ForwardLine) -> Self {
        let ForwardLine { address, host_port: host, guest_port: guest, protocol, netdev, .. } = line;
        Self { forward: Forward { address, host, guest, protocol }, netdev }
    }
}

/// The facts of a disk or drive.
#[derive(Debug, Clone, PartialEq)]
pub struct DiskFacts {
    /// The image as text for people; none = a drive without a medium.
    pub file: Option<String>,
    /// The image's format.
    pub format: Option<ImageFormat>,
    /// How it is attached.
    pub bus: DiskBus,
    /// Virtual size in bytes, once known.
    pub size_bytes: Option<u64>,
    /// Attached read-only.
    pub readonly: bool,
    /// A CD-ROM drive.
    pub removable: bool,
    /// Shown to the guest.
    pub serial: Option<String>,
    /// Name of the medium's block nodes in QEMU; none = no medium.
    pub node: Option<String>,
    /// Identity of the image, to refuse a second use of it.
    pub identity: Option<FileId>,
    /// The medium's block nodes are somebody else's: they stay when the device or the medium goes.
    pub foreign: bool,
    /// What it may do per second.
    pub limits: Limits,
    /// What was said of it besides.
    pub options: DiskOptions,
}

impl DiskFacts {
    /// What is in the drive.
    pub fn medium(&self) -> Option<Medium<'_>> {
        self.node.as_deref().map(|node| Medium { node, foreign: self.foreign })
    }

    /// The block nodes that go with the medium.
    pub fn own_node(&self) -> Option<&str> {
        self.node.as_deref().filter(|_| !self.foreign)
    }
}
