//! What `ctl` is asked for.

use crate::support::chance::Chance;

/// Each with ids of a few, so that they meet each other: what is there is added again, what is not is removed.
const CHANGES: &[&str] = &[
    "usb-add usb-kbd --id soak-usbN",
    "usb-add usb-tablet --id soak-usbN",
    "usb-remove soak-usbN",
    "usb-remove soak-usbN",
    "disk-add soak-diskN.qcow2,size=1M,bus=scsi,id=soak-diskN",
    "disk-add soak-diskN.qcow2,size=1M,bus=virtio,id=soak-diskN",
    "disk-remove soak-diskN --timeout 100ms",
    "disk-resize soak-diskN 2M",
    "disk-throttle soak-diskN --iops 100",
    "port-add 0:8N",
    "port-remove 0:8N",
    "nic-add user,id=soak-nicN",
    "nic-remove soak-nicN --timeout 100ms",
    "link down",
    "link up",
    "device-add virtio-rng-pci,id=soak-rngN",
    "device-remove soak-rngN --timeout 100ms",
    "media-change metadata soak.iso",
    "media-eject metadata --force",
    "snapshot-save soakN --overwrite",
    "snapshot-load soakN",
    "snapshot-delete soakN",
    "snapshot-list",
    "pause",
    "resume",
    "resume",
    "reset",
    "stats",
    "send-key ctrl-alt-delete",
    "wait running --timeout 10ms",
    "wait console=never --timeout 10ms",
    "qmp no-such-command",
    "qmp query-block",
    "hmp nonsense",
    "exec true",
];

pub(super) fn any(chance: &mut Chance) -> Vec<String> {
    let change = CHANGES[chance.below(CHANGES.len() as u64) as usize];
    let number = chance.below(3).to_string();
    change.split(' ').map(|word| word.replace('N', &number)).collect()
}
