//! What the QEMU of the tests does with block nodes, devices, network back-ends and forwards: it refuses what QEMU refuses.

use serde_json::{Value, json};

use super::fake_qemu::{Answer, Guest, Model, Plugged, event};

/// Spare root ports of the machine.
const SLOTS: usize = 8;

impl Model {
    pub(super) fn add_node(&mut self, name: &str, below: Option<&str>) -> Answer {
        if self.nodes.contains_key(name) {
            return Err(format!("Duplicate nodes with node-name='{name}'"));
        }
        if let Some(below) = below.filter(|below| !self.nodes.contains_key(*below)) {
            return Err(format!("Cannot find device='' nor node-name='{below}'"));
        }
        self.nodes.insert(name.to_owned(), below.map(str::to_owned));
        Ok(json!({}))
    }

    pub(super) fn delete_node(&mut self, name: &str) -> Answer {
        if !self.nodes.contains_key(name) {
            return Err(format!("Failed to find node with node-name='{name}'"));
        }
        let held = self.devices.values().any(|device| device.drive.as_deref() == Some(name))
            || self.nodes.values().any(|below| below.as_deref() == Some(name));
        if held {
            return Err(format!("Node {name} is in use"));
        }
        self.nodes.remove(name);
        self.images.remove(name);
        self.open.remove(name);
        Ok(json!({}))
    }

    /// The node and, as QEMU does, the file of the host.
    pub(super) fn add_image(&mut self, arguments: &Value) -> Answer {
        let name = arguments["node-name"].as_str().unwrap_or_default();
        self.add_node(name, arguments["file"].as_str())?;
        if let Some(path) = arguments["filename"].as_str() {
            let file = std::fs::File::open(self.swapped.as_deref().unwrap_or(path.as_ref()));
            self.open.insert(name.to_owned(), file.map_err(|error| error.to_string())?);
        }
        self.images.insert(name.to_owned(), arguments.clone());
        Ok(json!({}))
    }

    /// What `x-debug-query-block-graph` tells.
    pub(super) fn graph(&self) -> Value {
        let number = |name: &str| self.images.keys().position(|other| other == name);
        let nodes: Vec<_> =
            self.images.keys().map(|name| json!({ "id": number(name), "name": name })).collect();
        let edge = |(name, image): (&String, &Value)| {
            let child = number(image["file"].as_str()?)?;
            Some(json!({ "parent": number(name), "child": child, "name": "file" }))
        };
        json!({ "nodes": nodes, "edges": self.images.iter().filter_map(edge).collect::<Vec<_>>() })
    }

    pub(super) fn plug(&mut self, id: &str, device: Plugged) -> Answer {
        if self.devices.contains_key(id) {
            return Err(format!("Duplicate device ID '{id}'"));
        }
        let bus = device.bus.as_str();
        let controller = bus.strip_suffix(".0");
        match controller {
            Some(controller) if !self.devices.contains_key(controller) => {
                return Err(format!("Bus '{bus}' not found"));
            }
            None if self.devices.values().any(|other| other.bus == bus) => {
                return Err("slot 0 function 0 already occupied".to_owned());
            }
            _ => {}
        }
        if let Some(drive) = device.drive.as_deref().filter(|drive| !self.nodes.contains_key(*drive)) {
            return Err(format!("Property '{}.drive' can't find value '{drive}'", device.driver));
        }
        if let Some(netdev) = device.netdev.as_deref().filter(|netdev| !self.netdevs.contains_key(*netdev)) {
            return Err(format!("Property '{}.netdev' can't find value '{netdev}'", device.driver));
        }
        self.devices.insert(id.to_owned(), device);
        Ok(json!({}))
    }

    /// What `query-pci` tells: what the guest uses has an address.
    pub(super) fn pci(&self) -> Value {
        let address = if self.takes_nothing { json!(-1) } else { json!(0x1000_0000) };
        let on_pci = self.devices.iter().filter(|(_, device)| !device.bus.ends_with("0.0"));
        let devices: Vec<_> = on_pci
            .map(|(id, _)| {
                json!({ "bus": 1, "slot": 0, "function": 0, "qdev_id": id, "irq_pin": 0,
                        "class_info": { "class": 256 }, "id": { "device": 4162, "vendor": 6900 },
                        "regions": [{ "bar": 1, "type": "memory", "size": 4096, "address": address }] })
            })
            .collect();
        json!([{ "bus": 0, "devices": devices }])
    }

    pub(super) fn set_medium(&mut self, id: &str, node: Option<String>) -> Answer {
        let Some(drive) = self.devices.get_mut(id) else { return Err(format!("Device '{id}' not found")) };
        if drive.drive.is_some() == node.is_some() {
            return Err(format!("Device '{id}' has a medium, or none"));
        }
        drive.drive = node;
        Ok(json!({}))
    }

    pub(super) fn add_netdev(&mut self, id: &str, kind: &str) -> Answer {
        if self.netdevs.contains_key(id) {
            return Err(format!("Duplicate ID '{id}' for netdev"));
        }
        self.netdevs.insert(id.to_owned(), kind.to_owned());
        Ok(json!({}))
    }

    /// QEMU would also delete the back-end of an existing card; vmrun must not request that.
    pub(super) fn delete_netdev(&mut self, id: &str) -> Answer {
        if self.devices.values().any(|device| device.netdev.as_deref() == Some(id)) {
            return Err(format!("netdev '{id}' is in use"));
        }
        self.netdevs.remove(id).ok_or_else(|| format!("Device '{id}' not found"))?;
        self.forwards.retain(|_, (netdev, _)| netdev != id);
        Ok(json!({}))
    }

    pub(super) fn set_link(&mut self, name: &str, up: bool) -> Answer {
        let card = self.devices.get_mut(name).filter(|device| device.netdev.is_some());
        let card = card.ok_or_else(|| format!("Device '{name}' not found"))?;
        card.link_down = !up;
        Ok(json!({}))
    }

    /// What `query-block` tells of a device's drive.
    pub(super) fn drive(&self, id: &str) -> Value {
        crate::qemu::query_block::drive_of(&self.blocks(), id).cloned().unwrap_or_default()
    }

    /// As QEMU names drives: virtio's is in a part of the device.
    pub(super) fn blocks(&self) -> Value {
        let drives = self.devices.iter().filter(|(_, device)| device.drive.is_some());
        let block = |(id, device): (&String, &Plugged)| {
            let qdev = match device.driver.starts_with("virtio") {
                true => format!("/machine/peripheral/{id}/virtio-backend"),
                false => id.clone(),
            };
            let mut inserted = self.limits.get(&qdev).cloned().unwrap_or(json!({}));
            let node = device.drive.clone().unwrap_or_default();
            let image = self.images.get(&node).cloned().unwrap_or_default();
            inserted["node-name"] = json!(node);
            inserted["drv"] = image["driver"].clone();
            // what was there from the start is a CD
            inserted["ro"] = json!(image["read-only"] != false);
            inserted["file"] =
                self.images.get(&format!("{node}.file")).map_or(Value::Null, |file| file["filename"].clone());
            inserted["image"] = json!({ "virtual-size": 1 << 20, "snapshots": self.snapshots_on(&node) });
            json!({ "qdev": qdev, "inserted": inserted })
        };
        drives.map(block).collect()
    }

    pub(super) fn unplug(&mut self, id: &str, late: &mut Vec<Value>) -> Answer {
        let Some(device) = self.devices.get(id) else { return Err(format!("Device '{id}' not found")) };
        let asks = !device.bus.ends_with(".0");
        if device.bus == "pcie.0" {
            return Err(format!("Bus '{}' is not made for hot-plugging, in other words", device.bus));
        }
        if self.busy_slots > 0 && asks {
            self.busy_slots -= 1;
            return Err("the guest is busy with this slot, in other words".to_owned());
        }
        if self.unplugging.contains(id) {
            return Err(format!("Device {id} is already in the process of unplug"));
        }
        match self.guest {
            Guest::Obeys => self.delete(id, late),
            _ if !asks => self.delete(id, late),
            Guest::Refuses => {
                let path = format!("/machine/peripheral/{id}");
                late.push(event("DEVICE_UNPLUG_GUEST_ERROR", json!({ "device": id, "path": path })));
            }
            Guest::Ignores => {
                self.unplugging.insert(id.to_owned());
            }
        }
        Ok(json!({}))
    }

    /// Two events where there is a child, as for virtio-pci and usb-storage: the child's comes first and has no id.
    pub(super) fn delete(&mut self, id: &str, events: &mut Vec<Value>) {
        self.unplugging.remove(id);
        let Some(device) = self.devices.remove(id) else { return };
        self.limits.retain(|drive, _| drive != id && !drive.contains(&format!("/{id}/")));
        let path = format!("/machine/peripheral/{id}");
        if device.driver.starts_with("virtio") || device.driver == "usb-storage" {
            events.push(event("DEVICE_DELETED", json!({ "path": format!("{path}/virtio-backend") })));
        }
        events.push(event("DEVICE_DELETED", json!({ "device": id, "path": path })));
    }

    pub(super) fn hmp(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["hostfwd_add" | "hostfwd_remove", netdev, _]
                if self.netdevs.get(*netdev).is_none_or(|kind| kind != "user") =>
            {
                format!("unrecognized netdev id '{netdev}'\r\n")
            }
            ["hostfwd_add", netdev, rule] => self.add_forward(netdev, rule),
            ["hostfwd_remove", netdev, rule] => {
                match self.forwards.get(*rule).is_some_and(|(on, _)| on == netdev) {
                    true => {
                        self.forwards.remove(*rule);
                        format!("host forwarding rule for {rule} removed\r\n")
                    }
                    false => format!("host forwarding rule for {rule} not found\r\n"),
                }
            }
            ["info", "usernet"] => self.usernet(),
            ["info", "usb"] => self.usb(),
            ["info", "qtree"] => self.tree(),
            ["info", "network"] => String::new(),
            ["info", "status"] => "VM status: running\r\n".to_owned(),
            ["set_link", ..] => String::new(),
            _ => format!("unknown command: '{line}'\r\n"),
        }
    }

    fn tree(&self) -> String {
        let mut text = "bus: main-system-bus\r\n  type System\r\n  dev: host, id \"\"\r\n".to_owned();
        // the spare root ports, with nothing in them
        let spare = (1..=SLOTS).map(|number| format!("slot{number}"));
        for bus in spare.filter(|bus| self.devices.values().all(|device| device.bus != *bus)) {
            text += &format!(
                "    bus: own\r\n      dev: pcie-root-port, id \"\"\r\n        bus: {bus}\r\n          type PCIE\r\n"
            );
        }
        for (id, device) in &self.devices {
            let port = if device.bus.starts_with("slot") { "pcie-root-port" } else { "bridge" };
            let bus = &device.bus;
            let kind = if bus.starts_with("vmrun-usb") { "usb-bus" } else { "PCIE" };
            text += &format!(
                "    bus: own\r\n      dev: {port}, id \"\"\r\n        bus: {bus}\r\n          type {kind}\r\n"
            );
            text += &format!("          dev: {}, id \"{id}\"\r\n", device.driver);
            for (name, value) in [("drive", &device.drive), ("netdev", &device.netdev)] {
                if let Some(value) = value {
                    text += &format!("            {name} = \"{value}\"\r\n");
                }
            }
        }
        text
    }

    fn add_forward(&mut self, netdev: &str, rule: &str) -> String {
        let (host, guest) = rule.split_once("-:").unwrap();
        let host = match host.strip_suffix(":0") {
            Some(address) => {
                self.next_port += 1;
                format!("{address}:{}", self.next_port)
            }
            None => host.to_owned(),
        };
        if self.forwards.contains_key(&host) {
            return format!("Could not set up host forwarding rule '{rule}'\r\n");
        }
        self.forwards.insert(host, (netdev.to_owned(), guest.parse().unwrap()));
        String::new()
    }

    fn usb(&self) -> String {
        let on_usb = self.devices.iter().filter(|(_, device)| device.bus == "vmrun-usb.0").enumerate();
        let line = |(port, (id, device)): (usize, (&String, &Plugged))| {
            format!(
                "  Device 0.0, Port {}, Speed 480 Mb/s, Product {}, ID: {id}\r\n",
                port + 1,
                device.driver
            )
        };
        on_usb.map(line).collect()
    }

    fn usernet(&self) -> String {
        let mut text = String::new();
        for (netdev, _) in self.netdevs.iter().filter(|(_, kind)| *kind == "user") {
            text.push_str(&format!("Hub -1 ({netdev}):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"));
            for (host, (_, guest)) in self.forwards.iter().filter(|(_, (on, _))| on == netdev) {
                let parts: Vec<&str> = host.split(':').collect();
                let protocol = parts[0].to_uppercase();
                let line = format!("{} {}       10.0.2.15 {guest}     0     0", parts[1], parts[2]);
                text.push_str(&format!("  {protocol}[HOST_FORWARD]  15       {line}\r\n"));
            }
        }
        text
    }
}
