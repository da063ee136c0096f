//! `usb-list`.

use crate::control::error::WireError;
use crate::control::permits::Use;
use crate::control::{translate, wire};
use crate::vm::Handle;

use super::method::{CallMethod, Uploads, method};

method! {
    /// Lists the USB devices.
    ListUsb { ; } -> UsbList, repeatable
}

wire::replies! {
    /// Reply of `ListUsb`.
    UsbList { usb: Vec<wire::Usb>; }
}

impl CallMethod for ListUsb {
    const NEEDS: Use = Use::Short;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<UsbList, WireError> {
        let status = translate::status(&*vm.status().await?);
        Ok(UsbList { usb: status.usb })
    }
}
