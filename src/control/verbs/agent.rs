//! `agent`.

use serde_json::{Map, Value};

use crate::control::error::WireError;
use crate::control::parameters::agent_timeout;
use crate::control::permits::Use;
use crate::control::wire;
use crate::vm::Handle;

use super::method::{CallMethod, Uploads, method};

method! {
    /// Runs any command of the guest agent.
    AgentCommand { command: String; arguments: Map<String, Value>, agent_timeout_ms: i64 } -> AgentCommandReply
}

wire::replies! {
    /// Reply of `AgentCommand`.
    AgentCommandReply { ; value: Value }
}

impl CallMethod for AgentCommand {
    const NEEDS: Use = Use::Wait;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<AgentCommandReply, WireError> {
        let timeout = agent_timeout(self.agent_timeout_ms)?;
        let value = vm.agent_command(&self.command, self.arguments.unwrap_or_default(), timeout).await?;
        Ok(AgentCommandReply { value: (!value.is_null()).then_some(value) })
    }
}
