//! The guest agent as the owner sees it: alive or not, and asked to shut down.
//!
//! No polling: QEMU tells by VSERPORT_CHANGE when the guest opens the agent's port; only then is it asked whether it answers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, watch};

use crate::qemu::Command;
use crate::qmp::{Agent, AgentError};

use super::error::ChangeError;

/// How long an agent that has opened its port may take to answer its first call.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// How long an error may take to come; there is no answer when it works.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// The way to the guest agent, shared by all that use it; one command at a time.
#[derive(Clone)]
pub(super) struct AgentLink {
    agent: Arc<Mutex<Agent>>,
    alive: watch::Sender<bool>,
    /// There is no way at all.
    absent: bool,
}

impl AgentLink {
    pub(super) fn new(agent: Agent) -> Self {
        Self { agent: Arc::new(Mutex::new(agent)), alive: watch::Sender::new(false), absent: false }
    }

    /// None: the VM was put together by somebody else, without a channel for vmrun.
    pub(super) fn absent() -> std::io::Result<Self> {
        let (agent, _) = UnixStream::pair()?;
        Ok(Self { absent: true, ..Self::new(Agent::new(agent)) })
    }

    /// Whether there is a way to an agent, should there be one.
    pub(super) fn check(&self) -> Result<(), ChangeError> {
        match self.absent {
            false => Ok(()),
            true => Err(ChangeError::unsupported(
                "this VM was not started by `vmrun qemu`, so there is no channel to an agent in its guest",
            )),
        }
    }

    /// It has answered, and its port has not been closed since.
    pub(super) fn is_alive(&self) -> bool {
        *self.alive.borrow()
    }

    /// To wait for it to be alive.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.alive.subscribe()
    }

    /// The guest has opened the port: find out whether an agent answers.
    pub(super) async fn opened(&self) -> Result<(), AgentError> {
        let result = self.agent.lock().await.sync(FIRST_ANSWER).await;
        self.alive.send_replace(result.is_ok());
        result
    }

    /// The guest has closed the port.
    pub(super) fn closed(&self) {
        self.alive.send_replace(false);
    }

    /// Runs a command and returns its answer.
    pub(super) async fn run(&self, command: &Command) -> Result<Value, AgentError> {
        self.agent.lock().await.run(command).await
    }

    /// Asks the guest to switch itself off; there is no answer when that works.
    pub(super) async fn shut_down(&self) -> Result<(), AgentError> {
        let shutdown = Command::new("guest-shutdown", json!({ "mode": "powerdown" }));
        self.agent.lock().await.tell(&shutdown, SHUTDOWN_GRACE).await
    }
}
