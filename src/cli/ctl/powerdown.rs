//! `powerdown`.

use clap::Args;
use serde_json::json;

use crate::control::verbs;

use super::super::failure::Failure;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Powerdown {}

impl Verb for Powerdown {
    const ABOUT: &'static str = "Press the power button once";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        context.call(verbs::Powerdown {})?;
        context.output.print(&json!({}), || "the power button was pressed".to_owned())
    }
}
