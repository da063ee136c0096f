//! `send-key`.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::control::verbs;
use crate::machine;
use crate::spec::duration;
use crate::spec::keys::KeyCombo;

use super::super::failure::Failure;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct SendKey {
    /// Keys to press one after the other; keys joined by hyphens are pressed together: ctrl-alt-delete
    #[arg(required = true)]
    keys: Vec<KeyCombo>,
    /// Time between two of them
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "100ms")]
    delay: Duration,
}

impl Verb for SendKey {
    const ABOUT: &'static str = "Press keys";
    const WAITS_FOR: &'static str = "pressing the keys";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let keys = self.keys.iter().map(KeyCombo::to_string).collect();
        let call = verbs::SendKeys { keys, delay_ms: Some(machine::milliseconds(self.delay)) };
        context.call(call)?;
        context.output.print(&json!({}), String::new)
    }
}
