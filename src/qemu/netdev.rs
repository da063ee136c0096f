//! The network back-end: one description for `-netdev` and for `netdev_add`.

use std::ffi::OsString;

use serde_json::{Value, json};

use super::forward::rule;
use super::{Command, HostFacts, ids};
use crate::spec::{Forward, Networking};

/// The network back-end of a card: of the VM's own ([`ids::NETDEV`]), or of one that is plugged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netdev {
    id: String,
    kind: &'static str,
    /// Option and value; an option that comes again (`hostfwd`) is a list.
    options: Vec<(&'static str, String)>,
    forwards: Vec<String>,
}

impl Netdev {
    /// The cold card's back-end for this mode, with forwards from the start (which only user networking has); none without a network.
    pub fn of(networking: &Networking, forwards: &[Forward]) -> Option<Self> {
        let (kind, options) = match networking {
            Networking::User => ("user", vec![]),
            Networking::Bridge(bridge) => ("bridge", vec![("br", bridge.to_string())]),
            // the interface is there and configured: no scripts
            Networking::Tap(interface) => (
                "tap",
                vec![
                    ("ifname", interface.to_string()),
                    ("script", "no".to_owned()),
                    ("downscript", "no".to_owned()),
                ],
            ),
            Networking::None => return None,
        };
        let forwards = match networking {
            Networking::User => forwards.iter().map(rule).collect(),
            _ => Vec::new(),
        };
        Some(Self { id: ids::NETDEV.to_owned(), kind, options, forwards })
    }

    /// The back-end of a card that is plugged into user networking; without forwards.
    pub fn user(id: &str) -> Self {
        Self { id: id.to_owned(), kind: "user", options: Vec::new(), forwards: Vec::new() }
    }

    /// A tap device that QEMU was given as a descriptor of this name (`getfd`): opened by itself it would need what its sandbox denies.
    pub fn tap_descriptor(id: &str, descriptor: &str) -> Self {
        let options = vec![("fd", descriptor.to_owned())];
        Self { id: id.to_owned(), kind: "tap", options, forwards: Vec::new() }
    }

    /// `-netdev`. JSON since QEMU 7.2; before, options with their commas doubled.
    pub fn argument(&self, host: &HostFacts) -> [OsString; 2] {
        let value = if host.qemu_at_least(7, 2) { self.description().to_string() } else { self.text() };
        ["-netdev".into(), value.into()]
    }

    /// `netdev_add`.
    pub fn add(&self) -> Command {
        Command::new("netdev_add", self.description())
    }

    /// `netdev_del`.
    pub fn remove(&self) -> Command {
        remove(&self.id)
    }

    fn description(&self) -> Value {
        let mut description = json!({ "type": self.kind, "id": self.id });
        for (name, value) in &self.options {
            description[*name] = value.as_str().into();
        }
        if !self.forwards.is_empty() {
            description["hostfwd"] = self.forwards.iter().map(|rule| json!({ "str": rule })).collect();
        }
        description
    }

    fn text(&self) -> String {
        let forwards = self.forwards.iter().map(|rule| ("hostfwd", rule));
        let options = self.options.iter().map(|(name, value)| (*name, value)).chain(forwards);
        options.fold(format!("{},id={}", self.kind, self.id), |text, (name, value)| {
            format!("{text},{name}={}", value.replace(',', ",,"))
        })
    }
}

/// `netdev_del` of a back-end of which only the id is known. Its forwards go with it.
pub fn remove(id: &str) -> Command {
    Command::new("netdev_del", json!({ "id": id }))
}

/// `set_link`: plugs or pulls the cable of a card.
pub fn set_link(card: &str, up: bool) -> Command {
    Command::new("set_link", json!({ "name": card, "up": up }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::testing::{forward, kvm_x86};

    #[test]
    fn old_qemu_gets_options() {
        let old = HostFacts { qemu_version: None, ..kvm_x86() };
        let forwards = [forward(8080, 80), forward(0, 22)];
        let user = Netdev::of(&Networking::User, &forwards).unwrap();
        assert_eq!(
            user.argument(&old)[1],
            "user,id=net0,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=tcp:127.0.0.1:0-:22"
        );
        let tap = Netdev::of(&Networking::Tap("a,b".parse().unwrap()), &forwards).unwrap();
        assert_eq!(tap.argument(&old)[1], "tap,id=net0,ifname=a,,b,script=no,downscript=no");
    }

    #[test]
    fn cold_and_hot_say_the_same() {
        let user = Netdev::of(&Networking::User, &[forward(8080, 80)]).unwrap();
        let cold: Value = serde_json::from_str(user.argument(&kvm_x86())[1].to_str().unwrap()).unwrap();
        assert_eq!(cold, Value::Object(user.add().arguments));
        assert_eq!(user.remove().arguments["id"], "net0");
        assert_eq!(Netdev::of(&Networking::None, &[]), None);
        let tap = Netdev::tap_descriptor("nic1.net", "nic1.net").add();
        assert_eq!(Value::Object(tap.arguments), json!({"type": "tap", "id": "nic1.net", "fd": "nic1.net"}));
    }
}
