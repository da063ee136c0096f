//! The description of a VM, from the request, the plan and what was made.

use std::path::PathBuf;

use uuid::Uuid;

use crate::qemu::{self, models};
use crate::spec::vm::ExtraDevice;
use crate::spec::{Layout, MacAddress, Nic, Request, VmName, VmSpec};

use super::plan::Plan;
use crate::vm::process::shares;
use crate::vm::start_error::StartError;

/// What is made or found for a description.
pub(super) struct SpecParts {
    pub(super) name: VmName,
    pub(super) uuid: Uuid,
    pub(super) mac: MacAddress,
    pub(super) nics: Vec<Nic>,
    pub(super) disks: Vec<crate::spec::Disk>,
    pub(super) firmware: Option<crate::spec::Firmware>,
    pub(super) metadata: Option<PathBuf>,
}

/// The description of a VM, with nothing left open.
pub(super) fn spec(request: &Request, plan: &Plan, parts: SpecParts) -> Result<VmSpec, StartError> {
    let usb_driver =
        |device: &ExtraDevice| models::is_usb(&device.driver) && !device.properties.contains_key("bus");
    let spec = VmSpec {
        name: parts.name,
        uuid: parts.uuid,
        layout: Layout::Fixed,
        arch: plan.arch,
        machine: request.machine.clone(),
        cpu: request.cpu.clone(),
        cpus: request.cpus,
        memory: request.memory,
        boot: plan.boot.clone(),
        firmware: parts.firmware,
        display: plan.display.clone(),
        disks: parts.disks,
        metadata: parts.metadata,
        networking: plan.cards.networking.clone(),
        mac: parts.mac,
        nics: parts.nics,
        boot_order: request.boot_order.clone(),
        publish: request.publish.clone(),
        usb: request.usb || plan.devices.iter().any(usb_driver),
        devices: plan.devices.clone(),
        shares: shares::resolve(request)?,
        hotplug_slots: request.hotplug_slots,
        forkable: request.forkable,
        on_panic: request.on_panic,
        no_reboot: request.no_reboot,
        sandbox: request.sandbox,
        extra: request.extra.clone(),
    };
    // QEMU's bridge helper gains no privileges under any filter (see the command line): `status` must report what is in force
    let spec = VmSpec { sandbox: spec.sandbox && !spec.uses_bridge(), ..spec };
    qemu::check(&spec)?;
    Ok(spec)
}
