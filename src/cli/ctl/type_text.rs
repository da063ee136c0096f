//! `type`.

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
pub(super) struct Type {
    /// Text of characters on a US keyboard; a newline presses Enter
    #[arg(allow_hyphen_values = true)]
    text: String,
    /// Time between two keys
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "50ms")]
    delay: Duration,
}

impl Verb for Type {
    const ABOUT: &'static str = "Type a text on a US keyboard";
    const WAITS_FOR: &'static str = "typing";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        KeyCombo::typing(&self.text).map_err(Failure::usage)?;
        let call = verbs::TypeText { text: self.text, delay_ms: Some(machine::milliseconds(self.delay)) };
        context.call(call)?;
        context.output.print(&json!({}), String::new)
    }
}
