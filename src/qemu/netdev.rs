//! The network back-end: one description for `-netdev` and for `netdev_add`.

use std::ffi::OsString;

use serde_json::{Value, json};

use super::Command;
use super::forward::rule;
use crate::spec::{Forward, Networking, UserNet};

/// The network back-end of a card: from the start, or of one that is plugged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netdev {
    id: String,
    kind: &'static str,
    /// Option and value; an option that comes again (`hostfwd`) is a list.
    options: Vec<(&'static str, Value)>,
    forwards: Vec<String>,
}

impl Netdev {
    /// The back-end of a card from the start, with forwards (which only user networking has); none without a network.
    pub fn of(id: &str, networking: &Networking, forwards: &[Forward]) -> Option<Self> {
        let forwards = forwards.iter().map(rule).collect();
        Some(match networking {
            Networking::User(user) => Self { forwards, ..Self::user(id, user) },
            Networking::Bridge(bridge) => Self::new(id, "bridge", vec![("br", bridge.as_str().into())]),
            // the interface is there and configured: no scripts
            Networking::Tap(interface) => {
                let options = vec![
                    ("ifname", interface.as_str().into()),
                    ("script", "no".into()),
                    ("downscript", "no".into()),
                ];
                Self::new(id, "tap", options)
            }
            Networking::None => return None,
        })
    }

    fn new(id: &str, kind: &'static str, options: Vec<(&'static str, Value)>) -> Self {
        Self { id: id.to_owned(), kind, options, forwards: Vec::new() }
    }

    /// User networking, without forwards.
    pub fn user(id: &str, user: &UserNet) -> Self {
        let UserNet { net, dns, hostname, restrict } = user;
        let said = [
            ("net", net.map(|net| net.to_string().into())),
            ("dns", dns.map(|dns| dns.to_string().into())),
            ("hostname", hostname.as_ref().map(|name| name.as_str().into())),
            ("restrict", restrict.then_some(Value::Bool(true))),
        ];
        let options = said.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        Self::new(id, "user", options)
    }

    /// What is said in the command that made a back-end of user networking.
    pub(super) fn read_user(command: &Command) -> Option<UserNet> {
        let mut said = command.arguments.clone();
        let is_user = command.execute == "netdev_add" && said.get("type").is_some_and(|kind| kind == "user");
        said.retain(|name, _| UserNet::NAMES.contains(&name.as_str()));
        let user: UserNet = serde_json::from_value(Value::Object(said)).ok().filter(|_| is_user)?;
        user.check().is_ok().then_some(user)
    }

    /// A tap device that QEMU was given as a descriptor of this name (`getfd`): opened by itself it would need what its sandbox denies.
    pub fn tap_descriptor(id: &str, descriptor: &str) -> Self {
        Self::new(id, "tap", vec![("fd", descriptor.into())])
    }

    /// `-netdev`.
    pub fn argument(&self) -> [OsString; 2] {
        ["-netdev".into(), self.description().to_string().into()]
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
            description[*name] = value.clone();
        }
        if !self.forwards.is_empty() {
            description["hostfwd"] = self.forwards.iter().map(|rule| json!({ "str": rule })).collect();
        }
        description
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
    use crate::qemu::testing::forward;

    #[test]
    fn a_network_is_said_and_read_back() {
        let text = "user,net=10.0.3.0/24,dns=10.0.3.4,hostname=box,restrict=on";
        let networking: Networking = text.parse().unwrap();
        let backend = Netdev::of("nic1.net", &networking, &[forward(8080, 80)]).unwrap();
        assert_eq!(
            Value::Object(backend.add().arguments),
            json!({
                "type": "user", "id": "nic1.net", "net": "10.0.3.0/24", "dns": "10.0.3.4", "hostname": "box", "restrict": true,
                "hostfwd": [{"str": "tcp:127.0.0.1:8080-:80"}],
            })
        );
        assert_eq!(Netdev::read_user(&backend.add()).as_ref(), networking.user());
        for wrong in [
            json!({"type": "tap"}),
            json!({"type": "user", "net": "10.0.3.9/24"}),
            json!({"type": "user", "dns": 1}),
        ] {
            assert_eq!(Netdev::read_user(&Command::new("netdev_add", wrong)), None);
        }
    }

    #[test]
    fn cold_and_hot_say_the_same() {
        let user = Netdev::of("net0", &Networking::default(), &[forward(8080, 80)]).unwrap();
        let cold: Value = serde_json::from_str(user.argument()[1].to_str().unwrap()).unwrap();
        assert_eq!(cold, Value::Object(user.add().arguments));
        assert_eq!(user.remove().arguments["id"], "net0");
        assert_eq!(Netdev::of("net0", &Networking::None, &[]), None);
        let tap = Netdev::tap_descriptor("nic1.net", "nic1.net").add();
        assert_eq!(Value::Object(tap.arguments), json!({"type": "tap", "id": "nic1.net", "fd": "nic1.net"}));
    }
}
