//! `copy-from`.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use futures_util::stream::{self, BoxStream, StreamExt};

use crate::control::error::WireError;
use crate::control::parameters::{agent_timeout, guest_path};
use crate::control::wire;
use crate::vm::{ChangeError, Download, Handle};

use super::method::{Stream, StreamMethod, method};
use super::one_reply::{Beginning, MOST};

method! {
    /// Reads a file in the guest.
    ReadGuestFile { path: String; agent_timeout_ms: i64 } -> ReadGuestFileReply
}

wire::replies! {
    /// Replies of `ReadGuestFile`: the file's size and mode, its pieces, and last its checksum.
    ReadGuestFileReply { ; size_bytes: u64, mode: u32, data: String, sha256: String, text: String }
}

impl Stream for ReadGuestFile {}

impl StreamMethod for ReadGuestFile {
    fn start(
        self,
        vm: &Handle,
    ) -> Result<BoxStream<'static, Result<ReadGuestFileReply, WireError>>, WireError> {
        let agent_timeout = agent_timeout(self.agent_timeout_ms)?;
        guest_path(&self.path)?;
        let reading = Reading::Start(vm.clone(), self.path, agent_timeout);
        Ok(stream::unfold(reading, |reading| async move {
            match reading.step().await {
                Ok(None) => None,
                Ok(Some((reply, next))) => Some((Ok(reply), next)),
                Err(error) => Some((Err(error.into()), Reading::Ended)),
            }
        })
        .boxed())
    }

    /// The whole file, if it fits.
    async fn once(self, vm: &Handle) -> Result<ReadGuestFileReply, WireError> {
        let agent_timeout = agent_timeout(self.agent_timeout_ms)?;
        guest_path(&self.path)?;
        let mut download = vm.download(&self.path, agent_timeout).await?;
        let mut content = Beginning::default();
        while let Some(bytes) = download.next().await? {
            content.take(&bytes);
            if content.is_cut {
                let why =
                    format!("{} has more than {MOST} bytes, which are as many as one reply has", self.path);
                return Err(ChangeError::unsupported(why).hint("call it with `more`").into());
            }
        }
        let (size_bytes, mode) = (download.size, download.mode);
        let sha256 = download.sum().await?;
        Ok(ReadGuestFileReply {
            size_bytes,
            mode,
            data: Some(content.base64()),
            sha256,
            text: content.text(),
        })
    }
}

/// The progress of reading a file.
enum Reading {
    Start(Handle, String, Option<Duration>),
    Under(Download),
    Ended,
}

impl Reading {
    async fn step(self) -> Result<Option<(ReadGuestFileReply, Self)>, ChangeError> {
        let reply = ReadGuestFileReply { size_bytes: None, mode: None, data: None, sha256: None, text: None };
        Ok(match self {
            Self::Start(vm, path, agent_timeout) => {
                let download = vm.download(&path, agent_timeout).await?;
                let (size_bytes, mode) = (download.size, download.mode);
                Some((ReadGuestFileReply { size_bytes, mode, ..reply }, Self::Under(download)))
            }
            Self::Under(mut download) => match download.next().await? {
                Some(bytes) => {
                    let data = Some(BASE64.encode(bytes));
                    Some((ReadGuestFileReply { data, ..reply }, Self::Under(download)))
                }
                None => {
                    let sha256 = download.sum().await?;
                    Some((ReadGuestFileReply { sha256, ..reply }, Self::Ended))
                }
            },
            Self::Ended => None,
        })
    }
}
