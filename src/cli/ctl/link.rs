//! `link`.

use clap::{Args, ValueEnum};

use crate::control::{verbs, wire};

use super::super::failure::Failure;
use super::verb::{Context, Verb};

/// The state of the cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cable {
    /// Plug the cable
    Up,
    /// Pull the cable
    Down,
}

#[derive(Debug, Args)]
pub(super) struct Link {
    /// Plug or pull the cable
    cable: Cable,
    /// Card id, as printed by nic-list; optional if there is only one card
    nic: Option<String>,
}

impl Verb for Link {
    const ABOUT: &'static str = "Plug or pull a network card's cable";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::SetLink { up: self.cable == Cable::Up, nic: self.nic };
        let wire::NicReply { nic } = context.call(call)?;
        context.output.print(&nic, || format!("{} is {}", nic.id, up_or_down(&nic)))
    }
}

/// The state of a card's cable in words.
pub(super) fn up_or_down(nic: &wire::Nic) -> &'static str {
    if nic.link_up { "up" } else { "down" }
}
