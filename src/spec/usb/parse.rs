//! Reading of USB selectors. What it is, is decided by its beginning, so that the error is about what was meant.

use std::ffi::OsStr;
use std::str::FromStr;

use thiserror::Error;

use super::UsbSelector;
use crate::spec::device::DeviceError;
use crate::spec::options::{self, OptionError};
use crate::spec::words::UnknownWord;

/// Of QEMU's drivers those that go into a USB bus (or, for the cards, into one that does).
const DRIVERS: [&str; 3] = ["usb-", "u2f-", "ccid-card-"];

/// The depth of a tree of hubs that libusb gives for USB 3.0 (documentation of `libusb_get_port_numbers`).
const MAX_PORTS: usize = 7;

/// Why a text is not a USB selector.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum UsbError {
    /// Nothing was given.
    #[error("the USB selector is empty; {FORMS}")]
    Empty,
    /// None of the forms.
    #[error("'{0}' does not say which USB device; {FORMS}")]
    Form(String),
    /// A vendor or product that is not hexadecimal.
    #[error("{part} '{text}' is not hexadecimal")]
    NotHexadecimal {
        /// `vendor` or `product`.
        part: &'static str,
        /// What was typed.
        text: String,
    },
    /// A vendor or product with too many digits.
    #[error("{part} '{text}' has more than 4 hexadecimal digits")]
    TooManyDigits {
        /// `vendor` or `product`.
        part: &'static str,
        /// What was typed.
        text: String,
    },
    /// A number that is none, or out of its range.
    #[error("USB {part} '{text}' is not a number from 1 to {highest}")]
    Number {
        /// `bus`, `address` or `port`.
        part: &'static str,
        /// What was typed.
        text: String,
        /// The highest that is possible.
        highest: u8,
    },
    /// A chain of ports that no bus has.
    #[error("a chain of USB ports has at most {MAX_PORTS}, this has {0}")]
    TooManyPorts(usize),
    /// A path that is none.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// The format of an image that is none.
    #[error(transparent)]
    Word(#[from] UnknownWord),
    /// Not a device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Not UTF-8, and not `file=` either.
    #[error("only the path of file=PATH may be other than UTF-8")]
    NotUtf8,
}

const FORMS: &str = "give VENDOR:PRODUCT (046d:c52b), BUS.ADDRESS (1.4), BUS-PORT (1-2.3), file=PATH \
                     or a driver (usb-kbd)";

impl UsbSelector {
    /// Reads a selector; the path of `file=PATH` need not be UTF-8, a comma in it is typed twice.
    pub fn parse(text: &OsStr) -> Result<Self, UsbError> {
        if text.is_empty() {
            return Err(UsbError::Empty);
        }
        if text.as_encoded_bytes().starts_with(b"file=") {
            return file(text);
        }
        let text = text.to_str().ok_or(UsbError::NotUtf8)?;
        // the properties of a driver may hold anything
        let head = text.split_once(',').map_or(text, |(head, _)| head);
        if head.contains(':') {
            return vendor_product(text);
        }
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return match text.find(['.', '-']) {
                Some(at) if text[at..].starts_with('.') => address(&text[..at], &text[at + 1..]),
                Some(at) => port(&text[..at], &text[at + 1..]),
                None => Err(UsbError::Form(text.to_owned())),
            };
        }
        if !DRIVERS.iter().any(|prefix| head.starts_with(prefix)) {
            return Err(UsbError::Form(text.to_owned()));
        }
        Ok(Self::Driver(text.parse()?))
    }
}

fn file(text: &OsStr) -> Result<UsbSelector, UsbError> {
    let (mut path, mut format) = (None, None);
    for (name, value) in options::read(text, "file", &["file", "format"])? {
        match name {
            "file" => path = Some(options::path(name, value)?),
            _ => format = Some(options::text(name, value.as_deref())?.parse()?),
        }
    }
    // the text begins with it
    let path = path.ok_or(OptionError::EmptyPath)?;
    Ok(UsbSelector::File { path, format })
}

fn vendor_product(text: &str) -> Result<UsbSelector, UsbError> {
    let (vendor, product) = text.split_once(':').unwrap_or((text, ""));
    Ok(UsbSelector::VendorProduct {
        vendor: hexadecimal("vendor", vendor)?,
        product: hexadecimal("product", product)?,
    })
}

/// With or without `0x`, as `usb-host`'s own properties are written.
fn hexadecimal(part: &'static str, text: &str) -> Result<u16, UsbError> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(UsbError::NotHexadecimal { part, text: text.to_owned() });
    }
    let too_many = || UsbError::TooManyDigits { part, text: text.to_owned() };
    if digits.len() > 4 {
        return Err(too_many());
    }
    u16::from_str_radix(digits, 16).map_err(|_| too_many())
}

fn address(bus: &str, address: &str) -> Result<UsbSelector, UsbError> {
    Ok(UsbSelector::Address { bus: number("bus", bus, 255)?, address: number("address", address, 127)? })
}

fn port(bus: &str, chain: &str) -> Result<UsbSelector, UsbError> {
    let bus = number("bus", bus, 255)?;
    let ports = chain.split('.').map(|port| number("port", port, 255)).collect::<Result<Vec<_>, _>>()?;
    if ports.len() > MAX_PORTS {
        return Err(UsbError::TooManyPorts(ports.len()));
    }
    Ok(UsbSelector::Port { bus, ports })
}

fn number(part: &'static str, text: &str, highest: u8) -> Result<u8, UsbError> {
    let number = text.parse().ok().filter(|number| (1..=highest).contains(number) && !text.starts_with('+'));
    number.ok_or_else(|| UsbError::Number { part, text: text.to_owned(), highest })
}

impl FromStr for UsbSelector {
    type Err = UsbError;

    fn from_str(text: &str) -> Result<Self, UsbError> {
        Self::parse(text.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::ImageFormat;

    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;
    use crate::spec::DeviceSpec;

    #[test]
    fn tells_the_forms_apart() {
        for (text, canonical) in [
            ("046d:c52b", "046d:c52b"),
            ("46D:1", "046d:0001"),
            ("0x046d:0xc52b", "046d:c52b"),
            ("1.4", "1.4"),
            ("255.127", "255.127"),
            ("1-2", "1-2"),
            ("1-2.3", "1-2.3"),
            ("file=a,,b=c:d", "file=a,,b=c:d"),
            ("usb-kbd", "usb-kbd"),
            ("usb-net,mac=52:54:00:00:00:01,id=n", "usb-net,id=n,mac=52:54:00:00:00:01"),
            ("u2f-passthru", "u2f-passthru"),
            ("ccid-card-emulated", "ccid-card-emulated"),
        ] {
            assert_eq!(text.parse::<UsbSelector>().unwrap().to_string(), canonical);
        }
        assert_eq!("file=a,,b".parse(), Ok(UsbSelector::File { path: "a,b".into(), format: None }));
        let raw = UsbSelector::File { path: "a".into(), format: Some(ImageFormat::Raw) };
        assert_eq!("file=a,format=raw".parse(), Ok(raw));
        assert_eq!("1-2.3".parse(), Ok(UsbSelector::Port { bus: 1, ports: vec![2, 3] }));
    }

    #[test]
    fn says_what_is_wrong() {
        let form = |text: &str| format!("'{text}' does not say which USB device; {FORMS}");
        for (text, message) in [
            ("", format!("the USB selector is empty; {FORMS}")),
            ("1234", form("1234")),
            ("kbd", form("kbd")),
            ("virtio-rng-pci", form("virtio-rng-pci")),
            ("/dev/sdb", form("/dev/sdb")),
            ("zz:1", "vendor 'zz' is not hexadecimal".into()),
            ("1:", "product '' is not hexadecimal".into()),
            ("1:2:3", "product '2:3' is not hexadecimal".into()),
            ("046d:c52b,id=x", "product 'c52b,id=x' is not hexadecimal".into()),
            ("12345:1", "vendor '12345' has more than 4 hexadecimal digits".into()),
            ("0.4", "USB bus '0' is not a number from 1 to 255".into()),
            ("256.4", "USB bus '256' is not a number from 1 to 255".into()),
            ("1.128", "USB address '128' is not a number from 1 to 127".into()),
            ("1.2.3", "USB address '2.3' is not a number from 1 to 127".into()),
            ("1-", "USB port '' is not a number from 1 to 255".into()),
            ("1-0", "USB port '0' is not a number from 1 to 255".into()),
            ("1-1.1.1.1.1.1.1.1", "a chain of USB ports has at most 7, this has 8".into()),
            ("file=", "the path is empty".into()),
            ("file=a,b", "unknown option 'b' (known: file, format); a literal comma is typed twice".into()),
            ("usb-kbd,a=1,a=2", "property 'a' is given twice".into()),
        ] {
            assert_eq!(text.parse::<UsbSelector>().unwrap_err().to_string(), message, "{text:?}");
        }
        assert_eq!(UsbSelector::parse(&OsString::from_vec(vec![0xff])), Err(UsbError::NotUtf8));
    }

    fn selector() -> impl Strategy<Value = UsbSelector> {
        prop_oneof![
            any::<(u16, u16)>().prop_map(|(vendor, product)| UsbSelector::VendorProduct { vendor, product }),
            (1..=255u8, 1..=127u8).prop_map(|(bus, address)| UsbSelector::Address { bus, address }),
            (1..=255u8, prop::collection::vec(1..=255u8, 1..=7))
                .prop_map(|(bus, ports)| UsbSelector::Port { bus, ports }),
            (prop::collection::vec(1..=255u8, 1..12), any::<bool>()).prop_map(|(path, raw)| {
                let format = raw.then_some(ImageFormat::Raw);
                UsbSelector::File { path: OsString::from_vec(path).into(), format }
            }),
            "usb-[a-z0-9]{1,9}".prop_map(|driver| UsbSelector::Driver(DeviceSpec::new(&driver).unwrap())),
        ]
    }

    proptest! {
        #[test]
        fn round_trips(selector in selector()) {
            prop_assert_eq!(UsbSelector::parse(&selector.to_os_string()), Ok(selector));
        }

        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>(), near in "([0-9]|[:.,=-]|usb-|file=){0,9}") {
            let _ = UsbSelector::parse(&OsString::from_vec(bytes));
            let _ = near.parse::<UsbSelector>();
        }
    }
}
