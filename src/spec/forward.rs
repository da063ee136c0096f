//! Port forwards: `[ADDR:]HOST:GUEST[/tcp|udp]`.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Transport protocol of a forward.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

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
