//! Between the protocol's values and the VM's.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;

use crate::qemu::Command;
use crate::spec::nic::checked_id;
use crate::spec::{BlockSize, DeviceId, DiskBus, Forward, LimitError, Limits, NicSpec, Rates};
use crate::vm::{Change, ChangeError, Entry, Kind, Phase, Published, RunState, Status, Wrapped};

use super::wire;

/// A parameter by its own grammar.
pub(super) fn parse<T: FromStr<Err: std::error::Error + 'static>>(
    parameter: &str,
    text: &str,
) -> Result<T, ChangeError> {
    text.parse().map_err(|error: T::Err| ChangeError::invalid(parameter, error))
}

/// A path, which must be absolute: the supervisor's working directory is not the client's.
pub(super) fn absolute(parameter: &str, text: &str) -> Result<PathBuf, ChangeError> {
    let path = Path::new(text);
    match path.is_absolute() {
        true => Ok(path.to_owned()),
        false => Err(ChangeError::invalid(parameter, format!("the path '{text}' must be absolute"))),
    }
}

/// A port number.
pub(super) fn port(parameter: &str, number: i64) -> Result<u16, ChangeError> {
    u16::try_from(number)
        .map_err(|_| ChangeError::invalid(parameter, format!("{number} is not a port (0 to 65535)")))
}

/// The change that `AddForward` asks for.
pub(super) fn add_forward(call: wire::AddForward) -> Result<Change, ChangeError> {
    let guest = port("guest_port", call.guest_port)?;
    if guest == 0 {
        return Err(ChangeError::invalid("guest_port", "the guest port may not be 0"));
    }
    let forward = Forward {
        address: call.address.map_or(Ok(Ipv4Addr::LOCALHOST), |address| parse("address", &address))?,
        host: port("host_port", call.host_port)?,
        guest,
        protocol: call.protocol.map(|protocol| parse("protocol", &protocol)).transpose()?.unwrap_or_default(),
    };
    Ok(Change::AddForward { forward, nic: call.nic })
}

/// The command that `Qmp` carries.
pub(super) fn qmp_command(command: Value) -> Result<Command, ChangeError> {
    let invalid = |why: &str| ChangeError::invalid("command", why);
    let Value::Object(mut fields) = command else {
        return Err(invalid("a QMP command is an object such as {\"execute\": \"query-block\"}"));
    };
    let Some(Value::String(execute)) = fields.remove("execute") else {
        return Err(invalid("a QMP command needs a string 'execute'"));
    };
    let arguments = match fields.remove("arguments") {
        None => serde_json::Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return Err(invalid("'arguments' must be an object")),
    };
    // an id of the client's own means nothing on the shared session
    fields.remove("id");
    if let Some(other) = fields.keys().next() {
        return Err(invalid(&format!("a QMP command has no member '{other}'")));
    }
    Ok(Command { execute, arguments })
}

/// Everything that is known of a VM.
pub(super) fn status(status: &Status) -> wire::Status {
    let state = match status.run_state {
        _ if status.stopping => "stopping".to_owned(),
        RunState::Off => "stopping".to_owned(),
        state => state.to_string(),
    };
    let machine = status.spec.machine.clone();
    let devices = status.devices.iter();
    let wrapped = status.facts.wrapped.as_ref();
    let or_own = |of_wrapped: fn(&Wrapped) -> String, own: String| wrapped.map_or(own, of_wrapped);
    wire::Status {
        name: status.spec.name.to_string(),
        state,
        reason: status.reason.clone(),
        outcome: None,
        ended_unix_ms: None,
        uptime_ms: milliseconds(status.uptime()),
        uuid: status.spec.uuid.to_string(),
        arch: or_own(|wrapped| wrapped.target.clone(), status.spec.arch.to_string()),
        machine: machine.unwrap_or_else(|| status.spec.arch.facts().machine.to_owned()),
        cpus: status.spec.cpus,
        memory_bytes: status.spec.memory.bytes(),
        accel: status.facts.host.accel.to_string(),
        accel_reason: status.facts.accel_reason.clone(),
        sandbox: status.spec.sandbox,
        wrapped: Some(wrapped.is_some()),
        qemu_version: status.facts.qemu_version.clone(),
        qemu_pid: status.facts.qemu_pid,
        supervisor_pid: std::process::id(),
        supervisor_version: env!("CARGO_PKG_VERSION").to_owned(),
        detached: status.facts.detached,
        run_directory: status.facts.run_directory.to_string_lossy().into_owned(),
        state_directory: status.facts.state_directory.to_string_lossy().into_owned(),
        networking: or_own(|wrapped| wrapped.networking.clone(), status.spec.networking.to_string()),
        mac: or_own(|wrapped| wrapped.mac.clone().unwrap_or_default(), status.spec.mac.to_string()),
        usb: devices.clone().filter(|entry| matches!(entry.kind, Kind::Usb { .. })).map(usb).collect(),
        disks: devices.clone().filter(|entry| matches!(entry.kind, Kind::Disk(_))).map(disk).collect(),
        forwards: status.forwards.iter().map(wire_forward).collect(),
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

/// A time as it travels.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A forward.
pub(super) fn wire_forward(published: &Published) -> wire::Forward {
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
    let facts = match &entry.kind {
        Kind::Disk(facts) => Some(facts),
        _ => None,
    };
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

/// The limits that `ThrottleDisk` asks for; none = no limits any more.
pub(super) fn limits(call: &wire::ThrottleDisk) -> Result<Option<Limits>, ChangeError> {
    let limit = |parameter: &str, limit: Option<i64>| {
        let why = || ChangeError::invalid(parameter, LimitError::Zero);
        limit.map(|limit| u64::try_from(limit).map_err(|_| why())).transpose()
    };
    let limits = Limits {
        operations: Rates {
            total: limit("iops", call.iops)?,
            read: limit("iops_read", call.iops_read)?,
            write: limit("iops_write", call.iops_write)?,
        },
        bytes: Rates {
            total: limit("bytes_per_s", call.bytes_per_s)?,
            read: limit("bytes_per_s_read", call.bytes_per_s_read)?,
            write: limit("bytes_per_s_write", call.bytes_per_s_write)?,
        },
    };
    match (call.off.unwrap_or(false), limits.is_empty()) {
        (true, true) => Ok(None),
        (true, false) => Err(ChangeError::invalid("off", "limits are either set or taken away")),
        (false, _) => limits.checked().map(Some).map_err(|error| ChangeError::invalid("limits", error)),
    }
}

/// The card that `AddNic` asks for.
pub(super) fn nic_spec(call: wire::AddNic) -> Result<NicSpec, ChangeError> {
    let network = parse("network", &call.network)?;
    let nic = NicSpec::on(network).map_err(|error| ChangeError::invalid("network", error))?;
    let id = call.id.map(|id| parse::<DeviceId>("id", &id)).transpose()?;
    Ok(NicSpec {
        mac: call.mac.map(|mac| parse("mac", &mac)).transpose()?,
        model: call.model.map(|model| parse("model", &model)).transpose()?.unwrap_or_default(),
        id: id.map(checked_id).transpose().map_err(|error| ChangeError::invalid("id", error))?,
        ..nic
    })
}

/// A network card.
pub(super) fn nic(entry: &Entry) -> wire::Nic {
    let facts = match &entry.kind {
        Kind::Nic(facts) => Some(facts),
        _ => None,
    };
    let network = facts.and_then(|facts| facts.network.as_ref());
    wire::Nic {
        id: entry.id.to_string(),
        driver: entry.driver.clone(),
        network: network.map_or_else(|| "other".to_owned(), ToString::to_string),
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
