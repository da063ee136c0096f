//! Files that the agent has open: its own file calls.

use std::time::Duration;

use qapi::qga::{
    GuestFileRead, GuestFileWhence, QGASeek, QgaCommand, guest_file_close, guest_file_flush, guest_file_open,
    guest_file_read, guest_file_seek, guest_file_write,
};

use crate::host::log_context;

use super::files::refused;
use crate::vm::error::ChangeError;
use crate::vm::handle::Handle;

/// Bytes of one write by the agent. Measured (TCG): 1.5 MiB/s from 4 KiB on, so it is small enough to let other commands through.
const WRITE_PIECE: usize = 48 << 10;
/// Bytes of one read. Measured (TCG): 4.7 MiB/s with 16 KiB, 6.0 with 48 KiB, 6.7 with 256 KiB, 7.3 with 1 MiB.
const READ_PIECE: usize = 256 << 10;

/// A file that the agent has open; closed on drop.
pub(super) struct Open {
    vm: Handle,
    handle: i64,
    /// It has to be closed.
    open: bool,
}

impl Open {
    pub(super) async fn file(vm: &Handle, path: &str, mode: &str) -> Result<Self, ChangeError> {
        let call = guest_file_open { path: path.to_owned(), mode: Some(mode.to_owned()) };
        let made = move |vm, handle| Self { vm, handle, open: true };
        vm.in_guest(Duration::ZERO, vm.make_in_guest(call, made)).await
    }

    pub(super) async fn close(&mut self) -> Result<(), ChangeError> {
        ask(&self.vm, guest_file_close { handle: self.handle }).await?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.open && self.vm.agent.is_alive() {
            let (vm, handle) = (self.vm.clone(), self.handle);
            log_context::spawn(async move {
                let _ = ask(&vm, guest_file_close { handle }).await;
            });
        }
    }
}

impl Open {
    pub(super) async fn write(&self, bytes: &[u8]) -> Result<(), ChangeError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(WRITE_PIECE)];
            let write = guest_file_write { handle: self.handle, buf_b64: piece.to_vec(), count: None };
            let written = ask(&self.vm, write).await?;
            let count = usize::try_from(written.count).unwrap_or(0);
            if count == 0 || count > piece.len() {
                return Err(refused("the guest takes no more"));
            }
            rest = &rest[count..];
        }
        Ok(())
    }

    /// Closes a file that was written; `size`: how many bytes it must have.
    pub(super) async fn finish(&mut self, size: Option<u64>) -> Result<(), ChangeError> {
        // the data that the agent still buffers may be what does not fit
        ask(&self.vm, guest_file_flush { handle: self.handle }).await?;
        if let Some(size) = size {
            let at = ask(&self.vm, seek(self.handle, QGASeek::cur)).await?;
            if u64::try_from(at.position) != Ok(size) {
                return Err(refused("not all of it has arrived"));
            }
        }
        self.close().await
    }

    pub(super) async fn read(&self) -> Result<Option<Vec<u8>>, ChangeError> {
        let count = i64::try_from(READ_PIECE).ok();
        let piece = ask(&self.vm, guest_file_read { handle: self.handle, count }).await?;
        let GuestFileRead { buf_b64: bytes, count, .. } = piece;
        if bytes.len() > READ_PIECE {
            return Err(refused("the guest agent has sent more than was requested"));
        }
        let ended = bytes.is_empty() || count == 0;
        Ok((!ended).then_some(bytes))
    }

    /// The offset of the file's end; `None`: it is a pipe, for example.
    pub(super) async fn end(&self) -> Result<Option<u64>, ChangeError> {
        let seek = |whence| ask(&self.vm, seek(self.handle, whence));
        // a file without seeking has not moved
        let Ok(end) = seek(QGASeek::end).await else { return Ok(None) };
        seek(QGASeek::set).await?;
        Ok(u64::try_from(end.position).ok())
    }
}

async fn ask<C: QgaCommand>(vm: &Handle, command: C) -> Result<C::Ok, ChangeError> {
    // a restarted agent does not know the handle any more
    vm.with_agent(Duration::ZERO, vm.call_agent(command)).await
}

fn seek(handle: i64, whence: QGASeek) -> guest_file_seek {
    guest_file_seek { handle, offset: 0, whence: GuestFileWhence::name(whence) }
}
