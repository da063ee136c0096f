//! Converts the VM's values to records of the protocol.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::qemu::snapshot::Snapshot;
use crate::spec::{BlockSize, DiskBus, Limits, Networking, Share};
use crate::vm::{DeviceKind, Entry, Kind, NicFacts, Origin, Phase, Published, RunRecord, RunState, Status};

use super::wire;

/// Everything that is known of a VM.
pub(super) fn status(status: &Status) -> wire::Status {
    let state = match status.run_state {
        _ if status.stopping => "stopping".to_owned(),
        RunState::Off => "stopping".to_owned(),
        state => state.to_string(),
    };
    let devices = status.devices.iter();
    let origin = &status.origin;
    wire::Status {
        name: origin.name().to_string(),
        state,
        reason: status.reason.clone(),
        outcome: None,
        ended_unix_ms: None,
        uptime_ms: milliseconds(status.uptime()),
        uuid: origin.uuid().to_string(),
        arch: origin.target(),
        machine: origin.machine().to_owned(),
        cpus: origin.cpus(),
        memory_bytes: origin.memory().bytes(),
        accel: status.facts.host.accel.to_string(),
        accel_reason: status.facts.accel_reason.clone(),
        sandbox: origin.sandbox(),
        wrapped: Some(origin.is_wrapped()),
        qemu_version: status.facts.qemu_version.clone(),
        qemu_pid: status.facts.qemu_pid,
        supervisor_pid: std::process::id(),
        supervisor_version: env!("CARGO_PKG_VERSION").to_owned(),
        detached: status.facts.detached,
        run_directory: status.facts.run_directory.to_string_lossy().into_owned(),
        state_directory: status.facts.state_directory.to_string_lossy().into_owned(),
        template: status.facts.template.as_ref().map(|folder| folder.to_string_lossy().into_owned()),
        // asked for where it is wanted: it changes without the VM
        siblings: None,
        shares: shares(origin),
        networking: origin.networking(),
        mac: origin.mac(),
        usb: devices.clone().filter(|entry| DeviceKind::Usb.fits(entry)).map(usb).collect(),
        disks: devices.clone().filter(|entry| DeviceKind::Disk.fits(entry)).map(disk).collect(),
        forwards: status.forwards.iter().map(forward).collect(),
        devices: devices
            .filter(|entry| matches!(entry.kind, Kind::Other | Kind::Controller))
            .map(device)
            .collect(),
        nics: Some(status.nics().map(|(entry, _)| nic(entry)).collect()),
        slots_total: status.slots_total,
        slots_used: status.slots_used,
        slots: status
            .slots
            .iter()
            .map(|(name, device)| wire::Slot { name: name.clone(), device: device.clone() })
            .collect(),
    }
}

/// A duration in the protocol's unit.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A forward.
/// The shared folders; `None`: there are none, or they are not vmrun's.
fn shares(origin: &Origin) -> Option<Vec<wire::Share>> {
    let shares = origin.spec().map(|spec| spec.shares.as_slice()).filter(|shares| !shares.is_empty())?;
    let share = |share: &Share| wire::Share {
        directory: share.directory.to_string_lossy().into_owned(),
        tag: share.tag.clone(),
    };
    Some(shares.iter().map(share).collect())
}

pub(super) fn forward(published: &Published) -> wire::Forward {
    let Published { forward, nic } = published;
    wire::Forward {
        address: forward.address.to_string(),
        host_port: forward.host,
        guest_port: forward.guest,
        protocol: forward.protocol.to_string(),
        nic: nic.clone(),
    }
}

fn phase(phase: Phase) -> String {
    match phase {
        Phase::Adding => "adding",
        Phase::Present => "present",
        Phase::Removing => "removing",
    }
    .to_owned()
}

/// A USB device.
pub(super) fn usb(entry: &Entry) -> wire::Usb {
    let description = match &entry.kind {
        Kind::Usb { description, .. } => description.clone(),
        _ => String::new(),
    };
    wire::Usb {
        id: entry.id.to_string(),
        driver: entry.driver.clone(),
        description,
        phase: phase(entry.phase),
        taken: entry.taken,
    }
}

/// A disk.
pub(super) fn disk(entry: &Entry) -> wire::Disk {
    let facts = entry.kind.disk();
    let options = facts.map(|facts| facts.options).unwrap_or_default();
    wire::Disk {
        id: entry.id.to_string(),
        file: facts.and_then(|facts| facts.file.clone()),
        format: facts.and_then(|facts| facts.format).map(|format| format.to_string()),
        bus: facts.map_or(DiskBus::Virtio, |facts| facts.bus).to_string(),
        size_bytes: facts.and_then(|facts| facts.size_bytes),
        readonly: facts.is_some_and(|facts| facts.readonly),
        removable: facts.is_some_and(|facts| facts.removable),
        serial: facts.and_then(|facts| facts.serial.clone()),
        slot: entry.slot.clone(),
        phase: phase(entry.phase),
        taken: entry.taken,
        limits: facts.map(|facts| facts.limits).filter(|limits| !limits.is_empty()).map(wire_limits),
        cache: options.cache.map(|mode| mode.to_string()),
        aio: options.aio.map(|mode| mode.to_string()),
        discard: options.discard.map(|mode| mode.to_string()),
        detect_zeroes: options.zeroes().map(|mode| mode.to_string()),
        logical_block_size: options.logical_block_size.map(BlockSize::bytes),
        iothread: options.iothread,
        boot: options.boot,
    }
}

fn wire_limits(limits: Limits) -> wire::Limits {
    let Limits { operations, bytes } = limits;
    wire::Limits {
        iops: operations.total,
        iops_read: operations.read,
        iops_write: operations.write,
        bytes_per_s: bytes.total,
        bytes_per_s_read: bytes.read,
        bytes_per_s_write: bytes.write,
    }
}

/// A network card.
pub(super) fn nic(entry: &Entry) -> wire::Nic {
    let facts = entry.kind.nic();
    let network = facts.and_then(|facts| facts.network.as_ref());
    let user = facts.and_then(NicFacts::user);
    wire::Nic {
        id: entry.id.to_string(),
        driver: entry.driver.clone(),
        network: network.map_or_else(|| "other".to_owned(), Networking::without_options),
        net: user.map(|user| user.subnet().to_string()),
        dns: user.and_then(|user| user.dns).map(|dns| dns.to_string()),
        hostname: user.and_then(|user| user.hostname.as_ref()).map(ToString::to_string),
        restrict: user.map(|user| user.restrict).filter(|restrict| *restrict),
        interface: facts.and_then(|facts| facts.interface.clone()),
        mac: facts.and_then(|facts| facts.mac).map(|mac| mac.to_string()),
        link_up: facts.is_none_or(|facts| facts.link_up),
        slot: entry.slot.clone(),
        phase: phase(entry.phase),
        taken: entry.taken,
    }
}

/// Any other device.
pub(super) fn device(entry: &Entry) -> wire::Device {
    wire::Device {
        id: entry.id.to_string(),
        driver: entry.driver.clone(),
        slot: entry.slot.clone(),
        phase: phase(entry.phase),
        taken: entry.taken,
    }
}

/// A snapshot.
pub(super) fn snapshot(snapshot: &Snapshot) -> wire::Snapshot {
    wire::Snapshot {
        name: snapshot.name.clone(),
        id: snapshot.id.clone(),
        created_unix_ms: snapshot.created_unix_ms,
        vm_clock_ms: snapshot.vm_clock_ms,
        state_bytes: snapshot.state_bytes,
        disks: snapshot.disks.clone(),
        missing: snapshot.missing.clone(),
        loadable: snapshot.is_complete(),
    }
}

/// The status of a VM that has ended. Its devices have gone with it.
pub(super) fn ended(record: &RunRecord) -> wire::Status {
    let last = Status {
        origin: Arc::new(record.description.origin.clone()),
        facts: Arc::new(record.description.facts.clone()),
        run_state: RunState::Off,
        stopping: false,
        reason: None,
        started: Instant::now(),
        devices: Vec::new(),
        forwards: Vec::new(),
        slots: Vec::new(),
        slots_total: 0,
        slots_used: 0,
    };
    wire::Status {
        state: "ended".to_owned(),
        outcome: Some(record.outcome.clone()),
        ended_unix_ms: Some(record.ended_unix_ms),
        uptime_ms: record
            .ran_ms
            .unwrap_or_else(|| record.ended_unix_ms.saturating_sub(record.description.facts.started_unix_ms)),
        supervisor_pid: 0,
        ..status(&last)
    }
}
