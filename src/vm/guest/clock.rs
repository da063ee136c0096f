//! The guest's clock. It stops while the VM is paused or saved, and between a snapshot and its loading; it is set through the
//! agent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use qapi::qga::{guest_get_time, guest_set_time};

use super::exec::Exec;
use super::no_agent;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::guest::agent::Presence;
use crate::vm::handle::Handle;

/// A smaller difference counts as right: a call of the agent takes some time.
const TOLERANCE_MS: i64 = 1000;
/// How long to wait for an agent that answered before the last loss, for example before a snapshot was loaded.
const SAME_AGENT: Duration = Duration::from_secs(5);

/// How long the guest may take to run `date`.
const DATE_TIMEOUT: Duration = Duration::from_secs(5);

/// The state of a guest's clock, and what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestClock {
    /// How far it was behind the host's clock, in milliseconds; negative if it was ahead.
    pub behind_ms: i64,
    /// It was set.
    pub set: bool,
}

/// What this host's clock shows.
pub(super) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Handle {
    /// Sets the guest's clock to the host's, unless it is right. Without an `agent_timeout`, this does not wait for an agent that
    /// has never answered.
    ///
    /// # Errors
    /// `NoGuestAgent`; `RefusedByGuest`: the agent does not set it; `NotNow`: the guest does not run.
    pub async fn set_time(&self, agent_timeout: Option<Duration>) -> Result<GuestClock, ChangeError> {
        self.guest_can_answer()?;
        if agent_timeout.is_none() && self.agent.presence() == Presence::NeverHeard {
            return Err(no_agent(Presence::NeverHeard, Duration::ZERO));
        }
        self.in_guest(agent_timeout.unwrap_or(SAME_AGENT), async {
            let behind_ms = self.clock_behind_ms().await?;
            if behind_ms.abs() < TOLERANCE_MS {
                return Ok(GuestClock { behind_ms, set: false });
            }
            let now = since_1970().as_nanos();
            let now = i64::try_from(now).unwrap_or(i64::MAX);
            let asked = self.call_agent(guest_set_time { time: Some(now) }).await;
            // the agent also fails where it set the clock but not the hardware clock
            let mut left = self.clock_behind_ms().await?;
            if left.abs() >= TOLERANCE_MS && asked.is_err() {
                // without `hwclock` it sets nothing at all
                self.set_by_date().await;
                left = self.clock_behind_ms().await?;
            }
            if left.abs() < TOLERANCE_MS {
                return Ok(GuestClock { behind_ms, set: true });
            }
            Err(asked.err().unwrap_or_else(|| {
                let kind = ErrorKind::RefusedByGuest { id: "guest-set-time".to_owned() };
                ChangeError::new(
                    kind,
                    format!("the guest's clock was set and is off by {left} ms all the same"),
                )
            }))
        })
        .await
    }

    /// Uses the guest's `date`, which takes whole seconds, so it runs at the start of a second. The clock itself shows the result.
    async fn set_by_date(&self) {
        let since = since_1970();
        tokio::time::sleep(Duration::from_secs(since.as_secs() + 1).saturating_sub(since)).await;
        let command = ["date", "-s", &format!("@{}", since.as_secs() + 1)].map(str::to_owned).to_vec();
        let timeout = Some(DATE_TIMEOUT);
        let exec = Exec { command, timeout, agent_timeout: Some(Duration::ZERO), ..Exec::default() };
        if let Err(error) = self.exec(exec).await {
            log::info!("date in the guest: {error}");
        }
    }

    async fn clock_behind_ms(&self) -> Result<i64, ChangeError> {
        let host = || since_1970().as_millis();
        let before = host();
        let guest = self.call_agent(guest_get_time {}).await?;
        // the guest read its clock somewhere between the two times
        let host = before.midpoint(host());
        Ok(i64::try_from(host).unwrap_or(i64::MAX).saturating_sub(guest / 1_000_000))
    }
}
