//! `media-change`.

use crate::control::parameters::{absolute, allow_backing, parse_if_given};
use crate::control::translate;
use crate::control::wire::DiskReply;
use crate::vm::{Change, ChangeError, Done};

use super::method::{ChangeMethod, method};

method! {
    /// Puts another image into a CD-ROM drive.
    ChangeMedia { id: String, file: String; allow_backing: Vec<String>, format: String } -> DiskReply
}

impl ChangeMethod for ChangeMedia {
    fn change(self) -> Result<Change, ChangeError> {
        Ok(Change::ChangeMedia {
            id: self.id,
            file: absolute("file", &self.file)?,
            format: parse_if_given("format", self.format)?,
            allow_backing: allow_backing(self.allow_backing)?,
        })
    }

    fn reply(done: Done) -> Result<DiskReply, ChangeError> {
        Ok(DiskReply { disk: translate::disk(&done.device()?) })
    }
}
