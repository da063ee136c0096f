//! Why a host port cannot be listened on. QEMU only names the rule that failed.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use thiserror::Error;

use crate::spec::{Forward, Protocol};

/// Why a forward's host side cannot be had.
#[derive(Debug, Error)]
pub enum PortError {
    /// Something listens there already.
    #[error("{address}/{protocol} is in use by {}", .by.as_deref().unwrap_or("another program"), protocol = word(*.protocol))]
    Taken {
        /// Where.
        address: SocketAddr,
        /// The transport protocol.
        protocol: Protocol,
        /// The VM that listens there, if it is one of the user's.
        by: Option<String>,
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
        Some(Errno::EADDRINUSE) => PortError::Taken { address, protocol: forward.protocol, by: None },
        Some(Errno::EADDRNOTAVAIL) => PortError::NotHere { address },
        Some(Errno::EACCES) if address.port() < first_unprivileged_port() => {
            PortError::Privileged { address, first_free_for_all: first_unprivileged_port() }
        }
        _ => PortError::Other { address, source },
    })
}

/// Whether a process has a socket that keeps others from listening there, if `/proc` tells.
pub fn is_held_by(proc: &Path, pid: i32, address: SocketAddr, protocol: Protocol) -> bool {
    let table = fs::read_to_string(proc.join("net").join(word(protocol))).unwrap_or_default();
    let sockets: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| inode_at(line, address))
        .map(|inode| PathBuf::from(format!("socket:[{inode}]")))
        .collect();
    let Ok(open) = fs::read_dir(proc.join(pid.to_string()).join("fd")) else { return false };
    open.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|target| sockets.contains(&target)))
}

/// The inode of a socket in a line of `/proc/net/tcp` or `udp` (proc_net(5)), if it has this port at an address that collides.
fn inode_at(line: &str, wanted: SocketAddr) -> Option<&str> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    // the four bytes of the address as one number of this machine
    let address = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes());
    let is_at_port = u16::from_str_radix(port, 16) == Ok(wanted.port());
    let collides = address == wanted.ip() || address.is_unspecified() || wanted.ip().is_unspecified();
    // a connection of a client does not keep others from listening
    let listens = matches!(*fields.get(3)?, "0A" | "07");
    (is_at_port && collides && listens).then(|| fields.get(9).copied()).flatten()
}

fn first_unprivileged_port() -> u16 {
    let setting = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
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
    fn who_listens_is_what_the_kernel_says() {
        let own = i32::try_from(std::process::id()).unwrap();
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("0.0.0.0:0").unwrap());
        let held = |pid, address: SocketAddr, protocol| is_held_by("/proc".as_ref(), pid, address, protocol);
        let address = tcp.local_addr().unwrap();
        assert!(held(own, address, Protocol::Tcp));
        assert!(held(own, (Ipv4Addr::UNSPECIFIED, address.port()).into(), Protocol::Tcp));
        assert!(!held(own, (Ipv4Addr::new(127, 0, 0, 2), address.port()).into(), Protocol::Tcp));
        assert!(!held(1, address, Protocol::Tcp));
        let port = udp.local_addr().unwrap().port();
        assert!(held(own, (Ipv4Addr::LOCALHOST, port).into(), Protocol::Udp));
        drop(tcp);
        assert!(!held(own, address, Protocol::Tcp));
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
