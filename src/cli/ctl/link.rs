//! `link`.

use clap::{Args, ValueEnum};

use crate::control::{verbs, wire};

use super::super::failure::Failure;
use super::verb::{Context, Verb};

/// What is done with the cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cable {
    /// Plug it
    Up,
    /// Pull it
    Down,
}

#[derive(Debug, Args)]
pub(super) struct Link {
    /// Plug the cable, or pull it
    cable: Cable,
    /// The card, as nic-list prints it; may be left out where there is only one
    nic: Option<String>,
}

impl Verb for Link {
    const ABOUT: &'static str = "Plug or pull a network card's cable";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::SetLink { up: self.cable == Cable::Up, nic: self.nic };
        let wire::NicReply { nic } = context.client.call(call)?;
        context.output.print(&nic, || format!("{} is {}", nic.id, up_or_down(&nic)))
    }
}

/// How a card's cable is.
pub(super) fn up_or_down(nic: &wire::Nic) -> &'static str {
    if nic.link_up { "up" } else { "down" }
}
