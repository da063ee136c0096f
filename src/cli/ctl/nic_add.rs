//! `nic-add`.

use clap::Args;

use crate::control::wire;
use crate::machine;
use crate::spec::NicSpec;

use super::super::failure::Failure;
use super::device_state::warn_if_not_taken;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct NicAdd {
    /// user[,net=10.0.3.0/24][,dns=ADDRESS][,hostname=NAME][,restrict=on], tap,NAME or bridge,NAME, then
    /// [,mac=ADDRESS][,model=virtio|e1000|e1000e|rtl8139|vmxnet3][,id=ID]
    nic: NicSpec,
}

impl Verb for NicAdd {
    const ABOUT: &'static str =
        "Plug a network card: user[,net=N]|tap,NAME|bridge,NAME[,mac=A][,model=M][,id=ID]";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = machine::add_nic(self.nic);
        let wire::NicReply { nic } = context.call(call)?;
        warn_if_not_taken(&nic.id, nic.taken);
        context.output.print(&nic, || nic.id.clone())
    }
}
