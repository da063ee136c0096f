//! `agent`.

use clap::Args;
use serde_json::{Map, Value};

use crate::control::verbs;
use crate::machine;

use super::super::failure::Failure;
use super::super::output::Lines;
use super::super::visible;
use super::agent_args::AgentArgs;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Agent {
    /// Name of the command
    command: String,
    /// Its arguments as a JSON object, e.g. '{"path": "/etc"}'
    #[arg(value_name = "JSON", value_parser = object)]
    arguments: Option<Map<String, Value>>,
    #[command(flatten)]
    agent: AgentArgs,
}

impl Verb for Agent {
    const ABOUT: &'static str = "Run any command of the guest agent, e.g. guest-get-osinfo";
    const WAITS_FOR: &'static str = "waiting for the guest agent";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let agent_timeout_ms = Some(machine::milliseconds(self.agent.agent_timeout));
        let call = verbs::AgentCommand { command: self.command, arguments: self.arguments, agent_timeout_ms };
        let value = context.call(call)?.value.unwrap_or_default();
        context.output.print(&value, || {
            Lines::text(&visible::json(&serde_json::to_string_pretty(&value).unwrap_or_default()))
        })
    }
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("arguments are a JSON object".to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}
