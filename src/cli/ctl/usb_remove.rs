//! `usb-remove`.

use clap::Args;

use crate::control::verbs;

use super::super::failure::Failure;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct UsbRemove {
    /// Device id, as printed by usb-list
    id: String,
}

impl Verb for UsbRemove {
    const ABOUT: &'static str = "Unplug a USB device";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        context.call(verbs::RemoveUsb { id: self.id.clone() })?;
        context.output.print(&serde_json::json!({}), || format!("removed {}", self.id))
    }
}
