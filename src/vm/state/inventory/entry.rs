//! The inventory's entry of one device, and of one forward.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::kind::Kind;
use crate::qemu::ids;
use crate::qemu::media::Medium;
use crate::qmp::hmp::ForwardLine;
use crate::spec::{
    DeviceId, DiskBus, DiskOptions, FileId, Forward, ImageFormat, Limits, MacAddress, Networking, UserNet,
};

/// Whether a device is being added or removed.
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
    /// Its id in QEMU.
    pub id: DeviceId,
    /// QEMU's device model.
    pub driver: String,
    /// The slot's name, if it is in one.
    pub slot: Option<String>,
    /// Whether it is being added or removed.
    pub phase: Phase,
    /// Whether the guest uses it; `None` = unknown, or there from the start.
    pub taken: Option<bool>,
    /// Its kind.
    pub kind: Kind,
}

/// The facts of a network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicFacts {
    /// Its network; `None` = made by hand in QEMU's monitor.
    pub network: Option<Networking>,
    /// The host's interface behind it, if there is one and it is known.
    pub interface: Option<String>,
    /// Its MAC address; `None` = unknown.
    pub mac: Option<MacAddress>,
    /// QEMU's id of its back-end.
    pub netdev: String,
    /// Its cable is plugged.
    pub link_up: bool,
    /// The back-end is not vmrun's: it stays when the card is removed.
    pub foreign: bool,
}

impl NicFacts {
    /// The settings of user networking, if it has that.
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

/// A forward and its back-end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The forward; its host port is not 0.
    pub forward: Forward,
    /// QEMU's id of the back-end.
    pub netdev: String,
}

impl Bound {
    /// The host address of the forward that a wait for a guest's port makes for itself: on Linux all of 127.0.0.0/8 is this host,
    /// and no other program uses this address. So it differs from users' forwards, also for a supervisor that finds it in QEMU.
    pub const PROBE: Ipv4Addr =
        if cfg!(target_os = "linux") { Ipv4Addr::new(127, 118, 109, 114) } else { Ipv4Addr::LOCALHOST };

    /// Made by a wait for a guest's port, for its duration: never shown.
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
    /// The image's name for display; `None` = a drive without a medium.
    pub file: Option<String>,
    /// The image's format.
    pub format: Option<ImageFormat>,
    /// Its bus.
    pub bus: DiskBus,
    /// Virtual size in bytes, if known.
    pub size_bytes: Option<u64>,
    /// Attached read-only.
    pub readonly: bool,
    /// A CD-ROM drive.
    pub removable: bool,
    /// The serial number that the guest sees.
    pub serial: Option<String>,
    /// Name of the medium's block nodes in QEMU; `None` = no medium.
    pub node: Option<String>,
    /// Identity of the image, to refuse a second use of it.
    pub identity: Option<FileId>,
    /// The medium's block nodes are not vmrun's: they stay when the device or the medium is removed.
    pub foreign: bool,
    /// Its I/O limits.
    pub limits: Limits,
    /// Its further options.
    pub options: DiskOptions,
}

impl DiskFacts {
    /// The medium in the drive.
    pub fn medium(&self) -> Option<Medium<'_>> {
        self.node.as_deref().map(|node| Medium { node, foreign: self.foreign })
    }

    /// The block nodes that go with the medium.
    pub fn own_node(&self) -> Option<&str> {
        self.node.as_deref().filter(|_| !self.foreign)
    }
}
