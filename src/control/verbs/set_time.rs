//! `set-time`.

use crate::control::error::WireError;
use crate::control::parameters::agent_timeout;
use crate::control::permits::Use;
use crate::control::wire;
use crate::vm::{GuestClock, Handle};

use super::method::{CallMethod, Uploads, method};

method! {
    /// Sets the guest's clock to the host's, through its agent.
    SetTime { ; agent_timeout_ms: i64 } -> SetTimeReply, repeatable
}

wire::replies! {
    /// Reply of `SetTime`.
    SetTimeReply { behind_ms: i64, set: bool; }
}

impl CallMethod for SetTime {
    const NEEDS: Use = Use::Wait;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<SetTimeReply, WireError> {
        let GuestClock { behind_ms, set } = vm.set_time(agent_timeout(self.agent_timeout_ms)?).await?;
        Ok(SetTimeReply { behind_ms, set })
    }
}
