//! `nic-list`.

use clap::Args;

use crate::control::{verbs, wire};

use super::super::failure::Failure;
use super::super::output::{Lines, table};
use super::device_state::shown as state;
use super::link::up_or_down;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct NicList {}

impl Verb for NicList {
    const ABOUT: &'static str = "List the network cards";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let verbs::NicList { nics } = context.call(verbs::ListNics {})?;
        context.output.print(&nics, || as_table(&nics))
    }
}

/// Network cards as a table.
pub(super) fn as_table(nics: &[wire::Nic]) -> Lines {
    let rows = nics.iter().map(|nic| {
        [
            nic.id.clone(),
            nic.driver.clone(),
            nic.network.clone(),
            nic.net.clone().unwrap_or_default(),
            nic.mac.clone().unwrap_or_default(),
            up_or_down(nic).to_owned(),
            nic.slot.clone().unwrap_or_default(),
            state(&nic.phase, nic.taken),
        ]
    });
    table(["ID", "DRIVER", "NETWORK", "NET", "MAC", "LINK", "SLOT", "STATE"], rows)
}
