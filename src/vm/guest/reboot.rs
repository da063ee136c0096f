//! A reboot that is complete when the guest is up again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::qemu::Command;
use crate::qmp::View;
use crate::spec::{Condition, duration};

use super::{AGENT_TIMEOUT, in_words};
use crate::vm::bus::{BusEvent, Subscriber};
use crate::vm::change::Change;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::guest::agent::Presence;
use crate::vm::handle::Handle;
use crate::vm::wait::Wait;

/// How to reboot.
#[derive(Debug, Clone)]
pub struct Reboot {
    /// Reset the machine without asking the guest.
    pub force: bool,
    /// The conditions that show that it is up again; default: its agent's answer, if it has answered before.
    pub until: Option<Condition>,
    /// How long all of it may take.
    pub timeout: Duration,
    /// How long to wait for an agent that does not answer yet; default 10 s.
    pub agent_timeout: Option<Duration>,
}

/// A completed reboot.
#[derive(Debug, Clone, PartialEq)]
pub struct Rebooted {
    /// How long after the request the machine was reset.
    pub reset_after: Duration,
    /// The condition that showed that the guest is up again, and when; `None` if there was none to wait for.
    pub up: Option<(Condition, Duration)>,
}

impl Handle {
    /// Reboots the guest and waits until it is up again.
    ///
    /// # Errors
    /// `NoGuestAgent` and the guest's refusals; `TimedOut`, which says how far it got; `NotRunning`: the VM has ended with it.
    pub async fn reboot(&self, reboot: Reboot) -> Result<Rebooted, ChangeError> {
        let started = Instant::now();
        let deadline = started + reboot.timeout;
        let had_agent = self.agent.presence() != Presence::NeverHeard;
        let events = self.bus.subscribe(None);
        if reboot.force {
            self.change(Change::Reset).await?;
        } else {
            let command = Command::new("guest-shutdown", json!({ "mode": "reboot" }));
            let sent = AtomicBool::new(false);
            let ask = async {
                sent.store(true, Ordering::Relaxed);
                self.agent.tell(&command).await.map_err(in_words)
            };
            // the agent ends with the guest, which may be before its silence is taken as success
            match self.in_guest(reboot.agent_timeout.unwrap_or(AGENT_TIMEOUT), ask).await {
                Err(error) if error.kind == ErrorKind::NoGuestAgent && sent.load(Ordering::Relaxed) => {}
                asked => asked.map_err(|error| match error.kind {
                    ErrorKind::NoGuestAgent => {
                        error.hint("`reboot --force` and `reset` do not ask the guest")
                    }
                    _ => error,
                })?,
            }
        }
        let late = |message: String| ChangeError::new(ErrorKind::TimedOut, message);
        let within = duration::format(reboot.timeout);
        let reset = tokio::select! { biased;
            reset = timeout_at(deadline, next_reset(events, reboot.force)) => reset,
            ended = self.guest_ends() => return Err(ended),
        };
        reset.map_err(|_| {
            late(format!("the guest was asked to reboot and has not done so within {within}"))
        })?;
        let reset_after = started.elapsed();
        let agent = (had_agent || !reboot.force).then_some(Condition::Agent);
        let Some(condition) = reboot.until.or(agent) else { return Ok(Rebooted { reset_after, up: None }) };
        let timeout = Some(deadline.saturating_duration_since(Instant::now()));
        let wait = Wait { conditions: vec![condition.clone()], all: false, timeout, from_now: true };
        match self.wait(wait).await {
            Ok(_) => Ok(Rebooted { reset_after, up: Some((condition, started.elapsed())) }),
            Err(error) if error.kind == ErrorKind::TimedOut => {
                let after = duration::format(Duration::from_secs(reset_after.as_secs()));
                Err(late(format!(
                    "the machine was reset after {after}, and '{condition}' was not met within {within}"
                )))
            }
            Err(error) => Err(error),
        }
    }
}

/// Waits for the next reset, by the guest or by vmrun.
async fn next_reset(mut events: Subscriber, by_host: bool) {
    loop {
        match events.next().await {
            // QEMU may have reported resets by others before
            Some(BusEvent::Record(record)) if record.view == View::Reset { guest: !by_host } => return,
            Some(_) => {}
            // the VM has ended, which is detected elsewhere
            None => std::future::pending().await,
        }
    }
}
