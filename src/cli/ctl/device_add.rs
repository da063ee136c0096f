//! `device-add`.

use clap::Args;

use crate::control::verbs;
use crate::machine;
use crate::spec::DeviceSpec;

use super::super::failure::Failure;
use super::device_state::warn_if_not_taken;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct DeviceAdd {
    /// DRIVER[,PROP=VALUE...] as for QEMU's -device; write a comma in a value twice
    device: DeviceSpec,
}

impl Verb for DeviceAdd {
    const ABOUT: &'static str = "Plug any device: DRIVER[,PROP=VALUE...]";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = machine::add_device(self.device);
        let verbs::DeviceReply { device } = context.call(call)?;
        warn_if_not_taken(&device.id, device.taken);
        context.output.print(&device, || device.id.clone())
    }
}
