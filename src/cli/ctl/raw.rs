//! `qmp`, `hmp` and `agent`: anything else.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::control::verbs;
use crate::machine;

use super::super::failure::Failure;
use super::super::lazy::Lazy;
use super::super::output::Lines;
use super::super::visible;
use super::Context;
use super::guest::AgentArgs;

/// QEMU's own commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run any QMP command, e.g. '{"execute": "query-block"}' or just query-block
    Qmp(Lazy<Qmp>),
    /// Run a command of QEMU's human monitor
    Hmp(Lazy<Hmp>),
}

impl Command {
    /// Refuses what cannot be a command before any VM is looked for.
    pub(super) fn checked(self) -> Result<Self, Failure> {
        match self {
            Self::Qmp(Lazy(qmp)) => qmp.parsed().map(|_| Self::Qmp(Lazy(qmp))),
            hmp => Ok(hmp),
        }
    }

    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        match self {
            Self::Qmp(Lazy(qmp)) => qmp.run(context),
            Self::Hmp(Lazy(hmp)) => hmp.run(context),
        }
    }
}

/// `qmp`.
#[derive(Debug, Args)]
pub(super) struct Qmp {
    /// The command as JSON, or its bare name
    command: String,
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

    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let command = self.parsed()?;
        let verbs::QmpReply { value } = context.client.call(verbs::Qmp { command })?;
        // what QEMU says is JSON already: with --json on one line
        context.output.print(&value, || {
            Lines::text(&visible::json(&serde_json::to_string_pretty(&value).unwrap_or_default()))
        })
    }
}

/// `hmp`.
#[derive(Debug, Args)]
pub(super) struct Hmp {
    /// The line; several arguments are joined by spaces
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    line: Vec<String>,
}

impl Hmp {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let verbs::HmpReply { text } = context.client.call(verbs::Hmp { line: self.line.join(" ") })?;
        context.output.print(&json!({ "text": text }), || Lines::text(&text.replace("\r\n", "\n")))
    }
}

/// `agent`.
#[derive(Debug, Args)]
pub(super) struct Agent {
    /// The command's name
    command: String,
    /// Its arguments as a JSON object, e.g. '{"path": "/etc"}'
    #[arg(value_name = "JSON", value_parser = object)]
    arguments: Option<Map<String, Value>>,
    #[command(flatten)]
    agent: AgentArgs,
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("arguments are a JSON object".to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

impl Agent {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let agent_timeout_ms = Some(machine::milliseconds(self.agent.agent_timeout));
        let call = verbs::AgentCommand { command: self.command, arguments: self.arguments, agent_timeout_ms };
        let value = context.client.call(call)?.value.unwrap_or_default();
        context.output.print(&value, || {
            Lines::text(&visible::json(&serde_json::to_string_pretty(&value).unwrap_or_default()))
        })
    }
}
