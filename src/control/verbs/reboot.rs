//! `reboot`.

use std::time::Duration;

use crate::control::error::WireError;
use crate::control::parameters::{agent_timeout, parse_if_given, timeout};
use crate::control::permits::Use;
use crate::control::{translate, wire};
use crate::vm::{self, Handle, Rebooted};

use super::method::{CallMethod, Uploads, method};

/// How long a reboot may take by default.
const TIMEOUT: Duration = Duration::from_secs(120);

method! {
    /// Reboots the guest, and waits until it is up again.
    Reboot { ; force: bool, until: String, timeout_ms: i64, agent_timeout_ms: i64 } -> RebootReply
}

wire::replies! {
    /// Reply of `Reboot`.
    RebootReply { reset_after_ms: u64; condition: String, up_after_ms: u64 }
}

impl CallMethod for Reboot {
    const NEEDS: Use = Use::Wait;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<RebootReply, WireError> {
        let reboot = vm::Reboot {
            force: self.force.unwrap_or(false),
            until: parse_if_given("until", self.until)?,
            timeout: timeout(self.timeout_ms)?.unwrap_or(TIMEOUT),
            agent_timeout: agent_timeout(self.agent_timeout_ms)?,
        };
        let Rebooted { reset_after, up } = vm.reboot(reboot).await?;
        let up = up.map(|(condition, after)| (condition.to_string(), translate::milliseconds(after)));
        let (condition, up_after_ms) = up.unzip();
        Ok(RebootReply { reset_after_ms: translate::milliseconds(reset_after), condition, up_after_ms })
    }
}
