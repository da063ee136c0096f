//! `port-remove`.

use std::str::FromStr;

use clap::Args;

use crate::control::verbs;
use crate::spec::Forward;
use crate::spec::forward::ForwardError;

use super::super::failure::Failure;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct PortRemove {
    /// Forward, as printed by port-list; a host port alone is enough if only one forward has it
    forward: Pattern,
}

impl Verb for PortRemove {
    const ABOUT: &'static str = "Remove a port forward";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let Pattern { typed, call } = self.forward;
        context.call(call)?;
        context.output.print(&serde_json::json!({}), || format!("removed {typed}"))
    }
}

/// Which forward to end: a part that is not given matches everything, as long as one forward matches.
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
