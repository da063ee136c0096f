//! `media-eject`.

use crate::control::translate;
use crate::control::wire::DiskReply;
use crate::vm::{Change, ChangeError, Done};

use super::method::{ChangeMethod, method};

method! {
    /// Removes the medium from a CD-ROM drive.
    EjectMedia { id: String; force: bool } -> DiskReply
}

impl ChangeMethod for EjectMedia {
    fn change(self) -> Result<Change, ChangeError> {
        Ok(Change::EjectMedia { id: self.id, force: self.force.unwrap_or(false) })
    }

    fn reply(done: Done) -> Result<DiskReply, ChangeError> {
        Ok(DiskReply { disk: translate::disk(&done.device()?) })
    }
}
