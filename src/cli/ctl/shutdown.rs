//! `shutdown`.

use std::time::Duration;

use clap::Args;

use crate::control::verbs;
use crate::machine;
use crate::spec::duration;

use super::super::failure::Failure;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Shutdown {
    /// How long to ask the guest before QEMU quits
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "30s")]
    timeout: Duration,
    /// Do not ask the guest
    #[arg(long)]
    force: bool,
    /// Press the power button only once
    #[arg(long)]
    no_repeat: bool,
}

impl Verb for Shutdown {
    const ABOUT: &'static str = "Shut the VM down and wait until it is off: ask, ask again, quit, kill";
    const AFTER_THE_END: bool = true;

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let call = verbs::Shutdown {
            timeout_ms: Some(machine::milliseconds(self.timeout)),
            force: Some(self.force),
            no_repeat: Some(self.no_repeat),
        };
        let verbs::OutcomeReply { outcome } = context.client.call(call)?;
        context.output.print(&outcome, || outcome.message.clone())?;
        Ok(outcome.exit_code)
    }
}
