//! `port-add`.

use clap::Args;

use crate::control::verbs;
use crate::machine;
use crate::spec::Forward;

use super::super::failure::Failure;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct PortAdd {
    /// [ADDR:]HOST:GUEST[/tcp|udp]
    forward: Forward,
    /// Id of the network card that it leads to, as printed by nic-list [default: the first card with user networking]
    #[arg(long, value_name = "ID")]
    nic: Option<String>,
}

impl Verb for PortAdd {
    const ABOUT: &'static str =
        "Add a port forward: [ADDR:]HOST:GUEST[/tcp|udp]; host port 0 takes any free one";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::AddForward { nic: self.nic, ..machine::add_forward(&self.forward) };
        let verbs::ForwardReply { forward } = context.call(call)?;
        // only the port, for scripts: port=$(vmrun ctl port-add 0:80)
        context.output.print(&forward, || forward.host_port.to_string())
    }
}
