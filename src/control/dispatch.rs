//! From a method call to a request to the VM, and back.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::spec::{Condition, DeviceId, DeviceSpec, DiskOptions, DiskSpec, Size, SnapshotName, UsbSelector};
use crate::vm::{
    Change, ChangeError, Done, ForwardPattern, Handle, Present, Removable, ShutdownOptions, SnapshotChange,
    Wait,
};

use super::error::WireError;
use super::frame::{Frame, LastStatus};
use super::guest::{self, Uploads};
use super::service::{Answer, RawCall};
use super::translate::{self, absolute, parse};
use super::{DESCRIPTION, INTERFACE, SERVICE_DESCRIPTION, SERVICE_INTERFACE, wire};
use super::{methods, screen, snapshots, stats, streams};

/// How long a removal waits for the guest unless the call says otherwise.
const REMOVAL_WAIT: Duration = Duration::from_secs(30);
/// Budget of the ladder's asking unless the call says otherwise.
const SHUTDOWN_BUDGET: Duration = Duration::from_secs(30);

/// Each may be an expression that is held against all that the guest prints.
const MAX_CONDITIONS: usize = 100;

pub(super) type One = Result<Frame, WireError>;

/// What belongs to one connection.
#[derive(Default)]
pub(super) struct Belongings {
    uploads: Uploads,
    status: LastStatus,
}

/// Answers one call.
pub(super) async fn dispatch(call: &RawCall, more: bool, vm: &Handle, own: &mut Belongings) -> Answer {
    let parameters = call.parameters.clone().unwrap_or(Value::Null);
    let answer = match call.method.rsplit_once('.') {
        Some((INTERFACE, method)) if methods::is_stream(method) => {
            return match streams::start(method, parameters, more, vm) {
                Answer::One(Err(error)) => Answer::One(Err(explained(error, vm).await)),
                answer => answer,
            };
        }
        // on the heap, and only while it runs: of the connections that there are nearly all wait for their next call
        Some((INTERFACE, method)) => Box::pin(machine(method, parameters, vm, own)).await,
        Some((SERVICE_INTERFACE, method)) => service(method, parameters),
        Some((interface, _)) => Err(WireError::service("InterfaceNotFound", "interface", interface)),
        None => Err(WireError::service("InterfaceNotFound", "interface", &call.method)),
    };
    match answer {
        Err(error) => Answer::One(Err(explained(error, vm).await)),
        answer => Answer::One(answer),
    }
}

/// An error that says no more than that the VM has ended, with how it ended.
pub(super) async fn explained(error: WireError, vm: &Handle) -> WireError {
    if error != ChangeError::not_running().into() {
        return if vm.has_ended() { error.with_outcome(vm.ended().await) } else { error };
    }
    match vm.ended_soon().await {
        Some(outcome) => WireError::ended(&outcome),
        None => error,
    }
}

fn service(method: &str, parameters: Value) -> One {
    match method {
        "GetInfo" => reply(&json!({
            "vendor": "vmrun",
            "product": "vmrun",
            "version": env!("CARGO_PKG_VERSION"),
            "url": "https://github.com/vmrun/vmrun",
            "interfaces": [SERVICE_INTERFACE, INTERFACE],
        })),
        "GetInterfaceDescription" => match parameters["interface"].as_str() {
            Some(INTERFACE) => reply(&json!({ "description": DESCRIPTION })),
            Some(SERVICE_INTERFACE) => reply(&json!({ "description": SERVICE_DESCRIPTION })),
            Some(other) => Err(WireError::service("InterfaceNotFound", "interface", other)),
            None => Err(WireError::service("InvalidParameter", "parameter", "interface")),
        },
        _ => Err(WireError::method_not_found(SERVICE_INTERFACE, method)),
    }
}

async fn machine(method: &str, parameters: Value, vm: &Handle, own: &mut Belongings) -> One {
    match method {
        "GetStatus" => {
            let _: wire::Empty = read(parameters)?;
            match (vm.status().await, vm.last_status()) {
                // how it ended is told a moment after it has
                (Err(_), Some(last)) if vm.ended_soon().await.is_some() => {
                    let outcome = vm.ended().await;
                    let status = wire::Status { outcome, ..translate::status(&last) };
                    reply(&wire::StatusReply { status: wire::Status { state: "ended".to_owned(), ..status } })
                }
                (status, _) => {
                    let status = status?;
                    match vm.present(&status).await? {
                        // as a rule, so that the frame of before serves again
                        None => written(own.status.frame(status)),
                        Some(Present { memory_bytes, cpus }) => {
                            let status = wire::Status { memory_bytes, cpus, ..translate::status(&status) };
                            reply(&wire::StatusReply { status })
                        }
                    }
                }
            }
        }
        "ListUsb" | "ListForwards" | "ListDisks" | "ListNics" => {
            let _: wire::Empty = read(parameters)?;
            list(method, translate::status(&*vm.status().await?))
        }
        "GetStats" => {
            let _: wire::Empty = read(parameters)?;
            reply(&stats::reply(&vm.stats().await?))
        }
        "Shutdown" => shutdown(read(parameters)?, vm).await,
        "Wait" => wait(read(parameters)?, vm).await,
        "StartGuestFile" => guest::start_file(parameters, vm, &mut own.uploads).await,
        "WriteGuestFile" => guest::write_file(parameters, &mut own.uploads).await,
        "FinishGuestFile" => guest::finish_file(parameters, &mut own.uploads).await,
        "Screenshot" => screen::screenshot(parameters, vm).await,
        "SendKeys" => screen::send_keys(parameters, vm).await,
        "TypeText" => screen::type_text(parameters, vm).await,
        "ResizeConsole" => guest::resize_console(read(parameters)?, vm).await,
        "SetTime" => guest::set_time(read(parameters)?, vm).await,
        "Reboot" => guest::reboot(read(parameters)?, vm).await,
        "AgentCommand" => guest::agent_command(read(parameters)?, vm).await,
        "WriteConsole" => write_console(read(parameters)?, vm).await,
        "RemoveDisk" => remove_disk(Removable::Disk, read(parameters)?, vm).await,
        "RemoveDevice" => remove_disk(Removable::Any, read(parameters)?, vm).await,
        _ => {
            let change = change(method, parameters)?;
            let done = vm.change(change).await?;
            done_reply(method, done)
        }
    }
}

/// The part of the status that is asked for.
fn list(method: &str, status: wire::Status) -> One {
    match method {
        "ListUsb" => reply(&wire::UsbList { usb: status.usb }),
        "ListForwards" => reply(&wire::ForwardList { forwards: status.forwards }),
        "ListDisks" => reply(&wire::DiskList { disks: status.disks }),
        _ => reply(&wire::NicList { nics: status.nics.unwrap_or_default() }),
    }
}

/// The change that a method call asks for.
pub(super) fn change(method: &str, parameters: Value) -> Result<Change, WireError> {
    Ok(match method {
        "AddUsb" => add_usb(read(parameters)?)?,
        "RemoveUsb" => {
            let wire::RemoveUsb { id } = read(parameters)?;
            Change::Remove { kind: Removable::Usb, id, wait: REMOVAL_WAIT }
        }
        "AddForward" => translate::add_forward(read(parameters)?)?,
        "RemoveForward" => Change::RemoveForward(remove_forward(read(parameters)?)?),
        "AddDisk" => add_disk(read(parameters)?)?,
        "ResizeDisk" => {
            let wire::ResizeDisk { id, size_bytes } = read(parameters)?;
            Change::ResizeDisk { id, size: size(size_bytes)? }
        }
        "ThrottleDisk" => {
            let call: wire::ThrottleDisk = read(parameters)?;
            Change::ThrottleDisk { limits: translate::limits(&call)?, id: call.id }
        }
        "AddNic" => Change::AddNic(translate::nic_spec(read(parameters)?)?),
        "RemoveNic" => remove(Removable::Nic, read(parameters)?)?,
        "SetLink" => {
            let wire::SetLink { up, nic } = read(parameters)?;
            Change::SetLink { nic, up }
        }
        "ChangeMedia" => {
            let wire::ChangeMedia { id, file, allow_backing, format } = read(parameters)?;
            let file = absolute("file", &file)?;
            let format = format.map(|format| parse("format", &format)).transpose()?;
            Change::ChangeMedia { id, file, format, allow_backing: allowed(allow_backing)? }
        }
        "EjectMedia" => {
            let wire::EjectMedia { id, force } = read(parameters)?;
            Change::EjectMedia { id, force: force.unwrap_or(false) }
        }
        "AddDevice" => Change::AddDevice(add_device(read(parameters)?)?),
        "LoadSnapshot" => Change::Snapshot(SnapshotChange::Load(named(read(parameters)?)?)),
        "DeleteSnapshot" => Change::Snapshot(SnapshotChange::Delete(named(read(parameters)?)?)),
        "ListSnapshots" => plain(Change::Snapshot(SnapshotChange::List), parameters)?,
        "Pause" => plain(Change::Pause, parameters)?,
        "Resume" => plain(Change::Resume, parameters)?,
        "Reset" => plain(Change::Reset, parameters)?,
        "Powerdown" => plain(Change::Powerdown, parameters)?,
        "Qmp" => {
            let wire::Qmp { command } = read(parameters)?;
            Change::Qmp(translate::qmp_command(command)?)
        }
        "Hmp" => Change::Hmp(read::<wire::Hmp>(parameters)?.line),
        _ => return Err(WireError::method_not_found(INTERFACE, method)),
    })
}

fn plain(change: Change, parameters: Value) -> Result<Change, WireError> {
    read::<wire::Empty>(parameters).map(|_| change)
}

fn named(call: wire::NamedSnapshot) -> Result<SnapshotName, ChangeError> {
    parse("name", &call.name)
}

fn add_usb(call: wire::AddUsb) -> Result<Change, ChangeError> {
    let selector: UsbSelector = parse("selector", &call.selector)?;
    if let UsbSelector::File { path, .. } = &selector {
        absolute("selector", &path.to_string_lossy())?;
    }
    let id = call.id.map(|id| parse::<DeviceId>("id", &id)).transpose()?;
    Ok(Change::AddUsb { selector, id })
}

fn remove_forward(call: wire::RemoveForward) -> Result<ForwardPattern, ChangeError> {
    Ok(ForwardPattern {
        host: translate::port("host_port", call.host_port)?,
        guest: call.guest_port.map(|port| translate::port("guest_port", port)).transpose()?,
        address: call.address.map(|address| parse("address", &address)).transpose()?,
        protocol: call.protocol.map(|protocol| parse("protocol", &protocol)).transpose()?,
    })
}

fn allowed(paths: Option<Vec<String>>) -> Result<Vec<PathBuf>, ChangeError> {
    paths.unwrap_or_default().iter().map(|path| absolute("allow_backing", path)).collect()
}

fn add_disk(call: wire::AddDisk) -> Result<Change, ChangeError> {
    let serial = call.serial.clone().map(crate::spec::disk::checked_serial).transpose();
    let disk = DiskSpec {
        file: Some(absolute("file", &call.file)?),
        size: call.size_bytes.map(size).transpose()?,
        grow: call.grow.unwrap_or(false),
        format: call.format.as_deref().map(|format| parse("format", format)).transpose()?,
        bus: call.bus.as_deref().map(|bus| parse("bus", bus)).transpose()?.unwrap_or_default(),
        readonly: call.readonly.unwrap_or(false),
        serial: serial.map_err(|error| ChangeError::invalid("serial", error))?,
        id: call.id.as_deref().map(|id| parse("id", id)).transpose()?,
        options: disk_options(&call)?,
    };
    disk.check().map_err(|error| {
        let parameter = if disk.options.check().is_ok() { "grow" } else { "options" };
        ChangeError::invalid(parameter, error)
    })?;
    Ok(Change::AddDisk { disk, allow_backing: allowed(call.allow_backing)? })
}

fn disk_options(call: &wire::AddDisk) -> Result<DiskOptions, ChangeError> {
    let number = |number: Option<i64>| number.map(|number| number.to_string());
    let switch = call.iothread.map(|on| if on { "on" } else { "off" }.to_owned());
    let texts = [
        ("cache", call.cache.clone()),
        ("aio", call.aio.clone()),
        ("discard", call.discard.clone()),
        ("detect-zeroes", call.detect_zeroes.clone()),
        ("logical-block-size", number(call.logical_block_size)),
        ("iothread", switch),
        ("boot", number(call.boot)),
    ];
    texts.into_iter().try_fold(DiskOptions::default(), |options, (name, text)| {
        let parameter = name.replace('-', "_");
        options.with_text(name, text.as_deref()).map_err(|error| ChangeError::invalid(&parameter, error))
    })
}

fn add_device(call: wire::AddDevice) -> Result<DeviceSpec, ChangeError> {
    let id = call.id.map(|id| parse::<DeviceId>("id", &id)).transpose()?;
    let device = DeviceSpec::new(&call.driver).map_err(|error| ChangeError::invalid("driver", error))?;
    let device =
        call.properties.unwrap_or_default().into_iter().try_fold(device, |device, (name, value)| {
            device.with(&name, &value).map_err(|error| ChangeError::invalid("properties", error))
        })?;
    Ok(DeviceSpec { id: id.or(device.id.clone()), ..device })
}

/// What may be a disk: one that the guest has mounted stays, unless that is forced.
async fn remove_disk(kind: Removable, call: wire::RemoveDisk, vm: &Handle) -> One {
    let wire::RemoveDisk { id, timeout_ms, force } = call;
    let unchecked = match force.unwrap_or(false) {
        true => None,
        false => vm.check_unmounted(kind, &id).await?,
    };
    let removal = vm.change(remove(kind, wire::Remove { id, timeout_ms })?).await?;
    reply(&wire::DiskRemoved { removed: removal == Done::Removed, unchecked })
}

fn remove(kind: Removable, call: wire::Remove) -> Result<Change, ChangeError> {
    let wait = duration(call.timeout_ms, REMOVAL_WAIT)?;
    Ok(Change::Remove { kind, id: call.id, wait })
}

fn size(bytes: i64) -> Result<Size, ChangeError> {
    u64::try_from(bytes)
        .ok()
        .and_then(Size::from_bytes)
        .ok_or_else(|| ChangeError::invalid("size_bytes", "a size must be more than 0 bytes"))
}

pub(super) fn duration(milliseconds: Option<i64>, default: Duration) -> Result<Duration, ChangeError> {
    let Some(milliseconds) = milliseconds else { return Ok(default) };
    u64::try_from(milliseconds)
        .map(Duration::from_millis)
        .map_err(|_| ChangeError::invalid("timeout_ms", "a time may not be negative"))
}

async fn shutdown(call: wire::Shutdown, vm: &Handle) -> One {
    let options = ShutdownOptions {
        timeout: duration(call.timeout_ms, SHUTDOWN_BUDGET)?,
        force: call.force.unwrap_or(false),
        no_repeat: call.no_repeat.unwrap_or(false),
    };
    reply(&wire::OutcomeReply { outcome: vm.shutdown(options).await? })
}

async fn wait(call: wire::Wait, vm: &Handle) -> One {
    if call.conditions.len() > MAX_CONDITIONS {
        let why = format!("at most {MAX_CONDITIONS} conditions can be waited for at once");
        return Err(ChangeError::invalid("conditions", why).into());
    }
    let conditions: Result<Vec<Condition>, ChangeError> =
        call.conditions.iter().map(|condition| parse("conditions", condition)).collect();
    let conditions = conditions?;
    if conditions.is_empty() {
        return Err(ChangeError::invalid("conditions", "there is nothing to wait for").into());
    }
    let wait = Wait {
        conditions,
        all: call.all.unwrap_or(false),
        timeout: call.timeout_ms.map(|timeout| duration(Some(timeout), Duration::ZERO)).transpose()?,
        from_now: call.from_now.unwrap_or(false),
    };
    let came_true = vm.wait(wait).await?;
    let came_true = came_true.into_iter().map(|fact| wire::CameTrue {
        condition: fact.condition.to_string(),
        after_ms: translate::milliseconds(fact.after),
        details: fact.details,
    });
    reply(&wire::WaitReply { came_true: came_true.collect() })
}

async fn write_console(call: wire::WriteConsole, vm: &Handle) -> One {
    let bytes = BASE64.decode(&call.data).map_err(|error| ChangeError::invalid("data", error))?;
    vm.console.check()?;
    vm.console.input.send(bytes).await.map_err(|_| ChangeError::not_running())?;
    nothing()
}

fn done_reply(method: &str, done: Done) -> One {
    match done {
        Done::Device(entry) => match method {
            "AddUsb" => reply(&wire::UsbReply { usb: translate::usb(&entry) }),
            "AddDevice" => reply(&wire::DeviceReply { device: translate::device(&entry) }),
            "AddNic" | "SetLink" => reply(&wire::NicReply { nic: translate::nic(&entry) }),
            _ => reply(&wire::DiskReply { disk: translate::disk(&entry) }),
        },
        Done::Forward(forward) => reply(&wire::ForwardReply { forward: translate::wire_forward(&forward) }),
        Done::Removed if method == "RemoveUsb" => nothing(),
        Done::Removed => reply(&wire::Removed { removed: true }),
        Done::RemovalPending => reply(&wire::Removed { removed: false }),
        Done::Value(value) => reply(&wire::QmpReply { value }),
        Done::Text(text) => reply(&wire::HmpReply { text }),
        Done::Ended(outcome) => reply(&wire::OutcomeReply { outcome }),
        Done::Snapshot(snapshot) => {
            reply(&wire::SnapshotReply { snapshot: snapshots::translated(&snapshot) })
        }
        Done::Snapshots(all) => {
            reply(&wire::SnapshotList { snapshots: all.iter().map(snapshots::translated).collect() })
        }
        Done::Nothing => nothing(),
    }
}

/// The parameters of a call; Varlink's own error names the one at fault.
pub(super) fn read<T: DeserializeOwned>(parameters: Value) -> Result<T, WireError> {
    serde_path_to_error::deserialize(object(parameters)?).map_err(|error| at_fault(&error))
}

fn object(parameters: Value) -> Result<Map<String, Value>, WireError> {
    match parameters {
        Value::Null => Ok(Map::new()),
        Value::Object(object) => Ok(object),
        // a derived struct would also take its fields from an array
        _ => Err(WireError::service("InvalidParameter", "parameter", "parameters")),
    }
}

fn at_fault(error: &serde_path_to_error::Error<serde_json::Error>) -> WireError {
    let path = error.path().to_string();
    // an unknown or missing field is named in the message only
    let message = error.inner().to_string();
    let quoted = message.split('`').nth(1).unwrap_or("parameters");
    let name = if path == "." { quoted } else { &path };
    WireError::service("InvalidParameter", "parameter", name)
}

pub(super) fn reply(parameters: &impl Serialize) -> One {
    written(Frame::of(parameters))
}

fn written(frame: serde_json::Result<Frame>) -> One {
    frame.map_err(|error| ChangeError::host(error).into())
}

/// The reply of a method that has nothing to tell.
pub(super) fn nothing() -> One {
    reply(&wire::Empty {})
}
