//! `usb-add`.

use crate::control::parameters::{absolute, parse, parse_if_given};
use crate::control::{translate, wire};
use crate::spec::UsbSelector;
use crate::vm::{Change, ChangeError, Done};

use super::method::{ChangeMethod, method};

method! {
    /// Plugs a USB device.
    AddUsb { selector: String; id: String } -> UsbReply
}

wire::replies! {
    /// Reply of `AddUsb`.
    UsbReply { usb: wire::Usb; }
}

impl ChangeMethod for AddUsb {
    fn change(self) -> Result<Change, ChangeError> {
        let selector: UsbSelector = parse("selector", &self.selector)?;
        if let UsbSelector::File { path, .. } = &selector {
            absolute("selector", &path.to_string_lossy())?;
        }
        Ok(Change::AddUsb { selector, id: parse_if_given("id", self.id)? })
    }

    fn reply(done: Done) -> Result<UsbReply, ChangeError> {
        Ok(UsbReply { usb: translate::usb(&done.device()?) })
    }
}
