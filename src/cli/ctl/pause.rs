//! `pause`.

use clap::Args;
use serde_json::json;

use crate::control::verbs;

use super::super::failure::Failure;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Pause {}

impl Verb for Pause {
    const ABOUT: &'static str = "Stop the guest's processors";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        context.call(verbs::Pause {})?;
        context.output.print(&json!({}), || "paused".to_owned())
    }
}
