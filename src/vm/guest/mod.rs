//! What is done inside the guest, through its agent: running commands, copying files.
//!
//! None of it needs the owner: nothing here changes the VM. All of it ends with the VM, a panic, or the agent.

pub mod exec;
pub mod files;

use std::time::Duration;

use serde_json::Value;

use crate::qemu::Command;
use crate::qmp::AgentError;

use super::error::{ChangeError, ErrorKind, Why};
use super::handle::Handle;
use super::state::RunState;

/// What to do where the agent does not offer a command.
const HINT_BLOCKED: &str = "the agent's settings in the guest decide what it allows (on Red Hat's systems /etc/sysconfig/qemu-ga: \
     BLOCK_RPCS, FILTER_RPC_ARGS)";

impl Handle {
    /// Runs work inside the guest: not begun without an agent, and ended at once when the VM ends, panics, or its agent goes.
    pub(super) async fn in_guest<T>(
        &self,
        work: impl Future<Output = Result<T, ChangeError>>,
    ) -> Result<T, ChangeError> {
        self.guest_can_answer()?;
        let mut alive = self.agent.watch();
        tokio::select! { biased;
            result = work => result,
            _ = self.ended() => Err(ChangeError::not_running()),
            true = self.panicked() => {
                Err(ChangeError::new(ErrorKind::GuestPanicked, "the guest's kernel panicked"))
            }
            _ = alive.wait_for(|alive| !alive) => Err(no_agent("the guest agent has ended")),
        }
    }

    /// Nobody waits for a guest that cannot answer.
    fn guest_can_answer(&self) -> Result<(), ChangeError> {
        let state = self.pulse.borrow().run_state;
        if matches!(state, RunState::Off) || self.pulse.has_changed().is_err() {
            return Err(ChangeError::not_running());
        }
        if !matches!(state, RunState::Running | RunState::Starting) {
            let kind = ErrorKind::NotNow { state: state.to_string() };
            let message = format!("the guest does not run (it is {state}), so its agent cannot answer");
            return Err(ChangeError::new(kind, message).hint("`resume` first"));
        }
        self.agent.check()?;
        match self.agent.is_alive() {
            true => Ok(()),
            false => Err(no_agent("no guest agent answers")),
        }
    }

    /// One command of the agent.
    pub(super) async fn ask_agent(&self, execute: &str, arguments: Value) -> Result<Value, ChangeError> {
        self.agent.run(&Command::new(execute, arguments)).await.map_err(in_words)
    }
}

fn no_agent(message: &str) -> ChangeError {
    ChangeError::new(ErrorKind::NoGuestAgent, message).hint(
        "install and start qemu-guest-agent in the guest; `vmrun ctl wait agent` waits for one that is about to start",
    )
}

fn in_words(error: AgentError) -> ChangeError {
    let message = error.told();
    match error {
        AgentError::Refused { class, desc, command } => {
            let blocked = class == "CommandNotFound"
                || desc.contains("has been disabled")
                || desc.contains("not allowed");
            match blocked {
                true => ChangeError::unsupported(message).hint(HINT_BLOCKED),
                false => ChangeError::new(ErrorKind::RefusedByGuest { id: command }, message),
            }
        }
        AgentError::Timeout { .. } => ChangeError::new(ErrorKind::TimedOut, message),
        AgentError::Disconnected => ChangeError::not_running(),
        _ => ChangeError::new(ErrorKind::RefusedByGuest { id: "agent".to_owned() }, message),
    }
}

/// How long between two looks at something in the guest that sends no event: short at first, so that a quick command is
/// quick, and longer later, so that a slow one is not slowed by the looking.
struct Looks(Duration);

impl Looks {
    const FIRST: Duration = Duration::from_millis(5);
    const LAST: Duration = Duration::from_millis(100);

    fn new() -> Self {
        Self(Self::FIRST)
    }

    async fn pause(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 3 / 2).min(Self::LAST);
    }
}
