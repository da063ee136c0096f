//! What `query-pci` tells of what the guest has done with its PCI devices.

use qapi::qmp::{PciDeviceInfo, PciInfo, PciMemoryRegion, query_pci};
use serde_json::Value;

use super::{Command, reply};

/// The address of a region that is not mapped.
const UNMAPPED: i64 = -1;

/// Where a device is, as the guest numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Bus number.
    pub bus: i64,
    /// Number on the bus.
    pub slot: i64,
    /// Function of the device.
    pub function: i64,
}

/// A device on PCI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub address: Address,
    /// Whether the guest has switched on any of its regions, which every driver does first; none = it has no regions.
    pub enabled: Option<bool>,
}

/// Asks for all devices.
pub fn query() -> Command {
    Command::of(&query_pci {})
}

/// The device of this id, behind whatever bridges.
pub fn find(answer: &Value, id: &str) -> Option<Found> {
    let buses: Vec<PciInfo> = reply::one(answer)?;
    buses.iter().find_map(|bus| among(&bus.devices, id)).map(found)
}

fn among<'a>(devices: &'a [PciDeviceInfo], id: &str) -> Option<&'a PciDeviceInfo> {
    devices.iter().find_map(|device| match device.qdev_id == id {
        true => Some(device),
        false => among(device.pci_bridge.as_ref()?.devices.as_ref()?, id),
    })
}

fn found(device: &PciDeviceInfo) -> Found {
    let is_mapped = |region: &PciMemoryRegion| region.address != UNMAPPED;
    Found {
        address: Address { bus: device.bus, slot: device.slot, function: device.function },
        enabled: (!device.regions.is_empty()).then(|| device.regions.iter().any(is_mapped)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn devices_behind_ports_are_found_with_what_the_guest_did() {
        // as 7.2 answers
        let device = |id: &str, bus: u64, slot: u64, regions: Value| {
            json!({ "bus": bus, "slot": slot, "function": 0, "qdev_id": id, "irq_pin": 0, "regions": regions,
                    "class_info": { "class": 256, "desc": "SCSI controller" }, "id": { "device": 4162, "vendor": 6900 } })
        };
        let disk = |id: &str, address: i64| {
            let region = |bar: u64, address: i64| json!({ "bar": bar, "type": "memory", "size": 4096, "address": address, "prefetch": false });
            device(id, 3, 0, json!([region(1, -1), region(4, address)]))
        };
        let range = json!({ "base": 0, "limit": 0 });
        let mut port = device("slot1", 0, 4, json!([]));
        port["pci_bridge"] = json!({
            "bus": { "number": 0, "secondary": 3, "subordinate": 3, "io_range": range, "memory_range": range,
                     "prefetchable_range": range },
            "devices": [disk("a", -1), disk("b", 0x1000)],
        });
        let answer = json!([{ "bus": 0, "devices": [port] }]);
        let address = Address { bus: 3, slot: 0, function: 0 };
        assert_eq!(find(&answer, "a"), Some(Found { address, enabled: Some(false) }));
        assert_eq!(find(&answer, "b"), Some(Found { address, enabled: Some(true) }));
        assert_eq!(find(&answer, "slot1").unwrap().enabled, None);
        assert_eq!(find(&answer, "c"), None);
    }
}
