//! `usb-remove`.

use crate::control::wire::Nothing;
use crate::vm::{Change, ChangeError, DeviceKind, Done, ErrorKind};

use super::method::{ChangeMethod, REMOVAL_TIMEOUT, method};

method! {
    /// Unplugs a USB device. The guest is not asked.
    RemoveUsb { id: String; } -> Nothing
}

impl ChangeMethod for RemoveUsb {
    fn change(self) -> Result<Change, ChangeError> {
        Ok(Change::Remove { kind: DeviceKind::Usb, id: self.id, wait: REMOVAL_TIMEOUT })
    }

    fn reply(done: Done) -> Result<Nothing, ChangeError> {
        match done.is_removed()? {
            true => Ok(Nothing {}),
            false => {
                let seconds = REMOVAL_TIMEOUT.as_secs();
                let message = format!("QEMU has not removed the USB device within {seconds} s");
                Err(ChangeError::new(ErrorKind::TimedOut, message)
                    .hint("the request stands; `usb-list` shows when the device is gone"))
            }
        }
    }
}
