//! Converts the arguments of programs and users to parameters of the protocol.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;

use crate::control::client::ClientError;
use crate::control::verbs;
use crate::host::files;
use crate::spec::{DeviceId, DeviceSpec, DiskSpec, Forward, NicSpec, Size, UsbSelector};
use crate::vm::Exec;

use super::Error;

/// A path for the protocol: absolute, since the supervisor's working directory differs, and as text, since the protocol is JSON.
pub fn absolute_text(path: &Path) -> Result<String, Error> {
    let absolute = files::absolute(path).map_err(Error::file(path))?;
    absolute.into_os_string().into_string().map_err(|path| Error::Path(path.into()))
}

/// A time for the protocol.
pub fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A size for the protocol.
pub fn size_bytes(size: Size) -> i64 {
    i64::try_from(size.bytes()).unwrap_or(i64::MAX)
}

pub(super) fn bytes(text: &str) -> Result<Vec<u8>, Error> {
    BASE64.decode(text).map_err(|error| ClientError::Protocol(error.to_string()).into())
}

/// Parameters of `AddUsb`.
pub fn add_usb(selector: UsbSelector, id: Option<DeviceId>) -> Result<verbs::AddUsb, Error> {
    let selector = match selector {
        UsbSelector::File { path, format } => {
            UsbSelector::File { path: absolute_text(&path)?.into(), format }
        }
        selector => selector,
    };
    Ok(verbs::AddUsb { selector: selector.to_string(), id: id.map(String::from) })
}

/// Parameters of `AddForward`, to the first card with user networking.
pub fn add_forward(forward: &Forward) -> verbs::AddForward {
    verbs::AddForward {
        host_port: forward.host.into(),
        guest_port: forward.guest.into(),
        address: Some(forward.address.to_string()),
        protocol: Some(forward.protocol.to_string()),
        nic: None,
    }
}

/// Files and folders that images may refer to, for the protocol.
pub fn allowed(paths: &[PathBuf]) -> Result<Option<Vec<String>>, Error> {
    match paths {
        [] => Ok(None),
        paths => paths.iter().map(|path| absolute_text(path)).collect::<Result<_, _>>().map(Some),
    }
}

/// Parameters of `AddDisk`.
pub fn add_disk(disk: DiskSpec, allow_backing: &[PathBuf]) -> Result<verbs::AddDisk, Error> {
    let options = disk.options;
    let file = disk
        .file
        .ok_or_else(|| Error::Invalid("a disk that is added to a running VM needs a file".to_owned()))?;
    Ok(verbs::AddDisk {
        file: absolute_text(&file)?,
        size_bytes: disk.size.map(size_bytes),
        grow: disk.grow.then_some(true),
        format: disk.format.map(|format| format.to_string()),
        bus: Some(disk.bus.to_string()),
        readonly: disk.readonly.then_some(true),
        serial: disk.serial,
        id: disk.id.map(String::from),
        allow_backing: allowed(allow_backing)?,
        cache: options.cache.map(|mode| mode.to_string()),
        aio: options.aio.map(|mode| mode.to_string()),
        discard: options.discard.map(|mode| mode.to_string()),
        detect_zeroes: options.detect_zeroes.map(|mode| mode.to_string()),
        logical_block_size: options.logical_block_size.map(|size| size.bytes().into()),
        iothread: options.iothread,
        boot: options.boot.map(i64::from),
    })
}

/// Parameters of `AddNic`.
pub fn add_nic(nic: NicSpec) -> verbs::AddNic {
    let NicSpec { network, mac, model, id } = nic;
    verbs::AddNic {
        network: network.to_string(),
        mac: mac.map(String::from),
        model: Some(model.to_string()),
        id: id.map(String::from),
    }
}

/// Parameters of `AddDevice`.
pub fn add_device(device: DeviceSpec) -> verbs::AddDevice {
    let DeviceSpec { driver, id, properties } = device;
    verbs::AddDevice { driver, properties: Some(properties.into_iter().collect()), id: id.map(String::from) }
}

/// Parameters of `Exec`.
pub fn exec(exec: Exec) -> verbs::Exec {
    verbs::Exec {
        command: exec.command,
        env: (!exec.env.is_empty()).then_some(exec.env),
        stdin: exec.stdin.map(|stdin| BASE64.encode(stdin)),
        input: exec.input.then_some(true),
        timeout_ms: exec.timeout.map(milliseconds),
        agent_timeout_ms: exec.agent_timeout.map(milliseconds),
    }
}
