//! What the human monitor's texts mean. QMP has no commands for forwards (up to QEMU 11.1), so they go this way;
//! its answer is a success either way and the text says how it went. Texts as of QEMU 7.2, net/slirp.c.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::qemu::refusals::Refusal;
use crate::spec::forward::{Forward, Protocol};
use crate::spec::{Subnet, UserNet};

/// Why a forward could not be added or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostfwdError {
    /// The host port is taken, or this user may not listen there, or the host has no such address. QEMU does not say.
    #[error("QEMU could not listen for the forward")]
    CannotListen,
    /// There is no such forward to remove.
    #[error("QEMU has no such forward")]
    NotFound,
    /// The network device is not there or has no user networking.
    #[error("QEMU has no user network for it: {0}")]
    NoNetwork(String),
    /// Anything else.
    #[error("QEMU refused the forward: {0}")]
    Refused(String),
}

impl HostfwdError {
    fn from_text(text: &str) -> Self {
        const KNOWN: [Refusal; 3] = [Refusal::ForwardNotBound, Refusal::NoForward, Refusal::NoUserNetwork];
        match Refusal::first(&KNOWN, text) {
            Some(Refusal::ForwardNotBound) => Self::CannotListen,
            Some(Refusal::NoForward) => Self::NotFound,
            Some(Refusal::NoUserNetwork) => Self::NoNetwork(text.to_owned()),
            _ => Self::Refused(text.replace("\r\n", " ")),
        }
    }
}

/// QEMU does not know a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("QEMU refused the line: {0}")]
pub struct UnknownCommand(String);

/// Whether a line was one of QEMU's commands (`monitor_parse_command` of its `monitor/hmp.c`). How the command went, only the
/// command's own text shows.
///
/// # Errors
/// What QEMU says of a command that it does not know.
pub fn understood(text: &str) -> Result<(), UnknownCommand> {
    match Refusal::NoCommand.is_in(text) {
        true => Err(UnknownCommand(text.trim_end().to_owned())),
        false => Ok(()),
    }
}

/// The argument of `hostfwd_remove`, e.g. `tcp:127.0.0.1:2222`. Must have the real host port, not 0.
pub fn hostfwd_listener(forward: &Forward) -> String {
    let protocol = match forward.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{protocol}:{}:{}", forward.address, forward.host)
}

/// What `hostfwd_add` answered: nothing is success.
///
/// # Errors
/// Why the forward was not added.
pub fn hostfwd_added(text: &str) -> Result<(), HostfwdError> {
    match text.trim() {
        "" => Ok(()),
        text => Err(HostfwdError::from_text(text)),
    }
}

/// What `hostfwd_remove` answered: `host forwarding rule for … removed` is success.
///
/// # Errors
/// Why the forward was not removed.
pub fn hostfwd_removed(text: &str) -> Result<(), HostfwdError> {
    match Refusal::ForwardRemoved.is_in(text) {
        true => Ok(()),
        false => Err(HostfwdError::from_text(text.trim())),
    }
}

/// A forward as `info usernet` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardLine {
    /// The network back-end's id.
    pub netdev: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Host address; 0.0.0.0 for all.
    pub address: Ipv4Addr,
    /// Host port: the real one, where 0 was asked for.
    pub host_port: u16,
    /// The guest's address.
    pub guest_address: Ipv4Addr,
    /// The guest's port.
    pub guest_port: u16,
}

/// The forwards in the text of `info usernet`; connections and lines that make no sense are left out.
pub fn usernet(text: &str) -> Vec<ForwardLine> {
    let mut netdev = "";
    let mut forwards = Vec::new();
    for line in text.lines() {
        match hub_header(line) {
            Some(name) => netdev = name,
            None => forwards.extend(forward_line(netdev, line)),
        }
    }
    forwards
}

/// The ids of the user networks in the text of `info usernet`, those without a forward included.
pub fn user_networks(text: &str) -> Vec<&str> {
    text.lines().filter_map(hub_header).collect()
}

/// `Hub -1 (net0):` → `net0`.
fn hub_header(line: &str) -> Option<&str> {
    let (_, rest) = line.strip_prefix("Hub ")?.split_once(" (")?;
    rest.trim_end().strip_suffix("):")
}

/// `  TCP[HOST_FORWARD]  15       127.0.0.1 40191       10.0.2.15    22     0     0`
fn forward_line(netdev: &str, line: &str) -> Option<ForwardLine> {
    let (protocol, rest) = line.trim_start().split_once("[HOST_FORWARD]")?;
    let protocol = match protocol {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        _ => return None,
    };
    // The first field is QEMU's file descriptor.
    let mut fields = rest.split_ascii_whitespace().skip(1);
    Some(ForwardLine {
        netdev: netdev.to_owned(),
        protocol,
        address: address(fields.next()?)?,
        host_port: fields.next()?.parse().ok()?,
        guest_address: address(fields.next()?)?,
        guest_port: fields.next()?.parse().ok()?,
    })
}

/// A network back-end or card as `info network` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkLine {
    /// Its id.
    pub id: String,
    /// `nic`, `user`, `tap`…
    pub kind: String,
    info: String,
}

impl NetworkLine {
    /// What it says of an option, such as `ifname` or `br`. Options of QEMU's own making: a value ends at the next comma.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.info.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }

    /// What it says of user networking: the network's first address, and whether the guest is shut in. How large the network is QEMU
    /// does not say; nearly all have 256 addresses.
    pub fn user(&self) -> UserNet {
        let address = self.option("net").and_then(|net| net.parse().ok());
        let net = address.map(Subnet::assumed).filter(|net| *net != Subnet::DEFAULT);
        UserNet { net, restrict: matches!(self.option("restrict"), Some("on" | "y")), ..UserNet::default() }
    }
}

/// Cards and back-ends in the text of `info network` (7.2, `print_net_client` in net/net.c); of those with several queues, the first.
pub fn network(text: &str) -> Vec<NetworkLine> {
    let mut found: Vec<NetworkLine> = Vec::new();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        let line = line.trim_start().trim_start_matches("\\ ").trim_end();
        let parts = line.split_once(": index=").and_then(|(id, rest)| {
            let (kind, info) = rest.split_once("type=")?.1.split_once(',')?;
            Some(NetworkLine { id: id.to_owned(), kind: kind.to_owned(), info: info.to_owned() })
        });
        found.extend(parts.filter(|line| seen.insert(line.id.clone())));
    }
    found
}

fn address(text: &str) -> Option<Ipv4Addr> {
    if text == "*" { Some(Ipv4Addr::UNSPECIFIED) } else { text.parse().ok() }
}

/// The ports of USB devices that have an id, from `info usb`: `Device 0.1, Port 1, Speed 12 Mb/s, Product QEMU USB Keyboard, ID: keys`.
/// A port of a hub is `1.2`.
pub fn usb_ports(text: &str) -> Vec<(String, String)> {
    let line = |line: &str| {
        let (_, id) = line.trim_end().rsplit_once(", ID: ")?;
        let port = line.split(", ").find_map(|part| part.strip_prefix("Port "))?;
        Some((id.to_owned(), port.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From QEMU 7.2.22, shortened.
    const TEXT: &str = "Hub -1 (net0):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[HOST_FORWARD]   9       127.0.0.1 36153       10.0.2.15    22     0     0\r
  TCP[ESTABLISHED]   11       127.0.0.1 36153       10.0.2.15    22     0     0\r
  UDP[HOST_FORWARD]   8               * 56584       10.0.2.15    53     0     0\r
Hub 3 (n3):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[HOST_FORWARD]  14       127.0.0.1 42321       10.0.2.99    80     0     0\r
";

    #[test]
    fn lists_the_forwards_of_several_networks() {
        let seen: Vec<String> = usernet(TEXT)
            .iter()
            .map(|f| {
                let ForwardLine { netdev, protocol, address, host_port, guest_address, guest_port } = f;
                format!("{netdev} {protocol:?} {address}:{host_port} {guest_address}:{guest_port}")
            })
            .collect();
        assert_eq!(
            seen,
            [
                "net0 Tcp 127.0.0.1:36153 10.0.2.15:22",
                "net0 Udp 0.0.0.0:56584 10.0.2.15:53",
                "n3 Tcp 127.0.0.1:42321 10.0.2.99:80",
            ]
        );
    }

    #[test]
    fn names_the_networks() {
        assert_eq!(user_networks(TEXT), ["net0", "n3"]);
        assert_eq!(user_networks("Hub 0 (#net199):\r\n  Protocol[State]    FD"), ["#net199"]);
    }

    #[test]
    fn lists_cards_and_back_ends() {
        let text = "nic0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56\r
 \\ net0: index=0,type=user,net=10.0.2.0,restrict=off\r
nic1: index=0,type=nic,model=virtio-net-pci,macaddr=02:00:00:00:00:01\r
 \\ nic1.net: index=0,type=tap,ifname=vt0,script=no,downscript=no\r
br.net: index=0,type=tap,helper=/usr/lib/qemu/qemu-bridge-helper,br=br0\r
fd.net: index=0,type=tap,fd=87\r
";
        let lines = network(text);
        let seen: Vec<_> = lines.iter().map(|line| format!("{} {}", line.id, line.kind)).collect();
        assert_eq!(seen, ["nic0 nic", "net0 user", "nic1 nic", "nic1.net tap", "br.net tap", "fd.net tap"]);
        assert_eq!(lines[3].option("ifname"), Some("vt0"));
        assert_eq!((lines[4].option("br"), lines[5].option("br")), (Some("br0"), None));
    }

    #[test]
    fn answers_of_qemu_7_2() {
        assert_eq!(hostfwd_added(""), Ok(()));
        let taken = hostfwd_added("Could not set up host forwarding rule 'tcp:1.2.3.4:80-:22'\r\n");
        assert_eq!(taken, Err(HostfwdError::CannotListen));
        let unknown = hostfwd_added("unrecognized netdev id 'netX'\r\n");
        assert_eq!(unknown, Err(HostfwdError::NoNetwork("unrecognized netdev id 'netX'".into())));
        let bad = "Invalid host forwarding rule 'tcp:127.0.0.1:99999-:22' (Bad host port)";
        assert_eq!(hostfwd_added(&format!("{bad}\r\n")), Err(HostfwdError::Refused(bad.into())));
        assert_eq!(hostfwd_removed("host forwarding rule for tcp:127.0.0.1:1 removed\r\n"), Ok(()));
        let absent = hostfwd_removed("host forwarding rule for tcp:127.0.0.1:1 not found\r\n");
        assert_eq!(absent, Err(HostfwdError::NotFound));
        assert_eq!(
            hostfwd_removed("invalid format\r\n"),
            Err(HostfwdError::Refused("invalid format".into()))
        );
        assert_eq!(hostfwd_removed(""), Err(HostfwdError::Refused(String::new())));
    }

    #[test]
    fn writes_rules() {
        let forward = Forward { address: Ipv4Addr::LOCALHOST, host: 0, guest: 22, protocol: Protocol::Tcp };
        assert_eq!(hostfwd_listener(&forward), "tcp:127.0.0.1:0");
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String, line in r"(Hub |  TCP\[HOST_FORWARD\])[ -~]{0,60}\n?", near in r"( \\)?[a-z]{0,3}: index=[ -~]{0,40}") {
            let _ = (usernet(&text), usernet(&line), hostfwd_added(&text), hostfwd_removed(&text));
            let _ = (network(&text), network(&near));
        }
    }

    #[test]
    fn the_ports_of_usb_devices() {
        let text = "  Device 0.1, Port 1, Speed 12 Mb/s, Product QEMU USB Keyboard, ID: keys\r\n  Device 0.2, Port 2.1, Speed \
                    480 Mb/s, Product A, ID: x, ID: pen\r\n  Device 0.3, Port 3, Speed 12 Mb/s, Product QEMU USB Hub\r\n";
        let expected = [("keys", "1"), ("pen", "2.1")].map(|(id, port)| (id.to_owned(), port.to_owned()));
        assert_eq!(usb_ports(text), expected);
        assert!(usb_ports("USB support not enabled\r\n").is_empty());
    }
}
