//! `hmp`.

use clap::Args;
use serde_json::json;

use crate::control::verbs;

use super::super::failure::Failure;
use super::super::output::Lines;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Hmp {
    /// Command line of the human monitor; several arguments are joined by spaces
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    line: Vec<String>,
}

impl Verb for Hmp {
    const ABOUT: &'static str = "Run a command of QEMU's human monitor";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let verbs::HmpReply { text } = context.call(verbs::Hmp { line: self.line.join(" ") })?;
        context.output.print(&json!({ "text": text }), || Lines::text(&text.replace("\r\n", "\n")))
    }
}
