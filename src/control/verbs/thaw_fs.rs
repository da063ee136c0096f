//! `thaw-fs`.

use crate::control::error::WireError;
use crate::control::parameters::agent_timeout;
use crate::control::permits::Use;
use crate::vm::Handle;

use super::freeze_fs::FilesystemsReply;
use super::method::{CallMethod, Uploads, method};

method! {
    /// Thaws the guest's file systems, through its agent.
    ThawFilesystems { ; agent_timeout_ms: i64 } -> FilesystemsReply
}

impl CallMethod for ThawFilesystems {
    const NEEDS: Use = Use::Wait;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<FilesystemsReply, WireError> {
        Ok(FilesystemsReply {
            filesystems: vm.thaw_filesystems(agent_timeout(self.agent_timeout_ms)?).await?,
        })
    }
}
