//! The resolved description of a VM: everything that makes its QEMU command line.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    Arch, Boot, BootOrder, DeviceId, Disk, Display, Firmware, Forward, Layout, MacAddress, Networking, Nic,
    OnPanic, Share, Size, VmName,
};

/// A VM, all choices made: paths are absolute, files exist, formats are known.
/// Written to `vm.json` in the run directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VmSpec {
    /// Name.
    pub name: VmName,
    /// SMBIOS system UUID.
    pub uuid: Uuid,
    /// How its own devices are named and placed.
    #[serde(default)]
    pub layout: Layout,
    /// Guest architecture.
    pub arch: Arch,
    /// `-machine` type if not the architecture's default.
    #[serde(default)]
    pub machine: Option<String>,
    /// `-cpu` model if not the default.
    #[serde(default)]
    pub cpu: Option<String>,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory.
    pub memory: Size,
    /// What it boots.
    pub boot: Boot,
    /// Firmware; none = the machine's own default.
    #[serde(default)]
    pub firmware: Option<Firmware>,
    /// What it shows.
    #[serde(default)]
    pub display: Display,
    /// Disks in order; with `Boot::Disk` the first is the boot image.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// The metadata ISO, a read-only CD-ROM `metadata`.
    #[serde(with = "super::fields::optional_path", default)]
    pub metadata: Option<PathBuf>,
    /// Networking mode.
    #[serde(default)]
    pub networking: Networking,
    /// Address of the network card.
    pub mac: MacAddress,
    /// More network cards, in their order.
    #[serde(default)]
    pub nics: Vec<Nic>,
    /// What the firmware tries, where that was said.
    #[serde(default)]
    pub boot_order: BootOrder,
    /// Forwards from the start, to the first card with user networking; host ports are decided by QEMU where 0.
    #[serde(default)]
    pub publish: Vec<Forward>,
    /// USB controller from the start.
    #[serde(default)]
    pub usb: bool,
    /// Extra devices with typed properties.
    #[serde(default)]
    pub devices: Vec<ExtraDevice>,
    /// Shared folders.
    #[serde(default)]
    pub shares: Vec<Share>,
    /// Spare slots.
    pub hotplug_slots: u8,
    /// Its memory is a file, so that it can be frozen into a template and forked.
    #[serde(default)]
    pub forkable: bool,
    /// What happens when the guest's kernel panics.
    #[serde(default)]
    pub on_panic: OnPanic,
    /// A reset by the guest ends the VM.
    #[serde(default)]
    pub no_reboot: bool,
    /// QEMU's seccomp sandbox.
    pub sandbox: bool,
    /// Arguments for QEMU, unchanged.
    #[serde(with = "super::fields::os_strings", default)]
    pub extra: Vec<OsString>,
}

impl VmSpec {
    /// The networks of all cards from the start, that of `--networking` first; each with the card's id, which that one has not.
    pub fn networks(&self) -> impl Iterator<Item = (Option<&DeviceId>, &Networking)> {
        let first = (self.networking != Networking::None).then_some((None, &self.networking));
        first.into_iter().chain(self.nics.iter().map(|nic| (Some(&nic.id), &nic.network)))
    }

    /// The card that forwards from the start lead to: the first of [`Self::networks`] with user networking if that is the one of
    /// `--networking`, else the one whose id is first. `Some(None)` is that of `--networking`.
    pub fn forwarding_card(&self) -> Option<Option<&DeviceId>> {
        self.networks().filter(|(_, network)| network.is_user()).map(|(id, _)| id).min()
    }

    /// Whether a card from the start is on a bridge.
    pub fn uses_bridge(&self) -> bool {
        self.networks().any(|(_, network)| matches!(network, Networking::Bridge(_)))
    }
}

/// A device of `--device` whose properties have JSON types (QEMU's JSON `-device` is strictly typed).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExtraDevice {
    /// QEMU's name of the device model.
    pub driver: String,
    /// Its id.
    pub id: DeviceId,
    /// Properties, without `driver` and `id`.
    pub properties: Map<String, Value>,
}

#[cfg(test)]
mod tests;
