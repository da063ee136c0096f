//! Port forwards: `[ADDR:]HOST:GUEST[/tcp|udp]`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::words::{UnknownWord, word_type};

/// Transport protocol of a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

word_type!(Protocol, "protocol", { Tcp = "tcp", Udp = "udp" });

/// A host port that leads to a guest port through QEMU's user networking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Forward {
    /// Host address to listen on; 127.0.0.1 unless given. QEMU's `hostfwd` takes IPv4 only.
    pub address: Ipv4Addr,
    /// Host port; 0 = any free one.
    pub host: u16,
    /// Guest port, never 0.
    pub guest: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// Why a text is not a forward. `part` is `host port` or `guest port`.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum ForwardError {
    /// One port only, or none.
    #[error("forward '{0}' needs two ports: HOST:GUEST")]
    OnePort(String),
    /// More than an address and two ports.
    #[error("forward '{0}' has too many parts (wanted is [ADDR:]HOST:GUEST[/tcp|udp])")]
    TooManyParts(String),
    /// Nothing where something must be.
    #[error("the {part} is missing in forward '{text}'")]
    Missing {
        /// Which part.
        part: &'static str,
        /// The forward.
        text: String,
    },
    /// Not a number.
    #[error("{part} '{port}' is not a number")]
    NotANumber {
        /// Which port.
        part: &'static str,
        /// What was typed.
        port: String,
    },
    /// A number that no port has.
    #[error("{part} {port} is above 65535")]
    TooHigh {
        /// Which port.
        part: &'static str,
        /// What was typed.
        port: String,
    },
    /// Port 0 in the guest.
    #[error("the guest port may not be 0")]
    GuestZero,
    /// Not an address.
    #[error("host address '{0}' is not an IPv4 address")]
    Address(String),
    /// An IPv6 address.
    #[error("host address '{0}' is not possible: QEMU's user networking forwards IPv4 only")]
    Ipv6(String),
    /// Something else than `tcp` or `udp`.
    #[error(transparent)]
    Protocol(#[from] UnknownWord),
}

impl Forward {
    /// Whether a text that is a forward says on which address it listens.
    pub fn names_address(text: &str) -> bool {
        text.split('/').next().unwrap_or_default().matches(':').count() > 1
    }

    /// Whether both cannot listen at the same time: same protocol and port, and an address that overlaps.
    pub fn conflicts(&self, other: &Self) -> bool {
        let overlap =
            self.address == other.address || self.address.is_unspecified() || other.address.is_unspecified();
        self.host != 0 && self.host == other.host && self.protocol == other.protocol && overlap
    }
}

fn port(part: &'static str, port: &str) -> Result<u16, ForwardError> {
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ForwardError::NotANumber { part, port: port.to_owned() });
    }
    port.parse().map_err(|_| ForwardError::TooHigh { part, port: port.to_owned() })
}

fn address(address: &str, text: &str) -> Result<Ipv4Addr, ForwardError> {
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    if address.starts_with('[') || bare.parse::<Ipv6Addr>().is_ok() {
        return Err(ForwardError::Ipv6(address.to_owned()));
    }
    if address.contains(':') {
        return Err(ForwardError::TooManyParts(text.to_owned()));
    }
    address.parse().map_err(|_| ForwardError::Address(address.to_owned()))
}

impl FromStr for Forward {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let missing = |part| ForwardError::Missing { part, text: text.to_owned() };
        let (ends, protocol) = text.split_once('/').map_or((text, None), |(ends, word)| (ends, Some(word)));
        // from the right, since an IPv6 address has colons of its own
        let mut parts = ends.rsplitn(3, ':');
        let (Some(guest), Some(host)) = (parts.next(), parts.next()) else {
            return Err(ForwardError::OnePort(text.to_owned()));
        };
        let address = match parts.next() {
            Some("") => return Err(missing("host address")),
            Some(typed) => address(typed, text)?,
            None => Ipv4Addr::LOCALHOST,
        };
        for (part, typed) in
            [("host port", host), ("guest port", guest), ("protocol", protocol.unwrap_or("tcp"))]
        {
            if typed.is_empty() {
                return Err(missing(part));
            }
        }
        let (host, guest) = (port("host port", host)?, port("guest port", guest)?);
        if guest == 0 {
            return Err(ForwardError::GuestZero);
        }
        Ok(Self { address, host, guest, protocol: protocol.unwrap_or("tcp").trim().to_lowercase().parse()? })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}:{}/{}", self.address, self.host, self.guest, self.protocol))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn forward(text: &str) -> Forward {
        text.parse().unwrap()
    }

    #[test]
    fn fills_in_address_and_protocol() {
        for (text, canonical) in [
            ("8080:80", "127.0.0.1:8080:80/tcp"),
            ("0:80", "127.0.0.1:0:80/tcp"),
            ("53:53/udp", "127.0.0.1:53:53/udp"),
            ("80:80/TCP", "127.0.0.1:80:80/tcp"),
            ("53:53/Udp ", "127.0.0.1:53:53/udp"),
            ("0.0.0.0:8080:80/tcp", "0.0.0.0:8080:80/tcp"),
        ] {
            assert_eq!(forward(text).to_string(), canonical);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, message) in [
            ("", "forward '' needs two ports: HOST:GUEST"),
            ("80", "forward '80' needs two ports: HOST:GUEST"),
            ("80/tcp", "forward '80/tcp' needs two ports: HOST:GUEST"),
            ("a:b", "host port 'a' is not a number"),
            ("80:b", "guest port 'b' is not a number"),
            ("+80:80", "host port '+80' is not a number"),
            ("80 :80", "host port '80 ' is not a number"),
            ("99999:1", "host port 99999 is above 65535"),
            ("1:99999999999999999999", "guest port 99999999999999999999 is above 65535"),
            ("80:0", "the guest port may not be 0"),
            (":80", "the host port is missing in forward ':80'"),
            ("80:", "the guest port is missing in forward '80:'"),
            (":80:80", "the host address is missing in forward ':80:80'"),
            ("80:80/", "the protocol is missing in forward '80:80/'"),
            ("80:80/sctp", "unknown protocol 'sctp' (known: tcp, udp)"),
            ("80:80/tcp/udp", "unknown protocol 'tcp/udp', did you mean 'tcp'? (known: tcp, udp)"),
            ("localhost:80:80", "host address 'localhost' is not an IPv4 address"),
            ("10.0.0:80:80", "host address '10.0.0' is not an IPv4 address"),
            (
                "[::1]:80:80",
                "host address '[::1]' is not possible: QEMU's user networking forwards IPv4 only",
            ),
            ("::1:80:80", "host address '::1' is not possible: QEMU's user networking forwards IPv4 only"),
            ("1:2:3:4", "forward '1:2:3:4' has too many parts (wanted is [ADDR:]HOST:GUEST[/tcp|udp])"),
        ] {
            assert_eq!(text.parse::<Forward>().unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn conflicts_where_the_addresses_overlap() {
        let conflict = |a: &str, b: &str| {
            assert_eq!(forward(a).conflicts(&forward(b)), forward(b).conflicts(&forward(a)));
            forward(a).conflicts(&forward(b))
        };
        assert!(conflict("80:80", "80:81"));
        assert!(conflict("0.0.0.0:80:80", "80:80"));
        assert!(!conflict("127.0.0.2:80:80", "80:80"));
        assert!(!conflict("80:80/udp", "80:80"));
        assert!(!conflict("0:80", "0:80"));
    }

    proptest! {
        #[test]
        fn round_trips(address in any::<[u8; 4]>(), host in any::<u16>(), guest in 1..=u16::MAX, udp in any::<bool>()) {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let forward = Forward { address: address.into(), host, guest, protocol };
            prop_assert_eq!(forward.to_string().parse(), Ok(forward));
        }

        #[test]
        fn no_text_panics(text in any::<String>(), near in "[0-9a\\[\\].:/]{0,12}") {
            let _ = text.parse::<Forward>();
            let _ = near.parse::<Forward>();
        }
    }
}
