//! The names that vmrun itself gives to devices, block nodes and back-ends of a VM.

/// The back-end of [`NIC`].
pub const NETDEV: &str = "net0";
/// The network card from the start.
pub const NIC: &str = "nic0";
/// The USB controller, cold or hot-plugged.
pub const USB: &str = "usb0";
/// The SCSI controller, cold or hot-plugged.
pub const SCSI: &str = "scsi0";
/// The CD-ROM that an ISO is booted from.
pub const BOOT_CD: &str = "cd0";
/// The CD-ROM with the metadata.
pub const METADATA_CD: &str = "metadata";
/// The disk with the squashfs root.
pub const SQUASHFS: &str = "squashfs";
/// The panic device.
pub const PANIC: &str = "panic0";
/// The controller of the guest agent's port.
pub const VIRTIO_SERIAL: &str = "vserial0";
/// The guest agent's port.
pub const AGENT: &str = "agent0";
/// The chardev behind the guest agent's port.
pub const AGENT_CHARDEV: &str = "agent";
/// The random number device.
pub const RNG: &str = "rng0";
/// The video device.
pub const VIDEO: &str = "video0";
/// The keyboard of a VM with a video device.
pub const KEYBOARD: &str = "kbd0";
/// The pointer of a VM with a video device.
pub const TABLET: &str = "tablet0";
/// The console of s390x.
pub const CONSOLE: &str = "console0";

const FIXED: [&str; 17] = [
    NETDEV,
    NIC,
    USB,
    SCSI,
    BOOT_CD,
    METADATA_CD,
    SQUASHFS,
    PANIC,
    VIRTIO_SERIAL,
    AGENT,
    RNG,
    VIDEO,
    KEYBOARD,
    TABLET,
    CONSOLE,
    "pflash0",
    "pflash1",
];

/// What nothing of the user's begins with: what bears it may be closed or removed by vmrun.
pub const PREFIX: &str = "vmrun-";

/// Families of ids with a number: root ports, shared folders, AHCI controllers, media of CD drives (as they were called once).
const NUMBERED: [&str; 4] = ["slot", "share", "ahci", "medium"];

/// Whether vmrun gives this id to something of its own, so that nothing of the user's may have it.
///
/// ```
/// assert!(vmrun::qemu::ids::is_reserved("slot3"));
/// assert!(!vmrun::qemu::ids::is_reserved("data"));
/// ```
pub fn is_reserved(id: &str) -> bool {
    FIXED.contains(&id)
        || id.starts_with(PREFIX)
        || NUMBERED.iter().any(|family| {
            id.strip_prefix(family).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        })
        // node `<id>.file` of one of ours
        || id.strip_suffix(".file").is_some_and(is_reserved)
}

/// The id of root port `number` (from 1).
pub fn slot(number: usize) -> String {
    format!("slot{number}")
}

/// The id of shared folder `number` (from 0): of its device and of its chardev.
pub fn share(number: usize) -> String {
    format!("share{number}")
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
        for id in
            ["net0", "cd0", "slot12", "share0", "ahci0", "medium7", "pflash0", "cd0.file", "vmrun-medium-1"]
        {
            assert!(is_reserved(id), "{id}");
        }
        for id in ["disk0", "slot", "slots", "slot1a", "usb1", "net", "data.file"] {
            assert!(!is_reserved(id), "{id}");
        }
    }
}
