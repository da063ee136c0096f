//! The names that vmrun itself gives to devices, block nodes and back-ends of a VM.
//!
//! What people name in commands (a card to pull, a drive to put a medium into, a slot) has a short name in every VM. All else bears
//! [`PREFIX`], which users do not type, so that every other id is the user's; in VMs that an earlier vmrun has started it has
//! the short names of then.

use crate::spec::Layout;

/// The back-end of [`NIC`].
pub const NETDEV: &str = "net0";
/// The network card from the start.
pub const NIC: &str = "nic0";
/// What tells the guest that it is a fork.
pub const GENERATION: &str = "vmrun-generation";
/// The CD-ROM that an ISO is booted from.
pub const BOOT_CD: &str = "cd0";
/// The CD-ROM with the metadata.
pub const METADATA_CD: &str = "metadata";
/// What nothing of the user's begins with: what bears it may be closed or removed by vmrun.
pub const PREFIX: &str = "vmrun-";

/// What has a short name because people name it.
const NAMED: [&str; 4] = [NETDEV, NIC, BOOT_CD, METADATA_CD];
/// Before the number of a root port.
const SLOT: &str = "slot";

/// The names of what only vmrun uses, in one VM.
#[derive(Debug, PartialEq, Eq)]
pub struct Ids {
    /// The USB controller, cold or hot-plugged.
    pub usb: &'static str,
    /// The first bus of the USB controller.
    pub usb_bus: &'static str,
    /// The SCSI controller, cold or hot-plugged.
    pub scsi: &'static str,
    /// The bus of the SCSI controller.
    pub scsi_bus: &'static str,
    /// The disk with the squashfs root.
    pub squashfs: &'static str,
    /// The panic device.
    pub panic: &'static str,
    /// The controller of the guest agent's port.
    pub virtio_serial: &'static str,
    /// The guest agent's port.
    pub agent: &'static str,
    /// The chardev behind the guest agent's port.
    pub agent_chardev: &'static str,
    /// The chardev of the console.
    pub console_chardev: &'static str,
    /// The chardev of the supervisor's monitor.
    pub monitor: &'static str,
    /// The chardev of the monitor of `--qmp`.
    pub user_monitor: &'static str,
    /// The random number device.
    pub rng: &'static str,
    /// The back-end of the random number device.
    pub entropy: &'static str,
    /// The guest's memory, where it is an object.
    pub memory: &'static str,
    /// The video device.
    pub video: &'static str,
    /// The keyboard of a VM with a video device.
    pub keyboard: &'static str,
    /// The pointer of a VM with a video device.
    pub tablet: &'static str,
    /// The console of s390x.
    pub console: &'static str,
    /// The firmware's code.
    pub flash_code: &'static str,
    /// The firmware's variables.
    pub flash_variables: &'static str,
    /// Before the number of a shared folder.
    share: &'static str,
    /// Before the number of an AHCI controller.
    ahci: &'static str,
    layout: Layout,
}

static GROWN: Ids = Ids {
    usb: "usb0",
    usb_bus: "usb0.0",
    scsi: "scsi0",
    scsi_bus: "scsi0.0",
    squashfs: "squashfs",
    panic: "panic0",
    virtio_serial: "vserial0",
    agent: "agent0",
    agent_chardev: "agent",
    console_chardev: "serial",
    monitor: "qmp",
    user_monitor: "user-qmp",
    rng: "rng0",
    entropy: "entropy0",
    memory: "memory0",
    video: "video0",
    keyboard: "kbd0",
    tablet: "tablet0",
    console: "console0",
    flash_code: "pflash0",
    flash_variables: "pflash1",
    share: "share",
    ahci: "ahci",
    layout: Layout::Grown,
};

static FIXED: Ids = Ids {
    usb: "vmrun-usb",
    usb_bus: "vmrun-usb.0",
    scsi: "vmrun-scsi",
    scsi_bus: "vmrun-scsi.0",
    squashfs: "vmrun-squashfs",
    panic: "vmrun-panic",
    virtio_serial: "vmrun-serial",
    agent: "vmrun-agent",
    agent_chardev: "vmrun-agent",
    console_chardev: "vmrun-console",
    monitor: "vmrun-qmp",
    user_monitor: "vmrun-user-qmp",
    rng: "vmrun-rng",
    entropy: "vmrun-entropy",
    memory: "vmrun-memory",
    video: "vmrun-video",
    keyboard: "vmrun-kbd",
    tablet: "vmrun-tablet",
    console: "vmrun-console",
    flash_code: "vmrun-flash0",
    flash_variables: "vmrun-flash1",
    share: "vmrun-share",
    ahci: "vmrun-ahci",
    layout: Layout::Fixed,
};

impl Ids {
    /// The names in a VM of this layout.
    pub fn of(layout: Layout) -> &'static Self {
        match layout {
            Layout::Grown => &GROWN,
            Layout::Fixed => &FIXED,
        }
    }

    /// The names in VMs of every layout, today's first.
    pub fn all() -> [&'static Self; 2] {
        [&FIXED, &GROWN]
    }

    /// Whether vmrun keeps this id for something of its own, so that nothing of the user's may have it.
    ///
    /// ```
    /// use vmrun::{qemu::ids::Ids, spec::Layout};
    ///
    /// let ids = Ids::of(Layout::Fixed);
    /// assert!(ids.is_reserved("slot3") && ids.is_reserved("vmrun-kbd"));
    /// assert!(!ids.is_reserved("kbd0"));
    /// ```
    pub fn is_reserved(&self, id: &str) -> bool {
        NAMED.contains(&id)
            || id.starts_with(PREFIX)
            || is_numbered(SLOT, id)
            || (self.layout == Layout::Grown && self.is_short(id))
            // node `<id>.file` of one of ours
            || id.strip_suffix(".file").is_some_and(|id| self.is_reserved(id))
    }

    /// The names that were reserved before there was a prefix.
    fn is_short(&self, id: &str) -> bool {
        let fixed = [
            self.usb,
            self.scsi,
            self.squashfs,
            self.panic,
            self.virtio_serial,
            self.agent,
            self.rng,
            self.video,
            self.keyboard,
            self.tablet,
            self.console,
            self.flash_code,
            self.flash_variables,
        ];
        fixed.contains(&id)
            || [self.share, self.ahci, "medium"].into_iter().any(|family| is_numbered(family, id))
    }

    /// The id of shared folder `number` (from 0): of its device and of its chardev.
    pub fn share(&self, number: usize) -> String {
        format!("{}{number}", self.share)
    }

    /// The id of AHCI controller `number` (from 0).
    pub fn ahci(&self, number: usize) -> String {
        format!("{}{number}", self.ahci)
    }
}

fn is_numbered(family: &str, id: &str) -> bool {
    id.strip_prefix(family).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// The id of root port `number` (from 1).
pub fn slot(number: usize) -> String {
    format!("{SLOT}{number}")
}

/// The id of the back-end of the network card `card`.
pub fn netdev(card: &str) -> String {
    match card {
        NIC => NETDEV.to_owned(),
        card => format!("{card}{}", crate::spec::nic::BACKEND_SUFFIX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_own() {
        let reserved = |id| [Layout::Fixed, Layout::Grown].map(|layout| Ids::of(layout).is_reserved(id));
        for id in ["net0", "nic0", "cd0", "metadata", "slot12", "cd0.file", "vmrun-medium-1", "vmrun-kbd"] {
            assert_eq!(reserved(id), [true, true], "{id}");
        }
        for id in ["kbd0", "usb0", "agent0", "share0", "ahci0", "medium7", "pflash0", "pflash1.file"] {
            assert_eq!(reserved(id), [false, true], "{id}");
        }
        for id in ["disk0", "slot", "slots", "slot1a", "usb1", "net", "data.file", "vmrun"] {
            assert_eq!(reserved(id), [false, false], "{id}");
        }
    }

    #[test]
    fn a_bus_is_named_after_its_controller() {
        for ids in Ids::all() {
            assert_eq!(ids.usb_bus, format!("{}.0", ids.usb));
            assert_eq!(ids.scsi_bus, format!("{}.0", ids.scsi));
        }
    }
}
