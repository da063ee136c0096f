//! Any command of the guest agent.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{AGENT_TIMEOUT, in_words};
use crate::qemu::Command;
use crate::vm::error::ChangeError;
use crate::vm::handle::Handle;

/// Matches answers to commands, and is reserved for the connection.
const OWN: [&str; 2] = ["guest-sync", "guest-sync-delimited"];

/// The agent runs these even while the guest's file systems are frozen.
const WHILE_FROZEN: [&str; 4] = ["guest-ping", "guest-info", "guest-fsfreeze-status", "guest-fsfreeze-thaw"];

/// These have no answer on success.
fn is_unanswered(command: &str) -> bool {
    command == "guest-shutdown" || command.starts_with("guest-suspend-")
}

impl Handle {
    /// Runs a command of the guest agent and returns its answer; null for a command that has no answer on success.
    ///
    /// # Errors
    /// `NoGuestAgent`; `RefusedByGuest` with the agent's error; `NotSupported`: it does not have or not allow the command.
    pub async fn agent_command(
        &self,
        command: &str,
        arguments: Map<String, Value>,
        agent_timeout: Option<Duration>,
    ) -> Result<Value, ChangeError> {
        if OWN.contains(&command) {
            return Err(ChangeError::invalid(
                "command",
                format!("vmrun itself keeps in step with the agent by {command}"),
            ));
        }
        let command = Command { execute: command.to_owned(), arguments };
        let agent_timeout = agent_timeout.unwrap_or(AGENT_TIMEOUT);
        if WHILE_FROZEN.contains(&command.execute.as_str()) {
            return self.with_agent(agent_timeout, self.run_while_frozen(&command)).await;
        }
        self.in_guest(agent_timeout, async {
            let answer = match is_unanswered(&command.execute) {
                true => self.agent.tell(&command).await.map(|()| Value::Null),
                false => self.agent.run(&command).await,
            };
            answer.map_err(in_words)
        })
        .await
    }
}
