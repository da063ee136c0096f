//! `qmp`.

use clap::Args;
use serde_json::{Value, json};

use crate::control::verbs;

use super::super::failure::Failure;
use super::super::output::{Lines, Output};
use super::super::visible;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Qmp {
    /// Command as JSON, or only its name
    command: String,
}

impl Verb for Qmp {
    const ABOUT: &'static str =
        r#"Run any QMP command, e.g. '{"execute": "query-block"}' or just query-block"#;

    fn without_vm(&self, _: Output) -> Option<Result<u8, Failure>> {
        self.parsed().err().map(Err)
    }

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let command = self.parsed()?;
        let verbs::QmpReply { value } = context.call(verbs::Qmp { command })?;
        // QEMU's reply is JSON already: with --json on one line
        context.output.print(&value, || {
            Lines::text(&visible::json(&serde_json::to_string_pretty(&value).unwrap_or_default()))
        })
    }
}

impl Qmp {
    fn parsed(&self) -> Result<Value, Failure> {
        let text = self.command.trim();
        let bare = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
        if bare {
            return Ok(json!({ "execute": text }));
        }
        let hint = || Some("for example '{\"execute\": \"query-block\"}', or just query-block".to_owned());
        let value: Value = serde_json::from_str(text)
            .map_err(|error| Failure::usage(format!("the QMP command is not JSON: {error}")).hint(hint()))?;
        match value.get("execute") {
            Some(Value::String(_)) => Ok(value),
            _ => Err(Failure::usage("a QMP command is an object with a string 'execute'").hint(hint())),
        }
    }
}
