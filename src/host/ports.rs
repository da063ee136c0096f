//! Why a host port cannot be listened on. QEMU only names the rule that failed.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use nix::errno::Errno;
use thiserror::Error;

use crate::spec::{Forward, Protocol};

/// Why a forward's host side cannot be had.
#[derive(Debug, Error)]
pub enum PortError {
    /// Something listens there already.
    #[error("{address}/{protocol} is in use by another program", protocol = word(*.protocol))]
    Taken {
        /// Where.
        address: SocketAddr,
        /// The transport protocol.
        protocol: Protocol,
    },
    /// A low port, and no right to it.
    #[error("port {} is only for root", address.port())]
    Privileged {
        /// Where.
        address: SocketAddr,
        /// The first port that everyone may listen on.
        first_free_for_all: u16,
    },
    /// The address is not one of this machine's.
    #[error("{} is not an address of this machine", address.ip())]
    NotHere {
        /// Where.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl PortError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Taken { .. } => Some("use host port 0 for any free one".to_owned()),
            Self::Privileged { first_free_for_all, .. } => Some(format!(
                "use a port from {first_free_for_all} on, or lower sysctl net.ipv4.ip_unprivileged_port_start"
            )),
            Self::NotHere { .. } => {
                Some("127.0.0.1 is this machine only, 0.0.0.0 is every address of it".to_owned())
            }
            Self::Other { .. } => None,
        }
    }
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// Tries to listen where a forward would, and stops at once. Port 0 fails only for its address.
///
/// # Errors
/// Why QEMU could not listen there either. (Someone else may still take the port before QEMU does.)
pub fn check(forward: &Forward) -> Result<(), PortError> {
    let address = SocketAddr::from((forward.address, forward.host));
    // std sets SO_REUSEADDR for TCP, as QEMU's slirp does: connections in TIME_WAIT are no obstacle
    let tried = match forward.protocol {
        Protocol::Tcp => TcpListener::bind(address).map(drop),
        Protocol::Udp => UdpSocket::bind(address).map(drop),
    };
    tried.map_err(|source| match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => PortError::Taken { address, protocol: forward.protocol },
        Some(Errno::EADDRNOTAVAIL) => PortError::NotHere { address },
        Some(Errno::EACCES) if address.port() < first_unprivileged_port() => {
            PortError::Privileged { address, first_free_for_all: first_unprivileged_port() }
        }
        _ => PortError::Other { address, source },
    })
}

fn first_unprivileged_port() -> u16 {
    let setting = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    setting.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn forward(address: Ipv4Addr, host: u16, protocol: Protocol) -> Forward {
        Forward { address, host, guest: 22, protocol }
    }

    #[test]
    fn any_free_port_is_fine() {
        check(&forward(Ipv4Addr::LOCALHOST, 0, Protocol::Tcp)).unwrap();
        check(&forward(Ipv4Addr::UNSPECIFIED, 0, Protocol::Udp)).unwrap();
    }

    #[test]
    fn a_taken_port_is_said_to_be_taken() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let error = check(&forward(Ipv4Addr::LOCALHOST, port, Protocol::Tcp)).unwrap_err();
        assert_eq!(error.to_string(), format!("127.0.0.1:{port}/tcp is in use by another program"));
        let error = check(&forward(Ipv4Addr::UNSPECIFIED, port, Protocol::Tcp)).unwrap_err();
        assert!(matches!(error, PortError::Taken { .. }));
        drop(tcp);
        check(&forward(Ipv4Addr::LOCALHOST, port, Protocol::Tcp)).unwrap();

        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        let error = check(&forward(Ipv4Addr::LOCALHOST, port, Protocol::Udp)).unwrap_err();
        assert!(matches!(error, PortError::Taken { .. }));
    }

    #[test]
    fn a_foreign_address_is_said_to_be_foreign() {
        // TEST-NET-3 of RFC 5737: assigned to no host
        let error = check(&forward(Ipv4Addr::new(203, 0, 113, 7), 0, Protocol::Tcp)).unwrap_err();
        assert!(matches!(error, PortError::NotHere { .. }), "{error}");
    }
}
