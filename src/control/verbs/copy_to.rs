//! `copy-to`: starts a file, writes it piece by piece, and renames it to its destination.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;

use crate::control::error::WireError;
use crate::control::parameters::{agent_timeout, guest_path};
use crate::control::permits::Use;
use crate::control::wire::{self, Nothing};
use crate::vm::{ChangeError, Checked, Handle};

use super::method::{CallMethod, Uploads, method};

method! {
    /// Starts to write a file in the guest.
    StartGuestFile { path: String; name: String, agent_timeout_ms: i64 } -> GuestFileReply
}

method! {
    /// Writes the next piece of a file. After a failure the file is abandoned.
    WriteGuestFile { handle: i64, data: String; } -> Nothing
}

method! {
    /// Renames a complete file to its destination.
    FinishGuestFile { handle: i64; mode: i64, sha256: String } -> FinishedReply
}

wire::replies! {
    /// Reply of `StartGuestFile`.
    GuestFileReply { handle: i64, path: String; }
    /// Reply of `FinishGuestFile`.
    FinishedReply { checked: String; }
}

impl CallMethod for StartGuestFile {
    const NEEDS: Use = Use::Wait;

    async fn run(self, vm: &Handle, uploads: &mut Uploads) -> Result<GuestFileReply, WireError> {
        let agent_timeout = agent_timeout(self.agent_timeout_ms)?;
        guest_path(&self.path)?;
        if self.name.as_ref().is_some_and(|name| name.is_empty() || name.contains(['/', '\0'])) {
            return Err(ChangeError::invalid("name", "a name is not a path").into());
        }
        let upload = vm.upload(&self.path, self.name.as_deref(), agent_timeout).await?;
        // of this connection only
        let handle = uploads.keys().max().map_or(1, |last| last + 1);
        let reply = GuestFileReply { handle, path: upload.path().to_owned() };
        uploads.insert(reply.handle, upload);
        Ok(reply)
    }
}

impl CallMethod for WriteGuestFile {
    const NEEDS: Use = Use::Wait;

    async fn run(self, _: &Handle, uploads: &mut Uploads) -> Result<Nothing, WireError> {
        let bytes = BASE64.decode(self.data).map_err(|error| ChangeError::invalid("data", error))?;
        let upload = uploads.get_mut(&self.handle).ok_or_else(|| no_such(self.handle))?;
        let written = upload.write(&bytes).await;
        if written.is_err() {
            uploads.remove(&self.handle);
        }
        written?;
        Ok(Nothing {})
    }
}

impl CallMethod for FinishGuestFile {
    const NEEDS: Use = Use::Wait;

    async fn run(self, _: &Handle, uploads: &mut Uploads) -> Result<FinishedReply, WireError> {
        let mode = self.mode.map(u32::try_from).transpose().ok();
        let mode = mode.filter(|mode| mode.is_none_or(|mode| mode <= 0o7777));
        let why = || ChangeError::invalid("mode", "permissions are 0 to 4095 (octal 7777)");
        let mode = mode.ok_or_else(why)?;
        let upload = uploads.remove(&self.handle).ok_or_else(|| no_such(self.handle))?;
        let checked = match upload.finish(mode, self.sha256.as_deref()).await? {
            Checked::Sha256 => "sha256",
            Checked::Size => "size",
        };
        Ok(FinishedReply { checked: checked.to_owned() })
    }
}

fn no_such(handle: i64) -> ChangeError {
    ChangeError::no_such("open file", handle)
}
