//! `port-list`, `port-add`, `port-remove`.

use clap::Args;

use crate::control::wire;
use crate::spec::Forward;

use super::super::failure::Failure;
use super::super::output::table;
use super::Context;

/// `port-list`.
pub(super) fn list(context: &mut Context) -> Result<u8, Failure> {
    let wire::ForwardList { forwards } = context.client.call("ListForwards", wire::Empty {})?;
    context.output.print(&forwards, || {
        let rows = forwards.iter().map(|forward| {
            [
                text(forward),
                forward.address.clone(),
                forward.host_port.to_string(),
                forward.guest_port.to_string(),
                forward.protocol.clone(),
            ]
        });
        table(["FORWARD", "ADDRESS", "HOST", "GUEST", "PROTOCOL"], rows)
    })
}

/// What `port-remove` takes.
fn text(forward: &wire::Forward) -> String {
    format!("{}:{}:{}/{}", forward.address, forward.host_port, forward.guest_port, forward.protocol)
}

/// `port-add`.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// [ADDR:]HOST:GUEST[/tcp|udp]
    forward: Forward,
}

impl Add {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let forward = self.forward;
        let call = wire::AddForward {
            host_port: forward.host.into(),
            guest_port: forward.guest.into(),
            address: Some(forward.address.to_string()),
            protocol: Some(forward.protocol.to_string()),
        };
        let wire::ForwardReply { forward } = context.client.call("AddForward", call)?;
        // the port alone, for scripts: port=$(vmrun ctl port-add 0:80)
        context.output.print(&forward, || forward.host_port.to_string())
    }
}

/// `port-remove`.
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// As port-list prints it; a host port alone is enough if only one forward has it
    forward: String,
}

impl Remove {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = match self.forward.parse::<u16>() {
            Ok(host) => wire::RemoveForward {
                host_port: host.into(),
                guest_port: None,
                address: None,
                protocol: None,
            },
            Err(_) => {
                let forward: Forward = self.forward.parse().map_err(Failure::usage)?;
                // an address or protocol that was not typed is not a condition, as long as it is clear what is meant
                let typed_address =
                    self.forward.split('/').next().is_some_and(|part| part.split(':').count() == 3);
                wire::RemoveForward {
                    host_port: forward.host.into(),
                    guest_port: Some(forward.guest.into()),
                    address: typed_address.then(|| forward.address.to_string()),
                    protocol: self.forward.contains('/').then(|| forward.protocol.to_string()),
                }
            }
        };
        let _: wire::Empty = context.client.call("RemoveForward", call)?;
        context.output.print(&serde_json::json!({}), || format!("removed {}", self.forward))
    }
}
