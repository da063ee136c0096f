//! What `query-pci` tells of what the guest has done with its PCI devices.

use serde_json::Value;

use super::Command;

/// The address of a region that nobody can reach, in 64 bits.
const UNMAPPED: u64 = u64::MAX;

/// Where a device is, as the guest numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Bus number.
    pub bus: u64,
    /// Number on the bus.
    pub slot: u64,
    /// Function of the device.
    pub function: u64,
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
    Command::new("query-pci", Value::Null)
}

/// The device of this id, behind whatever bridges.
pub fn find(answer: &Value, id: &str) -> Option<Found> {
    let buses = answer.as_array().into_iter().flatten();
    buses.filter_map(|bus| among(&bus["devices"], id)).next()
}

fn among(devices: &Value, id: &str) -> Option<Found> {
    devices.as_array().into_iter().flatten().find_map(|device| match device["qdev_id"] == id {
        true => found(device),
        false => among(&device["pci_bridge"]["devices"], id),
    })
}

fn found(device: &Value) -> Option<Found> {
    let number = |key: &str| device[key].as_u64();
    let regions = device["regions"].as_array()?;
    // QEMU writes the address of one that is switched off as -1
    let mapped = |region: &Value| region["address"].as_u64().is_some_and(|address| address != UNMAPPED);
    Some(Found {
        address: Address { bus: number("bus")?, slot: number("slot")?, function: number("function")? },
        enabled: (!regions.is_empty()).then(|| regions.iter().any(mapped)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn devices_behind_ports_are_found_with_what_the_guest_did() {
        let disk = |id: &str, address: Value| {
            json!({ "bus": 3, "slot": 0, "function": 0, "qdev_id": id,
                    "regions": [{ "bar": 1, "type": "memory", "address": -1 }, { "bar": 4, "address": address }] })
        };
        let port = json!({ "bus": 0, "slot": 4, "function": 0, "qdev_id": "slot1", "regions": [],
                           "pci_bridge": { "devices": [disk("a", json!(-1)), disk("b", json!(0x1000))] } });
        let answer = json!([{ "bus": 0, "devices": [port] }]);
        let address = Address { bus: 3, slot: 0, function: 0 };
        assert_eq!(find(&answer, "a"), Some(Found { address, enabled: Some(false) }));
        assert_eq!(find(&answer, "b"), Some(Found { address, enabled: Some(true) }));
        assert_eq!(find(&answer, "slot1").unwrap().enabled, None);
        assert_eq!(find(&answer, "c"), None);
    }
}
