//! USB selectors: what `usb-add` can be told to plug.

use std::path::PathBuf;

use super::device::DeviceSpec;

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
    /// `file=PATH`: a USB stick with this image.
    File(PathBuf),
    /// A driver of QEMU whose name starts with `usb-` (or `u2f-`, `ccid-card-…`), e.g. `usb-kbd` or `usb-tablet,serial=1`.
    Driver(DeviceSpec),
}
