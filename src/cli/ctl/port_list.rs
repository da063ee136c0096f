//! `port-list`.

use clap::Args;

use crate::control::{verbs, wire};

use super::super::failure::Failure;
use super::super::output::table;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct PortList {}

impl Verb for PortList {
    const ABOUT: &'static str = "List the port forwards";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let verbs::ForwardList { forwards } = context.call(verbs::ListForwards {})?;
        context.output.print(&forwards, || {
            let rows = forwards.iter().map(|forward| {
                [
                    text(forward),
                    forward.address.clone(),
                    forward.host_port.to_string(),
                    forward.guest_port.to_string(),
                    forward.protocol.clone(),
                    forward.nic.clone().unwrap_or_default(),
                ]
            });
            table(["FORWARD", "ADDRESS", "HOST", "GUEST", "PROTOCOL", "NIC"], rows)
        })
    }
}

/// A forward in the form that `port-remove` takes.
fn text(forward: &wire::Forward) -> String {
    format!("{}:{}:{}/{}", forward.address, forward.host_port, forward.guest_port, forward.protocol)
}
