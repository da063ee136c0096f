//! `usb-add`.

use std::ffi::OsString;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::control::verbs;
use crate::machine;
use crate::spec::{DeviceId, UsbSelector};

use super::super::failure::Failure;
use super::device_state::warn_if_not_taken;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct UsbAdd {
    /// vid:pid, BUS.ADDR, BUS-PORT, file=PATH[,format=FORMAT] (a stick) or a driver such as usb-kbd
    #[arg(value_parser = OsStringValueParser::new().try_map(|text: OsString| UsbSelector::parse(&text)))]
    selector: UsbSelector,
    /// Id of the new device [default: picked]
    #[arg(long)]
    id: Option<DeviceId>,
}

impl Verb for UsbAdd {
    const ABOUT: &'static str = "Plug a USB device";
    const WAITS_FOR: &'static str = "plugging the device";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = machine::add_usb(self.selector, self.id)?;
        let verbs::UsbReply { usb } = context.call(call)?;
        warn_if_not_taken(&usb.id, usb.taken);
        context.output.print(&usb, || usb.id.clone())
    }
}
