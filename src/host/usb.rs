//! The host's USB devices, from sysfs.
//!
//! QEMU takes a selector that matches nothing without a word and waits for ever, so selectors are resolved here, to a device that is there and can be opened.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group};
use thiserror::Error;

use crate::spec::UsbSelector;

/// `bDeviceClass` of hubs.
const CLASS_HUB: u8 = 9;

/// Where the host's USB devices are.
#[derive(Debug, Clone)]
pub struct UsbRoots {
    /// `/sys/bus/usb/devices`.
    pub devices: PathBuf,
    /// `/dev/bus/usb`.
    pub nodes: PathBuf,
}

impl Default for UsbRoots {
    fn default() -> Self {
        Self { devices: "/sys/bus/usb/devices".into(), nodes: "/dev/bus/usb".into() }
    }
}

/// A USB device of the host.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HostUsb {
    /// Bus number, from 1.
    pub bus: u8,
    /// Its present address on the bus; changes whenever it is plugged in.
    pub address: u8,
    /// Where it is plugged in: `2.3` is port 3 of the hub in port 2; empty for a root hub.
    pub ports: Vec<u8>,
    /// Vendor.
    pub vendor: u16,
    /// Product.
    pub product: u16,
    /// The maker's name as the device says it.
    pub manufacturer: Option<String>,
    /// Its name as the device says it.
    pub name: Option<String>,
    /// Its serial number as the device says it.
    pub serial: Option<String>,
    /// Megabits per second, as sysfs has it: `1.5`, `12`, `480`, `5000`…
    pub speed_mbps: Option<String>,
    /// Its node, e.g. `/dev/bus/usb/001/004`.
    pub node: PathBuf,
    /// It is a hub, which cannot be given away.
    pub is_hub: bool,
}

impl fmt::Display for HostUsb {
    /// `1.4 046d:c52b Logitech USB Receiver`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} {:04x}:{:04x}", self.bus, self.address, self.vendor, self.product)?;
        [&self.manufacturer, &self.name].into_iter().flatten().try_for_each(|text| write!(f, " {text}"))
    }
}

/// Why a selector leads to no usable device.
#[derive(Debug, Error)]
pub enum UsbHostError {
    /// Nothing matches.
    #[error("no USB device {selector} is plugged in{}", list(" (there are: ", present, ")"))]
    None {
        /// As selected.
        selector: String,
        /// What is there, hubs aside.
        present: Vec<HostUsb>,
    },
    /// More than one matches.
    #[error("{selector} is {} USB devices: {}", matching.len(), list("", matching, ""))]
    Several {
        /// As selected.
        selector: String,
        /// Those that match.
        matching: Vec<HostUsb>,
    },
    /// A hub.
    #[error("{0} is a hub: only what is plugged into it can be given to a VM")]
    Hub(Box<HostUsb>),
    /// Its node may not be opened.
    #[error("{device} may not be used: {} is for {}", device.node.display(), group.as_deref().map_or("its owner".to_owned(), |group| format!("group {group}")))]
    Forbidden {
        /// The device.
        device: Box<HostUsb>,
        /// The group that its node is of, unless that is root's.
        group: Option<String>,
    },
    /// Its node cannot be opened for another reason.
    #[error("cannot open {} of {device}", device.node.display())]
    Node {
        /// The device.
        device: Box<HostUsb>,
        /// Why.
        source: io::Error,
    },
    /// Not a device of the host.
    #[error("that is not a USB device of this machine")]
    NotOfHost,
}

fn list(before: &str, devices: &[HostUsb], after: &str) -> String {
    match devices {
        [] => String::new(),
        _ => format!(
            "{before}{}{after}",
            devices.iter().map(HostUsb::to_string).collect::<Vec<_>>().join("; ")
        ),
    }
}

impl UsbHostError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Several { matching, .. } => matching
                .first()
                .map(|first| format!("select one by its address, e.g. {}.{}", first.bus, first.address)),
            Self::Forbidden { device, group } => {
                let join = group.as_ref().map(|group| format!("join the group {group}, or "));
                Some(format!(
                    "{}put this line into /etc/udev/rules.d/70-vmrun.rules and plug it in again: \
                     SUBSYSTEM==\"usb\", ATTR{{idVendor}}==\"{:04x}\", ATTR{{idProduct}}==\"{:04x}\", TAG+=\"uaccess\"",
                    join.unwrap_or_default(),
                    device.vendor,
                    device.product
                ))
            }
            Self::None { .. } | Self::Hub(_) | Self::Node { .. } | Self::NotOfHost => None,
        }
    }
}

/// All USB devices of the host by bus and address, hubs too. A machine without USB has none.
pub fn host_devices(roots: &UsbRoots) -> Vec<HostUsb> {
    let entries = fs::read_dir(&roots.devices).into_iter().flatten().flatten();
    // one that is pulled out while we look is not there
    let mut devices: Vec<_> = entries.filter_map(|entry| read_device(&entry.path(), &roots.nodes)).collect();
    devices.sort_by_key(|device| (device.bus, device.address));
    devices
}

fn read_device(folder: &Path, nodes: &Path) -> Option<HostUsb> {
    // `usb1` is a root hub, `1-2.3` a device, `1-2.3:1.0` an interface of one
    let name = folder.file_name()?.to_str()?;
    let ports = match name.split_once('-') {
        _ if name.contains(':') => return None,
        Some((_, chain)) => chain.split('.').map(|port| port.parse().ok()).collect::<Option<_>>()?,
        None => Vec::new(),
    };
    let text = |attribute: &str| {
        let bytes = fs::read(folder.join(attribute)).ok()?;
        // strings come from the device: no control characters on anybody's terminal
        let clean: String =
            String::from_utf8_lossy(&bytes).trim().chars().filter(|c| !c.is_control()).collect();
        (!clean.is_empty()).then_some(clean)
    };
    let hex = |attribute| u16::from_str_radix(&text(attribute)?, 16).ok();
    let (bus, address): (u8, u8) = (text("busnum")?.parse().ok()?, text("devnum")?.parse().ok()?);
    Some(HostUsb {
        bus,
        address,
        ports,
        vendor: hex("idVendor")?,
        product: hex("idProduct")?,
        manufacturer: text("manufacturer"),
        name: text("product"),
        serial: text("serial"),
        speed_mbps: text("speed"),
        node: nodes.join(format!("{bus:03}/{address:03}")),
        is_hub: hex("bDeviceClass") == Some(CLASS_HUB.into()),
    })
}

/// The one device that a selector means, after seeing that its node can be opened.
///
/// # Errors
/// None such, several such, a hub, or no permission.
pub fn resolve(selector: &UsbSelector, roots: &UsbRoots) -> Result<HostUsb, UsbHostError> {
    let all = host_devices(roots);
    let text = describe(selector).ok_or(UsbHostError::NotOfHost)?;
    let mut matching: Vec<_> = all.iter().filter(|device| matches(selector, device)).cloned().collect();
    let device = match matching.len() {
        1 => matching.remove(0),
        0 => {
            let present = all.into_iter().filter(|device| !device.is_hub).collect();
            return Err(UsbHostError::None { selector: text, present });
        }
        _ => return Err(UsbHostError::Several { selector: text, matching }),
    };
    if device.is_hub {
        return Err(UsbHostError::Hub(device.into()));
    }
    // as libusb will, in QEMU
    match File::options().read(true).write(true).open(&device.node) {
        Ok(_) => Ok(device),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let group = group_of(&device.node);
            Err(UsbHostError::Forbidden { device: device.into(), group })
        }
        Err(source) => Err(UsbHostError::Node { device: device.into(), source }),
    }
}

fn matches(selector: &UsbSelector, device: &HostUsb) -> bool {
    match selector {
        UsbSelector::VendorProduct { vendor, product } => {
            (device.vendor, device.product) == (*vendor, *product)
        }
        UsbSelector::Address { bus, address } => (device.bus, device.address) == (*bus, *address),
        UsbSelector::Port { bus, ports } => device.bus == *bus && device.ports == *ports,
        UsbSelector::File { .. } | UsbSelector::Driver(_) => false,
    }
}

fn describe(selector: &UsbSelector) -> Option<String> {
    match selector {
        UsbSelector::VendorProduct { vendor, product } => Some(format!("{vendor:04x}:{product:04x}")),
        UsbSelector::Address { bus, address } => Some(format!("at address {bus}.{address}")),
        UsbSelector::Port { bus, ports } => {
            let chain: Vec<_> = ports.iter().map(u8::to_string).collect();
            Some(format!("in port {bus}-{}", chain.join(".")))
        }
        UsbSelector::File { .. } | UsbSelector::Driver(_) => None,
    }
}

/// The group that may use a node, unless it is root's.
fn group_of(node: &Path) -> Option<String> {
    let facts = fs::metadata(node).ok()?;
    let helps = facts.gid() != 0 && facts.mode() & 0o060 == 0o060;
    helps.then(|| Group::from_gid(Gid::from_raw(facts.gid())).ok().flatten())?.map(|group| group.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plug(root: &Path, folder: &str, attributes: &[(&str, &str)]) {
        let path = root.join("devices").join(folder);
        fs::create_dir_all(&path).unwrap();
        for (name, value) in attributes {
            fs::write(path.join(name), format!("{value}\n")).unwrap();
        }
    }

    /// A root hub, a receiver twice, and a hub with a stick whose strings are nasty.
    fn machine() -> (tempfile::TempDir, UsbRoots) {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        let device = |folder, bus, address, ids: (&str, &str), class, name| {
            let rest = [("bDeviceClass", class), ("product", name), ("speed", "480")];
            let start = [("busnum", bus), ("devnum", address), ("idVendor", ids.0), ("idProduct", ids.1)];
            plug(root, folder, &[&start[..], &rest[..]].concat());
        };
        device("usb1", "1", "1", ("1d6b", "0002"), "09", "xHCI Host Controller");
        device("1-1", "1", "4", ("046d", "c52b"), "00", "USB Receiver");
        device("1-2", "1", "5", ("0bda", "5411"), "09", "Hub");
        device("1-2.3", "1", "12", ("0781", "5567"), "00", "Cruzer\u{1b}[31m");
        device("2-1", "2", "2", ("046d", "c52b"), "00", "USB Receiver");
        plug(root, "1-1:1.0", &[("bInterfaceClass", "03")]);
        plug(root, "1-9", &[("busnum", "1")]);
        plug(root, "1-1", &[("manufacturer", "Logitech")]);
        for (bus, address) in [("001", "004"), ("001", "012"), ("002", "002")] {
            fs::create_dir_all(root.join("nodes").join(bus)).unwrap();
            fs::write(root.join("nodes").join(bus).join(address), "").unwrap();
        }
        let roots = UsbRoots { devices: root.join("devices"), nodes: root.join("nodes") };
        (temporary, roots)
    }

    #[test]
    fn lists_devices_by_address() {
        let (_root, roots) = machine();
        let texts: Vec<_> = host_devices(&roots).iter().map(HostUsb::to_string).collect();
        assert_eq!(
            texts,
            [
                "1.1 1d6b:0002 xHCI Host Controller",
                "1.4 046d:c52b Logitech USB Receiver",
                "1.5 0bda:5411 Hub",
                "1.12 0781:5567 Cruzer[31m",
                "2.2 046d:c52b USB Receiver",
            ]
        );
        assert!(host_devices(&UsbRoots { devices: "/nonexistent".into(), nodes: "/".into() }).is_empty());
    }

    #[test]
    fn resolves_by_port_address_and_ids() {
        let (_root, roots) = machine();
        let by_port = resolve(&UsbSelector::Port { bus: 1, ports: vec![2, 3] }, &roots).unwrap();
        assert_eq!((by_port.address, by_port.speed_mbps.as_deref()), (12, Some("480")));
        assert_eq!(by_port.node, roots.nodes.join("001/012"));
        assert_eq!(resolve(&UsbSelector::Address { bus: 1, address: 12 }, &roots).unwrap(), by_port);
        let by_ids = UsbSelector::VendorProduct { vendor: 0x0781, product: 0x5567 };
        assert_eq!(resolve(&by_ids, &roots).unwrap(), by_port);
    }

    #[test]
    fn says_what_is_there_when_nothing_or_too_much_matches() {
        let (_root, roots) = machine();
        let none = resolve(&UsbSelector::VendorProduct { vendor: 1, product: 2 }, &roots).unwrap_err();
        let text = none.to_string();
        assert!(
            text.starts_with("no USB device 0001:0002 is plugged in (there are: 1.4 046d:c52b Logitech"),
            "{text}"
        );
        assert!(!text.contains("Hub"));
        let twice =
            resolve(&UsbSelector::VendorProduct { vendor: 0x046d, product: 0xc52b }, &roots).unwrap_err();
        assert!(twice.to_string().starts_with("046d:c52b is 2 USB devices: 1.4 "), "{twice}");
        assert_eq!(twice.hint().unwrap(), "select one by its address, e.g. 1.4");
    }

    #[test]
    fn hubs_and_nodes_that_do_not_open_are_refused() {
        let (_root, roots) = machine();
        let hub = resolve(&UsbSelector::Port { bus: 1, ports: vec![2] }, &roots).unwrap_err();
        assert!(matches!(hub, UsbHostError::Hub(_)));
        fs::remove_file(roots.nodes.join("001/004")).unwrap();
        let gone = resolve(&UsbSelector::Address { bus: 1, address: 4 }, &roots).unwrap_err();
        assert!(matches!(gone, UsbHostError::Node { .. }));
        let stick = resolve(&UsbSelector::File { path: "a".into(), format: None }, &roots).unwrap_err();
        assert!(matches!(stick, UsbHostError::NotOfHost));
    }

    #[test]
    fn a_forbidden_device_comes_with_a_rule() {
        let (_root, roots) = machine();
        let device = host_devices(&roots).remove(1);
        let error = UsbHostError::Forbidden { device: device.into(), group: Some("plugdev".to_owned()) };
        assert!(error.to_string().ends_with("is for group plugdev"), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.starts_with("join the group plugdev, or put this line"));
        assert!(hint.contains("ATTR{idVendor}==\"046d\", ATTR{idProduct}==\"c52b\", TAG+=\"uaccess\""));
    }
}
