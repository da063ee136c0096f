//! `resume`.

use clap::Args;
use serde_json::json;

use crate::control::verbs;

use super::super::failure::Failure;
use super::set_time::SyncArgs;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Resume {
    #[command(flatten)]
    clock: SyncArgs,
}

impl Verb for Resume {
    const ABOUT: &'static str = "Resume the guest's processors";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        context.call(verbs::Resume {})?;
        let (clock, words) = self.clock.sync(context);
        context.output.print(&json!({ "clock": clock }), || format!("running{words}"))
    }
}
