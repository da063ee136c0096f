//! Freezes the guest's file systems, so that their disks can be copied in a consistent state.
//!
//! In a guest whose file systems are frozen, every writer blocks. So each freeze has a deadline, and ends by itself. Only the agent
//! knows the state for certain (`guest-fsfreeze-status`); it refuses most commands until it has thawed them.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use super::agent::{Freeze, Turn};
use super::{AGENT_TIMEOUT, in_words};
use crate::host::log_context;
use crate::qemu::Command;
use crate::qmp::AgentError;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::handle::Handle;

/// Interval of retries of a thaw that is due: the guest may be paused, or a hook of the agent fails.
const THAW_RETRY: Duration = Duration::from_secs(1);

pub(super) fn thaw() -> Command {
    Command::new("guest-fsfreeze-thaw", Value::Null)
}

impl Handle {
    /// Freezes all of the guest's file systems that are on disks; returns how many. They are thawed after `thaw_after` at the
    /// latest, and at once if this future is dropped.
    ///
    /// # Errors
    /// `NotNow`: they are frozen; `NotSupported`: the agent cannot; `RefusedByGuest`; `NoGuestAgent`.
    pub async fn freeze_filesystems(
        &self,
        thaw_after: Duration,
        agent_timeout: Option<Duration>,
    ) -> Result<u64, ChangeError> {
        self.in_guest(agent_timeout.unwrap_or(AGENT_TIMEOUT), async {
            let vm = self.clone();
            let (tell, told) = oneshot::channel();
            // continues when the client hangs up: frozen file systems must be thawed
            log_context::spawn(async move { vm.freeze_until_thawed(thaw_after, tell).await });
            told.await.unwrap_or_else(|_| Err(ChangeError::not_running()))
        })
        .await
    }

    async fn freeze_until_thawed(
        &self,
        thaw_after: Duration,
        mut tell: oneshot::Sender<Result<u64, ChangeError>>,
    ) {
        let turn: Turn = tokio::select! { biased;
            () = tell.closed() => return,
            turn = self.agent.turn() => turn,
        };
        let asked = turn.run(&Command::new("guest-fsfreeze-freeze", Value::Null)).await;
        let answer = match asked {
            // the agent has frozen nothing
            Ok(count) if count.as_u64() == Some(0) => {
                drop(tell.send(Ok(0)));
                return;
            }
            Ok(count) => Ok(count.as_u64().unwrap_or_default()),
            Err(error @ AgentError::Refused { .. }) => {
                drop(tell.send(Err(in_words(error))));
                return;
            }
            // it may freeze them later
            Err(error) => Err(in_words(error)),
        };
        let failed = answer.is_err();
        let until = Instant::now() + thaw_after;
        self.agent.set_freeze(Freeze::Until(until));
        // a client that has gone will not thaw them
        let unwanted = tell.send(answer).is_err();
        let (until, then) = match failed || unwanted {
            true => (Instant::now(), Freeze::No),
            false => (until, Freeze::Expired(thaw_after)),
        };
        self.thaw_in_time(until, then).await;
    }

    /// Thaws the file systems at their deadline, unless they are thawed before.
    async fn thaw_in_time(&self, until: Instant, then: Freeze) {
        let mut said = false;
        while let Freeze::Until(_) = self.agent.freeze() {
            let due = async {
                sleep_until(until).await;
                self.agent.answers().await;
            };
            tokio::select! { biased;
                _ = self.ended() => return,
                () = self.agent.freeze_changes() => continue,
                () = due => {}
            }
            // not while a client thaws them
            let Some(turn) = self.agent.turn_if_frozen().await else { return };
            match self.agent.thaw_in(turn, then).await {
                Ok(_) => {
                    return log::warn!("the guest's file systems were thawed, since no client has done it");
                }
                Err(error) if !said => {
                    said = true;
                    log::warn!("the guest's file systems cannot be thawed: {error}; trying again and again");
                }
                Err(_) => {}
            }
            tokio::select! { biased;
                _ = self.ended() => return,
                () = sleep(THAW_RETRY) => {}
            }
        }
    }

    /// Thaws the guest's file systems; returns how many were frozen.
    ///
    /// # Errors
    /// `NotNow`: they were thawed because the time given to the freeze was over; `RefusedByGuest`; `NoGuestAgent`.
    pub async fn thaw_filesystems(&self, agent_timeout: Option<Duration>) -> Result<u64, ChangeError> {
        self.with_agent(agent_timeout.unwrap_or(AGENT_TIMEOUT), async {
            if let Freeze::Expired(time) = self.agent.freeze() {
                // reported once
                self.agent.set_freeze(Freeze::No);
                let time = crate::spec::duration::format(time);
                let kind = ErrorKind::NotNow { state: "thawed".to_owned() };
                let message = format!("the guest's file systems are not frozen any more: the {time} were over");
                return Err(ChangeError::new(kind, message)
                    .hint("what was copied of its disks since then may not be consistent; `freeze-fs --for` gives more time"));
            }
            let count = self.agent.thaw(Freeze::No).await.map_err(in_words)?;
            Ok(count.as_u64().unwrap_or_default())
        })
        .await
    }

    /// Runs a command that the agent accepts at any time.
    pub(super) async fn run_while_frozen(&self, command: &Command) -> Result<Value, ChangeError> {
        let answer = match *command == thaw() {
            true => self.agent.thaw(Freeze::No).await,
            false => self.agent.turn_while_frozen().await.run(command).await,
        };
        answer.map_err(in_words)
    }

    /// Refuses work in a guest whose file systems are frozen: the agent would refuse it, or it would block.
    pub(super) fn refuse_frozen(&self) -> Result<(), ChangeError> {
        match self.agent.freeze() {
            Freeze::Until(until) => {
                let left = until.saturating_duration_since(Instant::now()).as_secs() + 1;
                Err(frozen(format!("the guest's file systems are frozen, for {left} s more at most")))
            }
            Freeze::No | Freeze::Expired(_) | Freeze::Unknown => Ok(()),
        }
    }
}

/// They are frozen.
pub(super) fn frozen(message: impl Into<String>) -> ChangeError {
    let kind = ErrorKind::NotNow { state: "frozen".to_owned() };
    ChangeError::new(kind, message).hint("`vmrun ctl thaw-fs` thaws them")
}
