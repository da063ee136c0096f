//! A VM's states that are kept: snapshots in its disks, templates, and files that it is saved to.

use std::path::Path;
use std::time::Duration;

use super::{Error, Machine, absolute_text};
use crate::control::client::ClientError;
use crate::control::verbs;
use crate::control::wire;
use crate::vm::Outcome;

/// Snapshots, which are kept in its qcow2 disks.
impl Machine {
    /// Saves its memory, devices and disks under a new name; it keeps running.
    pub async fn save_snapshot(&self, name: &str) -> Result<wire::Snapshot, Error> {
        let call = verbs::SaveSnapshot { name: name.to_owned(), overwrite: None };
        let mut replies = self.stream(call).await?;
        let mut made = None;
        while let Some(reply) = replies.next().await? {
            made = reply.snapshot;
        }
        Ok(made.ok_or(ClientError::Gone)?)
    }

    /// Freezes it into a template, a folder that is not there yet, of which [`crate::Request::from`] starts forks; it is off then. It must have
    /// been started with [`crate::Request::forkable`].
    pub async fn freeze(self, folder: impl AsRef<Path>) -> Result<Outcome, Error> {
        let call =
            verbs::Freeze { folder: absolute_text(folder.as_ref())?, keep_running: None, until_unused: None };
        Ok(self.frozen(call).await?.outcome.ok_or(ClientError::Gone)?)
    }

    /// The same of a VM that goes on after it. Its guest is paused while its memory is copied; returns for how long.
    pub async fn freeze_and_go_on(&self, folder: impl AsRef<Path>) -> Result<Duration, Error> {
        let call = verbs::Freeze {
            folder: absolute_text(folder.as_ref())?,
            keep_running: Some(true),
            until_unused: None,
        };
        Ok(Duration::from_millis(self.frozen(call).await?.paused_ms.unwrap_or_default()))
    }

    pub(super) async fn frozen(&self, call: verbs::Freeze) -> Result<verbs::FreezeReply, Error> {
        let mut replies = self.stream(call).await?;
        let mut last = None;
        while let Some(reply) = replies.next().await? {
            last = Some(reply);
        }
        // the stream also ends, without a word, when the VM does
        match last {
            Some(reply) if reply.done_bytes.is_none() => Ok(reply),
            _ => Err(ClientError::Gone.into()),
        }
    }

    /// Saves the whole VM to a file, from which `vmrun qemu --restore` restores it; the VM then ends.
    pub async fn save(self, file: impl AsRef<Path>) -> Result<Outcome, Error> {
        let call = verbs::Save { file: absolute_text(file.as_ref())? };
        let mut replies = self.stream(call).await?;
        let mut outcome = None;
        while let Some(reply) = replies.next().await? {
            outcome = reply.outcome;
        }
        Ok(outcome.ok_or(ClientError::Gone)?)
    }

    /// Loads a snapshot.
    pub async fn load_snapshot(&self, name: &str) -> Result<wire::Snapshot, Error> {
        let call = verbs::LoadSnapshot { name: name.to_owned() };
        Ok(self.call(call).await?.snapshot)
    }

    /// Its snapshots.
    pub async fn snapshots(&self) -> Result<Vec<wire::Snapshot>, Error> {
        Ok(self.call(verbs::ListSnapshots {}).await?.snapshots)
    }

    /// Deletes a snapshot.
    pub async fn delete_snapshot(&self, name: &str) -> Result<(), Error> {
        let call = verbs::DeleteSnapshot { name: name.to_owned() };
        self.call(call).await.map(|_| ())
    }
}
