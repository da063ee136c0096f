//! Where QEMU has put devices that were plugged without an address: USB ports and SCSI addresses.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::qemu::query;
use crate::qmp::hmp::usb_ports;
use crate::qmp::{CommandError, Session};

/// The properties of a SCSI address.
const SCSI_ADDRESS: [&str; 3] = ["channel", "scsi-id", "lun"];

/// Addresses of devices, by their ids.
pub(in crate::vm) struct Addresses {
    usb: Vec<(String, String)>,
    scsi: BTreeMap<String, Vec<(&'static str, Value)>>,
}

impl Addresses {
    /// The port of a USB device.
    pub(in crate::vm) fn usb_port(&self, id: &str) -> Option<&str> {
        self.usb.iter().find(|(device, _)| device == id).map(|(_, port)| port.as_str())
    }

    /// The properties of a SCSI device with its address.
    pub(in crate::vm) fn scsi(&self, id: &str) -> &[(&'static str, Value)] {
        self.scsi.get(id).map_or(&[], Vec::as_slice)
    }
}

/// Asks QEMU, in one batch, for the ports of all USB devices and the addresses of these SCSI devices.
pub(in crate::vm) async fn addresses(session: &Session, scsi: &[&str]) -> Result<Addresses, CommandError> {
    let mut commands = vec![query::usb_devices()];
    commands.extend(scsi.iter().flat_map(|id| SCSI_ADDRESS.map(|name| query::property(id, name))));
    let mut answers = session.submit_all(&commands).into_iter();
    let mut next = async || match answers.next() {
        Some(answer) => answer.await,
        None => Err(CommandError::Disconnected),
    };
    let usb = usb_ports(next().await?.as_str().unwrap_or_default());
    let mut found = Addresses { usb, scsi: BTreeMap::new() };
    for id in scsi {
        let mut address = Vec::new();
        for name in SCSI_ADDRESS {
            address.push((name, next().await?));
        }
        found.scsi.insert((*id).to_owned(), address);
    }
    Ok(found)
}
