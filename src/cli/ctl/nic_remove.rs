//! `nic-remove`.

use clap::Args;
use serde_json::json;

use crate::control::verbs;

use super::super::failure::Failure;
use super::removal::Removal;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct NicRemove {
    #[command(flatten)]
    removal: Removal,
}

impl Verb for NicRemove {
    const ABOUT: &'static str = "Ask the guest to release a network card, and unplug it";
    const WAITS_FOR: &'static str = "waiting for the guest to release the card";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::RemoveNic { id: self.removal.id(), timeout_ms: self.removal.timeout_ms() };
        let verbs::Removed { removed } = context.call(call)?;
        self.removal.done(context, "network card", removed, &json!({ "removed": true }))
    }
}
