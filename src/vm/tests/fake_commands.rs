//! How the QEMU of the tests carries out a command, with the faults that a test has planned.

use serde_json::{Value, json};

use crate::spec::VmSpec;

use super::fake_qemu::{Answer, Corruption, Fault, Model, Plugged, event};

impl Model {
    /// The card that QEMU was started with.
    pub(super) fn cold_card(&mut self, spec: &VmSpec) {
        let kind = if spec.networking.is_user() { "user" } else { "tap" };
        self.netdevs.insert("net0".to_owned(), kind.to_owned());
        let bus = "pcie.0".to_owned();
        let netdev = Some("net0".to_owned());
        let card = Plugged { driver: "virtio-net-pci".to_owned(), bus, netdev, ..Plugged::default() };
        self.devices.insert("nic0".to_owned(), card);
    }

    /// The drive that it was started with, and the medium in it.
    pub(super) fn cold_cd(&mut self, id: &str) {
        self.nodes.insert(format!("{id}.file"), None);
        self.nodes.insert(id.to_owned(), Some(format!("{id}.file")));
        let (driver, bus, drive) = ("ide-cd".to_owned(), "ide.0".to_owned(), Some(id.to_owned()));
        self.devices.insert(id.to_owned(), Plugged { driver, bus, drive, ..Plugged::default() });
    }

    /// Whether the next command is the one to stand still before.
    pub(super) fn stalls(&mut self) -> bool {
        self.later.take_if(|later| *later == (0, Fault::Stall)).is_some()
    }

    fn planned(&mut self, name: &str) -> Option<Fault> {
        if let Some((left, _)) = &mut self.later {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => return self.later.take().map(|(_, fault)| fault),
            }
        }
        let position = self.faults.iter().position(|(planned, _)| *planned == name)?;
        self.faults.remove(position).map(|(_, fault)| fault)
    }

    /// What QEMU writes on a command.
    pub(super) fn answer(&mut self, command: &Value) -> Vec<Value> {
        let name = command["execute"].as_str().unwrap().to_owned();
        let arguments = &command["arguments"];
        if name != "qmp_capabilities" {
            self.seen.push(name.clone());
        }
        let fault = self.planned(&name);
        let mut events = Vec::new();
        let mut late = Vec::new();
        let result = match &fault {
            Some(Fault::Refuse(why)) => {
                self.came.clear();
                Err((*why).to_owned())
            }
            Some(Fault::Say(text)) => Ok(json!(text)),
            Some(Fault::HangUp) => {
                self.close_all();
                return Vec::new();
            }
            Some(Fault::HangUpAfter) => {
                let _ = self.carry_out(&name, arguments, &mut events, &mut late);
                self.close_all();
                return Vec::new();
            }
            Some(Fault::Break(why)) => {
                self.kept.breaks = Some(*why);
                self.carry_out(&name, arguments, &mut events, &mut late)
            }
            Some(Fault::Spoil(corruption)) => {
                self.corruption = Some(*corruption);
                let result = self.carry_out(&name, arguments, &mut events, &mut late);
                self.gone |= *corruption == Corruption::Half;
                result
            }
            Some(Fault::Stall) | None => self.carry_out(&name, arguments, &mut events, &mut late),
        };
        if let (Err(why), None) = (&result, &fault) {
            self.refused.push(format!("{command}: {why}"));
        }
        let reply = match result {
            Ok(value) => json!({ "return": value, "id": command["id"] }),
            Err(why) => {
                let class = if why.ends_with("not found") { "DeviceNotFound" } else { "GenericError" };
                json!({ "error": { "class": class, "desc": why }, "id": command["id"] })
            }
        };
        events.push(reply);
        events.extend(late);
        events
    }

    fn carry_out(
        &mut self,
        name: &str,
        arguments: &Value,
        events: &mut Vec<Value>,
        late: &mut Vec<Value>,
    ) -> Answer {
        let text = |key: &str| arguments[key].as_str().unwrap_or_default().to_owned();
        match name {
            "blockdev-add" => self.add_image(arguments),
            "x-debug-query-block-graph" => Ok(self.graph()),
            "blockdev-del" => self.delete_node(&text("node-name")),
            "device_add" => {
                let drive = arguments["drive"].as_str().map(str::to_owned);
                let netdev = arguments["netdev"].as_str().map(str::to_owned);
                let plugged =
                    Plugged { driver: text("driver"), bus: text("bus"), drive, netdev, link_down: false };
                self.plug(&text("id"), plugged)
            }
            "blockdev-remove-medium" => self.set_medium(&text("id"), None),
            "blockdev-insert-medium" => self.set_medium(&text("id"), Some(text("node-name"))),
            "netdev_add" => self.add_netdev(&text("id"), &text("type")),
            "netdev_del" => self.delete_netdev(&text("id")),
            "set_link" => self.set_link(&text("name"), arguments["up"] == true),
            "query-block" => Ok(self.blocks()),
            "qom-get" if text("property") == "hotpluggable" => {
                let id = text("path").rsplit('/').next().unwrap_or_default().to_owned();
                // the machine's own bus takes nothing while it runs
                let device = self.devices.get(&id).ok_or_else(|| format!("Device '{id}' not found"))?;
                Ok(json!(device.bus != "pcie.0"))
            }
            "query-pci" => Ok(self.pci()),
            "block_set_io_throttle" => {
                self.limits.insert(text("id"), arguments.clone());
                Ok(json!({}))
            }
            "device_del" => self.unplug(&text("id"), late),
            "human-monitor-command" => Ok(json!(self.hmp(&text("command-line")))),
            "device-list-properties" => Ok(json!([{ "name": "serial", "type": "str" }])),
            "qom-list-types" if text("implements") == "pci-device" => {
                Ok(json!([{ "name": "edu" }, { "name": "virtio-rng-pci" }]))
            }
            "qom-list-types" => Ok(json!([])),
            "stop" => {
                self.running = false;
                events.push(event("STOP", json!({})));
                Ok(json!({}))
            }
            "cont" => {
                self.running = true;
                events.push(event("RESUME", json!({})));
                Ok(json!({}))
            }
            "system_reset" => {
                late.push(event("RESET", json!({ "guest": false, "reason": "host-qmp-system-reset" })));
                for id in std::mem::take(&mut self.unplugging) {
                    self.delete(&id, late);
                }
                Ok(json!({}))
            }
            "quit" => {
                self.close_all();
                late.push(event("SHUTDOWN", json!({ "guest": false, "reason": "host-qmp-quit" })));
                Ok(json!({}))
            }
            _ => self.keep(name, arguments, late).unwrap_or(Ok(json!({}))),
        }
    }
}
