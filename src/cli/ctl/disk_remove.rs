//! `disk-remove`.

use clap::Args;

use crate::control::verbs::RemoveDisk;

use super::super::failure::Failure;
use super::removal::DiskRemoval;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct DiskRemove {
    #[command(flatten)]
    removal: DiskRemoval,
}

impl Verb for DiskRemove {
    const ABOUT: &'static str = "Ask the guest to release a disk, and unplug it";
    const WAITS_FOR: &'static str = "waiting for the guest to release the disk";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        self.removal.run(context, "disk", |id, timeout_ms, force| RemoveDisk { id, timeout_ms, force })
    }
}
