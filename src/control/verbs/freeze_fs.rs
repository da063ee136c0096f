//! `freeze-fs`.

use std::time::Duration;

use crate::control::error::WireError;
use crate::control::parameters::{agent_timeout, milliseconds};
use crate::control::permits::Use;
use crate::control::wire;
use crate::spec::duration;
use crate::vm::{ChangeError, Handle};

use super::method::{CallMethod, Uploads, method};

/// The default time after which the file systems are thawed.
const THAW_AFTER: Duration = Duration::from_secs(10);

method! {
    /// Freezes the guest's file systems, through its agent.
    FreezeFilesystems { ; thaw_after_ms: i64, agent_timeout_ms: i64 } -> FilesystemsReply
}

wire::replies! {
    /// Reply of `FreezeFilesystems` and `ThawFilesystems`.
    FilesystemsReply { filesystems: u64; }
}

impl CallMethod for FreezeFilesystems {
    const NEEDS: Use = Use::Wait;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<FilesystemsReply, WireError> {
        let thaw_after =
            self.thaw_after_ms.map_or(Ok(THAW_AFTER), |time| milliseconds("thaw_after_ms", time))?;
        if thaw_after.is_zero() || thaw_after > duration::MAX {
            return Err(ChangeError::invalid(
                "thaw_after_ms",
                "the time must be more than 0 and at most a year",
            )
            .into());
        }
        let agent_timeout = agent_timeout(self.agent_timeout_ms)?;
        Ok(FilesystemsReply { filesystems: vm.freeze_filesystems(thaw_after, agent_timeout).await? })
    }
}
