//! The devices of `--device`.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Map, Value};

use crate::host::environment;
use crate::qemu::properties::Properties;
use crate::spec::DeviceSpec;
use crate::spec::vm::ExtraDevice;

use crate::vm::error::ErrorChain;
use crate::vm::start_error::StartError;

/// Devices with typed properties; asks QEMU for the types if any properties were given.
pub(super) fn extra(devices: &[DeviceSpec], qemu: &Path) -> Result<Vec<ExtraDevice>, StartError> {
    let mut numbered = 0..;
    let mut all = Vec::with_capacity(devices.len());
    for device in devices {
        let id = match &device.id {
            Some(id) => id.clone(),
            None => {
                let number = numbered.next().unwrap_or(0);
                format!("dev{number}").parse().map_err(|error| StartError::usage(format!("{error}")))?
            }
        };
        let properties = match device.properties.is_empty() {
            true => Map::new(),
            false => typed_properties(device, qemu)?,
        };
        all.push(ExtraDevice { driver: device.driver.clone(), id, properties });
    }
    Ok(all)
}

fn typed_properties(device: &DeviceSpec, qemu: &Path) -> Result<Map<String, Value>, StartError> {
    let mut command = Command::new(qemu);
    // the driver's name has no commas: `DeviceSpec` guarantees it
    command.args(["-nodefaults", "-machine", "none", "-device", &format!("{},help", device.driver)]);
    environment::apply(&mut command);
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| StartError::Helper { program: qemu.display().to_string(), error })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(StartError::usage(format!("--device {}: {said}", device.driver)));
    }
    let help = String::from_utf8_lossy(&output.stdout);
    Properties::from_help(&device.driver, &help)
        .typed(&device.properties)
        .map_err(|error| StartError::usage(format!("--device {}: {}", device.driver, error.with_causes())))
}
