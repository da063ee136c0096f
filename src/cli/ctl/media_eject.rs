//! `media-eject`.

use clap::Args;

use crate::control::{verbs, wire};

use super::super::failure::Failure;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct MediaEject {
    /// Drive id, as printed by disk-list
    id: String,
    /// Eject even if the guest has locked the drive
    #[arg(long)]
    force: bool,
}

impl Verb for MediaEject {
    const ABOUT: &'static str = "Remove the medium from a CD-ROM drive";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::EjectMedia { id: self.id, force: self.force.then_some(true) };
        let wire::DiskReply { disk } = context.call(call)?;
        context.output.print(&disk, || format!("{} is empty now", disk.id))
    }
}
