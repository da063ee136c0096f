//! `nic-list`, `nic-add`, `link`, and the group of all that is about network cards.

use clap::{Args, Subcommand, ValueEnum};

use crate::control::{verbs, wire};
use crate::machine;
use crate::spec::NicSpec;

use super::super::failure::Failure;
use super::super::lazy::Lazy;
use super::super::output::{Lines, table};
use super::{Context, devices};

/// About network cards.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the network cards
    NicList,
    /// Plug a network card: user|tap,NAME|bridge,NAME[,mac=A][,model=M][,id=ID]
    NicAdd(Lazy<Add>),
    /// Ask the guest to release a network card, and unplug it
    NicRemove(Lazy<devices::Remove>),
    /// Plug or pull a network card's cable
    Link(Lazy<Link>),
}

impl Command {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        match self {
            Self::NicList => list(context),
            Self::NicAdd(Lazy(add)) => add.run(context),
            Self::NicRemove(Lazy(remove)) => remove.run(context),
            Self::Link(Lazy(link)) => link.run(context),
        }
    }
}

/// `nic-list`.
fn list(context: &mut Context) -> Result<u8, Failure> {
    let verbs::NicList { nics } = context.client.call(verbs::ListNics {})?;
    context.output.print(&nics, || as_table(&nics))
}

/// Network cards as a table.
pub(super) fn as_table(nics: &[wire::Nic]) -> Lines {
    let rows = nics.iter().map(|nic| {
        [
            nic.id.clone(),
            nic.driver.clone(),
            nic.network.clone(),
            nic.mac.clone().unwrap_or_default(),
            link(nic).to_owned(),
            nic.slot.clone().unwrap_or_default(),
            devices::state(&nic.phase, nic.taken),
        ]
    });
    table(["ID", "DRIVER", "NETWORK", "MAC", "LINK", "SLOT", "STATE"], rows)
}

fn link(nic: &wire::Nic) -> &'static str {
    if nic.link_up { "up" } else { "down" }
}

/// `nic-add`.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// user, tap,NAME or bridge,NAME, then [,mac=ADDRESS][,model=virtio|e1000|e1000e|rtl8139|vmxnet3][,id=ID]
    nic: NicSpec,
}

impl Add {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = machine::add_nic(self.nic);
        let wire::NicReply { nic } = context.client.call(call)?;
        devices::warn_if_not_taken(&nic.id, nic.taken);
        context.output.print(&nic, || nic.id.clone())
    }
}

/// What is done with the cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cable {
    /// Plug it
    Up,
    /// Pull it
    Down,
}

/// `link`.
#[derive(Debug, Args)]
pub(super) struct Link {
    /// Plug the cable, or pull it
    cable: Cable,
    /// The card, as nic-list prints it; may be left out where there is only one
    nic: Option<String>,
}

impl Link {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::SetLink { up: self.cable == Cable::Up, nic: self.nic };
        let wire::NicReply { nic } = context.client.call(call)?;
        context.output.print(&nic, || format!("{} is {}", nic.id, link(&nic)))
    }
}
