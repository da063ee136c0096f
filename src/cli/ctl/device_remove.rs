//! `device-remove`.

use clap::Args;

use crate::control::verbs::RemoveDevice;

use super::super::failure::Failure;
use super::removal::DiskRemoval;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct DeviceRemove {
    #[command(flatten)]
    removal: DiskRemoval,
}

impl Verb for DeviceRemove {
    const ABOUT: &'static str = "Unplug a device";
    const WAITS_FOR: &'static str = "waiting for the guest to release the device";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        self.removal.run(context, "device", |id, timeout_ms, force| RemoveDevice { id, timeout_ms, force })
    }
}
