//! USB selectors: what `usb-add` can plug.

mod parse;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

pub use parse::UsbError;

use super::device::DeviceSpec;
use super::disk::ImageFormat;
use super::options::Writer;

/// What to plug into USB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsbSelector {
    /// `vid:pid` in hexadecimal, e.g. `046d:c52b`.
    VendorProduct {
        /// Vendor.
        vendor: u16,
        /// Product.
        product: u16,
    },
    /// `BUS.ADDR` in decimal, e.g. `1.4`: a host device by its present address.
    Address {
        /// Bus number, from 1.
        bus: u8,
        /// Device address, 1 to 127.
        address: u8,
    },
    /// `BUS-PORT[.PORT…]`, e.g. `1-2.3`: whatever is in this port of the host.
    Port {
        /// Bus number, from 1.
        bus: u8,
        /// The chain of ports, each from 1, at most 7.
        ports: Vec<u8>,
    },
    /// `file=PATH[,format=FORMAT]`: a USB stick with this image.
    File {
        /// The image.
        path: PathBuf,
        /// Its format, where that is not to be found out.
        format: Option<ImageFormat>,
    },
    /// A driver of QEMU whose name starts with `usb-` (or `u2f-`, `ccid-card-…`), e.g. `usb-kbd` or `usb-tablet,serial=1`.
    Driver(DeviceSpec),
}

impl UsbSelector {
    /// The text that [`UsbSelector::parse`] reads, with every byte of a path.
    pub fn to_os_string(&self) -> OsString {
        match self {
            Self::File { path, format } => {
                let mut list = Writer::new("file", None);
                list.add("file", path);
                if let Some(format) = format {
                    list.add("format", format.as_str());
                }
                list.finish()
            }
            other => other.to_string().into(),
        }
    }
}

impl fmt::Display for UsbSelector {
    /// Round-trips, except for a path that is not UTF-8; [`UsbSelector::to_os_string`] always does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::VendorProduct { vendor, product } => format!("{vendor:04x}:{product:04x}"),
            Self::Address { bus, address } => format!("{bus}.{address}"),
            Self::Port { bus, ports } => {
                let ports: Vec<_> = ports.iter().map(u8::to_string).collect();
                format!("{bus}-{}", ports.join("."))
            }
            Self::File { .. } => self.to_os_string().to_string_lossy().into_owned(),
            Self::Driver(device) => device.to_string(),
        };
        f.pad(&text)
    }
}
