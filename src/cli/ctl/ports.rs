//! `port-list`, `port-add`, `port-remove`.

use std::str::FromStr;

use clap::{Args, Subcommand};

use crate::control::{verbs, wire};
use crate::machine;
use crate::spec::Forward;
use crate::spec::forward::ForwardError;

use super::super::failure::Failure;
use super::super::lazy::Lazy;
use super::super::output::table;
use super::Context;

/// About port forwards.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the port forwards
    #[command(name = "port-list")]
    List,
    /// Make a port forward: [ADDR:]HOST:GUEST[/tcp|udp]; host port 0 takes any free one
    #[command(name = "port-add")]
    Add(Lazy<Add>),
    /// End a port forward
    #[command(name = "port-remove")]
    Remove(Lazy<Remove>),
}

impl Command {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        match self {
            Self::List => list(context),
            Self::Add(Lazy(add)) => add.run(context),
            Self::Remove(Lazy(remove)) => remove.run(context),
        }
    }
}

/// `port-list`.
fn list(context: &mut Context) -> Result<u8, Failure> {
    let verbs::ForwardList { forwards } = context.client.call(verbs::ListForwards {})?;
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

/// What `port-remove` takes.
fn text(forward: &wire::Forward) -> String {
    format!("{}:{}:{}/{}", forward.address, forward.host_port, forward.guest_port, forward.protocol)
}

/// `port-add`.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// [ADDR:]HOST:GUEST[/tcp|udp]
    forward: Forward,
    /// The network card that it leads to, as nic-list prints it; the first with user networking unless given
    #[arg(long, value_name = "ID")]
    nic: Option<String>,
}

impl Add {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::AddForward { nic: self.nic, ..machine::add_forward(&self.forward) };
        let verbs::ForwardReply { forward } = context.client.call(call)?;
        // the port alone, for scripts: port=$(vmrun ctl port-add 0:80)
        context.output.print(&forward, || forward.host_port.to_string())
    }
}

/// Which forward to end: what was not typed is not a condition, as long as it is clear what is meant.
#[derive(Debug, Clone)]
struct Pattern {
    typed: String,
    call: verbs::RemoveForward,
}

impl FromStr for Pattern {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let host_port_alone = |host: u16| verbs::RemoveForward {
            host_port: host.into(),
            guest_port: None,
            address: None,
            protocol: None,
        };
        let call = match text.parse() {
            Ok(host) => host_port_alone(host),
            Err(_) => {
                let forward: Forward = text.parse()?;
                let typed_address = text.split('/').next().is_some_and(|part| part.split(':').count() == 3);
                verbs::RemoveForward {
                    guest_port: Some(forward.guest.into()),
                    address: typed_address.then(|| forward.address.to_string()),
                    protocol: text.contains('/').then(|| forward.protocol.to_string()),
                    ..host_port_alone(forward.host)
                }
            }
        };
        Ok(Self { typed: text.to_owned(), call })
    }
}

/// `port-remove`.
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// As port-list prints it; a host port alone is enough if only one forward has it
    forward: Pattern,
}

impl Remove {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let Pattern { typed, call } = self.forward;
        context.client.call(call)?;
        context.output.print(&serde_json::json!({}), || format!("removed {typed}"))
    }
}
