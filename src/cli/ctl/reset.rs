//! `reset`.

use clap::Args;
use serde_json::json;

use crate::control::verbs;

use super::super::failure::Failure;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Reset {}

impl Verb for Reset {
    const ABOUT: &'static str = "Reset the machine without asking the guest";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        context.call(verbs::Reset {})?;
        context.output.print(&json!({}), || "reset".to_owned())
    }
}
