//! `shutdown`.

use std::time::Duration;

use crate::control::error::WireError;
use crate::control::parameters::timeout;
use crate::control::permits::Use;
use crate::control::wire;
use crate::vm::{Handle, Outcome, ShutdownOptions};

use super::method::{CallMethod, EndedVm, Uploads, method};

/// How long the guest is asked by default.
const BUDGET: Duration = Duration::from_secs(30);

method! {
    /// Asks the guest to shut down, and ends QEMU if it does not.
    Shutdown { ; timeout_ms: i64, force: bool, no_repeat: bool } -> OutcomeReply, repeatable
}

wire::replies! {
    /// Reply of `Shutdown`.
    OutcomeReply { outcome: Outcome; }
}

impl CallMethod for Shutdown {
    // a shutdown is allowed however many changes are under way
    const NEEDS: Use = Use::Short;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<OutcomeReply, WireError> {
        let options = ShutdownOptions {
            timeout: timeout(self.timeout_ms)?.unwrap_or(BUDGET),
            force: self.force.unwrap_or(false),
            no_repeat: self.no_repeat.unwrap_or(false),
        };
        Ok(OutcomeReply { outcome: vm.shutdown(options).await? })
    }

    fn after_the_end(self, ended: &EndedVm<'_>) -> Option<OutcomeReply> {
        ended.is_recent.then(|| OutcomeReply { outcome: ended.record.outcome.clone() })
    }
}
