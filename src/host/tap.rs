//! Tap devices as open descriptors, to be handed to QEMU: its sandbox lets it neither open them nor run the bridge helper.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use thiserror::Error;

use super::programs::{ProgramError, SearchPath, bridge_helper};
use super::{descriptors, sys};
use crate::spec::InterfaceName;

/// The most bytes of a helper's stderr that a message shows.
const LONGEST_WORDS: u64 = 4096;

/// An open tap device.
#[derive(Debug)]
pub struct Tap {
    /// Packets go in and out here.
    pub descriptor: OwnedFd,
    /// The interface's name.
    pub interface: String,
}

/// Where the kernel's interfaces are; tests have others.
#[derive(Debug, Clone)]
pub struct HostPaths {
    /// Linux' list of interfaces; `/sys/class/net`.
    pub interfaces: PathBuf,
    /// The device that makes taps; `/dev/net/tun`.
    pub tun: PathBuf,
}

impl Default for HostPaths {
    fn default() -> Self {
        Self { interfaces: "/sys/class/net".into(), tun: "/dev/net/tun".into() }
    }
}

/// Why there is no open tap device.
#[derive(Debug, Error)]
pub enum TapError {
    /// No such interface.
    #[error("this machine has no network interface '{0}'")]
    NoInterface(String),
    /// There is one, of another kind.
    #[error("network interface '{name}' is no {kind}")]
    WrongKind {
        /// Its name.
        name: String,
        /// What it should be.
        kind: &'static str,
    },
    /// Another process has it open.
    #[error("tap device '{0}' is in use by another process")]
    InUse(String),
    /// It belongs to another user.
    #[error("tap device '{0}' may not be opened by this user")]
    Forbidden(String),
    /// Any other reason.
    #[error("tap device '{name}' cannot be opened")]
    Open {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The helper is not there.
    #[error(transparent)]
    Helper(#[from] ProgramError),
    /// The helper could not be run, or did not hand over a device.
    #[error("QEMU's bridge helper gave no device")]
    Handover(#[source] io::Error),
    /// The helper said no.
    #[error("QEMU's bridge helper refused bridge '{bridge}': {said}")]
    Refused {
        /// The bridge.
        bridge: String,
        /// Its words.
        said: String,
    },
}

impl TapError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoInterface(name)
            | Self::WrongKind { name, kind: "tap device" }
            | Self::Forbidden(name) => {
                Some(format!("make one for this user: `ip tuntap add dev {name} mode tap user $USER`"))
            }
            Self::Helper(error) => error.hint(),
            Self::Refused { bridge, .. } => Some(format!(
                "/etc/qemu/bridge.conf must have `allow {bridge}`; for others than root the helper must be setuid, too"
            )),
            _ => None,
        }
    }
}

/// Opens a tap device that is there already: making one is for those who configure networks.
///
/// # Errors
/// It is not there, not a tap device, in use, or belongs to another user.
pub fn open(name: &InterfaceName, paths: &HostPaths) -> Result<Tap, TapError> {
    let interface = name.to_string();
    check_kind(&interface, "tun_flags", "tap device", paths)?;
    let tun = OpenOptions::new().read(true).write(true).open(&paths.tun);
    let attached = tun.and_then(|tun| attach(tun, &interface));
    match attached {
        Ok(descriptor) => Ok(Tap { descriptor, interface }),
        Err(error) => Err(match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EBUSY) => TapError::InUse(interface),
            Some(Errno::EPERM | Errno::EACCES) => TapError::Forbidden(interface),
            _ => TapError::Open { name: interface, source: error },
        }),
    }
}

#[cfg(target_os = "linux")]
fn attach(tun: File, interface: &str) -> io::Result<OwnedFd> {
    sys::attach_tap(&tun, interface)?;
    Ok(tun.into())
}

#[cfg(not(target_os = "linux"))]
fn attach(_tun: File, _interface: &str) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// `attribute`: what sysfs has for interfaces of this kind only.
fn check_kind(name: &str, attribute: &str, kind: &'static str, paths: &HostPaths) -> Result<(), TapError> {
    let folder = paths.interfaces.join(name);
    match (folder.exists(), folder.join(attribute).exists()) {
        (false, _) => Err(TapError::NoInterface(name.to_owned())),
        (true, false) => Err(TapError::WrongKind { name: name.to_owned(), kind }),
        (true, true) => Ok(()),
    }
}

/// Has QEMU's bridge helper make a tap device on a bridge; it goes when its descriptor is closed.
///
/// # Errors
/// No such bridge, no helper, or the helper's own words.
pub fn open_on_bridge(name: &InterfaceName, search: &SearchPath, paths: &HostPaths) -> Result<Tap, TapError> {
    check_kind(name.as_str(), "bridge", "bridge", paths).map_err(|error| match error {
        // its hint is for tap devices
        TapError::NoInterface(name) => TapError::WrongKind { name, kind: "bridge of this machine" },
        error => error,
    })?;
    let helper = bridge_helper(search)?;
    let (ours, theirs) = UnixStream::pair().map_err(TapError::Handover)?;
    let mut child = start(&helper, name, theirs).map_err(TapError::Handover)?;
    let received = receive(&ours);
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(LONGEST_WORDS).read_to_string(&mut said);
    }
    let ended = child.wait().map_err(TapError::Handover)?;
    if !ended.success() {
        return Err(TapError::Refused { bridge: name.to_string(), said: said.trim().replace('\n', "; ") });
    }
    let descriptor = received.map_err(TapError::Handover)?;
    let interface = name_of(&descriptor).map_err(TapError::Handover)?;
    Ok(Tap { descriptor, interface })
}

fn start(helper: &Path, bridge: &InterfaceName, theirs: UnixStream) -> io::Result<std::process::Child> {
    let mut command = Command::new(helper);
    let number = theirs.as_raw_fd();
    command.args(["--use-vnet", &format!("--fd={number}"), &format!("--br={bridge}")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    descriptors::give_limit_back(&mut command);
    sys::prepare_child(&mut command, vec![theirs.into()], false, true);
    // the command, and with it our copy of its end, goes with this function: what we read then ends when the helper does
    command.spawn()
}

/// The descriptor that comes with one byte.
fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0; 1];
    let mut data = [IoSliceMut::new(&mut byte)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut data, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = beside.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[cfg(target_os = "linux")]
fn name_of(tap: &OwnedFd) -> io::Result<String> {
    sys::tap_name(tap)
}

#[cfg(not(target_os = "linux"))]
fn name_of(_tap: &OwnedFd) -> io::Result<String> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What has gone through an interface, as the host counts: what it sent is what the guest received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Bytes from the guest.
    pub rx_bytes: u64,
    /// Packets from the guest.
    pub rx_packets: u64,
    /// Errors on the way from the guest.
    pub rx_errors: u64,
    /// Dropped on the way from the guest.
    pub rx_dropped: u64,
    /// Bytes to the guest.
    pub tx_bytes: u64,
    /// Packets to the guest.
    pub tx_packets: u64,
    /// Errors on the way to the guest.
    pub tx_errors: u64,
    /// Dropped on the way to the guest.
    pub tx_dropped: u64,
}

/// Reads an interface's counters from sysfs.
///
/// # Errors
/// There is no such interface.
pub fn counters(interface: &str, paths: &HostPaths) -> io::Result<Counters> {
    let folder = paths.interfaces.join(interface).join("statistics");
    let count = |name: &str| -> io::Result<u64> {
        let text = std::fs::read_to_string(folder.join(name))?;
        text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
    };
    Ok(Counters {
        rx_bytes: count("rx_bytes")?,
        rx_packets: count("rx_packets")?,
        rx_errors: count("rx_errors")?,
        rx_dropped: count("rx_dropped")?,
        tx_bytes: count("tx_bytes")?,
        tx_packets: count("tx_packets")?,
        tx_errors: count("tx_errors")?,
        tx_dropped: count("tx_dropped")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sysfs with a bridge `br0` and a tap `vt0`.
    fn paths(root: &Path) -> HostPaths {
        for folder in ["net/br0/bridge", "net/vt0/statistics"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::write(root.join("net/vt0/tun_flags"), "0x1002\n").unwrap();
        for (number, name) in ["rx", "tx"]
            .iter()
            .flat_map(|way| ["bytes", "packets", "errors", "dropped"].map(|what| format!("{way}_{what}")))
            .enumerate()
        {
            std::fs::write(root.join("net/vt0/statistics").join(name), format!("{number}\n")).unwrap();
        }
        HostPaths { interfaces: root.join("net"), tun: root.join("tun") }
    }

    #[test]
    fn says_what_is_wrong_with_an_interface() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        let tap = |name: &str| open(&name.parse().unwrap(), &paths).unwrap_err();
        assert_eq!(tap("none").to_string(), "this machine has no network interface 'none'");
        assert!(tap("none").hint().unwrap().contains("ip tuntap add dev none mode tap"));
        assert_eq!(tap("br0").to_string(), "network interface 'br0' is no tap device");
        assert_eq!(tap("vt0").to_string(), "tap device 'vt0' cannot be opened");
        let search = SearchPath { path: "".into(), root: root.path().to_owned() };
        let bridge =
            |name: &str| open_on_bridge(&name.parse().unwrap(), &search, &paths).unwrap_err().to_string();
        assert_eq!(bridge("none"), "network interface 'none' is no bridge of this machine");
        assert_eq!(bridge("vt0"), "network interface 'vt0' is no bridge");
        assert_eq!(bridge("br0"), "qemu-bridge-helper is not installed");
    }

    #[test]
    fn a_helper_that_refuses_is_quoted() {
        use std::os::unix::fs::PermissionsExt;

        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        let helper = root.path().join("qemu-bridge-helper");
        let search = SearchPath { path: root.path().into(), root: root.path().to_owned() };
        for (script, message) in [
            ("echo access denied by acl file >&2; exit 1", "refused bridge 'br0': access denied by acl file"),
            ("exit 0", "gave no device"),
        ] {
            std::fs::write(&helper, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
            let error = open_on_bridge(&"br0".parse().unwrap(), &search, &paths).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
    }

    #[test]
    fn reads_counters() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        let counted = counters("vt0", &paths).unwrap();
        assert_eq!(
            (counted.rx_bytes, counted.rx_dropped, counted.tx_bytes, counted.tx_dropped),
            (0, 3, 4, 7)
        );
        assert!(counters("br0", &paths).is_err());
    }
}
