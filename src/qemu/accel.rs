//! Accelerator and processor.

use super::machine::Family;
use super::{HostFacts, Machine, models};
use crate::spec::{Accel, Arch, VmSpec};

/// `-accel`.
pub(super) fn accel(accel: Accel) -> &'static str {
    match accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "tcg",
    }
}

/// `-cpu`; none leaves the machine's default.
pub(super) fn cpu(spec: &VmSpec, host: &HostFacts) -> Option<String> {
    if let Some(model) = &spec.cpu {
        return Some(model.clone());
    }
    let model = match host.accel {
        Accel::Kvm => Some("host"),
        Accel::Tcg => spec.arch.facts().emulated_cpu,
    };
    model.map(str::to_owned)
}

/// `-global`: properties of all disks, those from the start and those that are plugged.
///
/// Without an accelerator that sends a guest's requests elsewhere while its processor goes on, an eventfd takes them to QEMU's main
/// loop for nothing: reads of 4 KiB were 0.85 times as many as those of a SATA disk with it, and 0.95 times without (QEMU 7.2).
pub(super) fn device_defaults(machine: &Machine, host: &HostFacts) -> Vec<String> {
    if host.accel != Accel::Tcg || !machine.has_pci() {
        return Vec::new();
    }
    [models::VIRTIO_DISK, models::VIRTIO_SCSI]
        .map(|kind| format!("{}.ioeventfd=off", machine.virtio(kind)))
        .into()
}

/// The interrupt controller's version, where `-machine` needs it.
pub(super) fn gic_version(machine: &Machine, host: &HostFacts) -> Option<&'static str> {
    let is_virt = machine.family() == Family::Virt && machine.arch() == Arch::Aarch64;
    let chosen_by_user = machine.kind().contains("gic-version=");
    if !is_virt || chosen_by_user {
        return None;
    }
    match host.accel {
        Accel::Kvm => Some("host"),
        Accel::Tcg => Some("3"),
    }
}
