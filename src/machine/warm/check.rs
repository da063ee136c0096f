//! What a request of `--warm` asks for and no template can have.

use serde_json::{Map, Value};

use super::super::Error;
use crate::qemu::immovable;
use crate::spec::{DiskBus, DiskSpec, Request};
use crate::vm::StartError;

/// Refuses devices that no template can have, before a VM is booted for it.
pub(super) fn check(request: &Request) -> Result<(), Error> {
    let image =
        request.image.iter().map(|image| (format!("IMAGE ({})", image.display()), &request.image_options));
    let disks = request.disks.iter().map(|disk| (format!("--disk {disk}"), disk));
    let nvme =
        |disk: &DiskSpec| (disk.bus == DiskBus::Nvme).then(|| immovable::why("nvme", &Map::new())).flatten();
    let mut of_disks = image.chain(disks).filter_map(|(what, disk)| Some((what, nvme(disk)?)));
    let mut of_devices = request.devices.iter().filter_map(|device| {
        let value = |(name, value): &(String, String)| (name.clone(), Value::from(value.as_str()));
        let properties = device.properties.iter().map(value).collect();
        Some((format!("--device {device}"), immovable::why(&device.driver, &properties)?))
    });
    let mut of_shares =
        request.shares.first().map(|_| ("--virtiofs".to_owned(), "its server knows one guest only"));
    match of_disks.next().or_else(|| of_devices.next()).or_else(|| of_shares.take()) {
        None => Ok(()),
        Some((what, why)) => Err(Error::from(StartError::Usage {
            message: format!("{what} cannot be frozen into a template for `--warm`: {why}"),
            hint: Some(
                "leave it out (a disk can be on another bus), or start the VM without `--warm`".to_owned(),
            ),
        })),
    }
}
