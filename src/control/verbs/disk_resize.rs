//! `disk-resize`.

use crate::control::parameters::size;
use crate::control::translate;
use crate::control::wire::DiskReply;
use crate::vm::{Change, ChangeError, Done};

use super::method::{ChangeMethod, method};

method! {
    /// Makes a disk larger.
    ResizeDisk { id: String, size_bytes: i64; } -> DiskReply
}

impl ChangeMethod for ResizeDisk {
    fn change(self) -> Result<Change, ChangeError> {
        Ok(Change::ResizeDisk { id: self.id, size: size(self.size_bytes)? })
    }

    fn reply(done: Done) -> Result<DiskReply, ChangeError> {
        Ok(DiskReply { disk: translate::disk(&done.device()?) })
    }
}
