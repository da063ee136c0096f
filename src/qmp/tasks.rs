//! The two tasks of a session: one reads, one writes.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::host::log_context;

use super::error::SessionError;
use super::lines::Lines;
use super::message::{Greeting, Message};
use super::pending_commands::{Batch, PendingCommands};
use super::queue::EventSender;
use super::transcript::{Direction, Transcript};

/// The one that reads: answers go to their waiters, events to their queue.
pub(super) struct Reader {
    pub(super) lines: Lines<OwnedReadHalf>,
    pub(super) commands: Arc<PendingCommands>,
    pub(super) events: EventSender,
    pub(super) transcript: Option<Transcript>,
}

impl Reader {
    /// The next message that is not an event; events go to their queue.
    async fn message(&mut self) -> Result<Message, SessionError> {
        loop {
            // Lines that are already in the buffer cost no wait: let others have their turn in a flood.
            tokio::task::consume_budget().await;
            let line = match self.lines.next().await {
                Ok(Some([])) => continue,
                Ok(Some(line)) => line,
                Ok(None) => return Err(SessionError::Ended),
                Err(error) => return Err(SessionError::from_line(error, self.commands.limits.line)),
            };
            let message = Message::parse(line);
            if let Some(transcript) = &self.transcript {
                let context = match &message {
                    Some(Message::Reply { id: Some(id), .. }) => self.commands.context(*id),
                    _ => None,
                };
                log_context::within(context, || transcript.record(Direction::In, line));
            }
            match message {
                Some(Message::Event(event)) => self.events.send(event, line.len()),
                Some(message) => return Ok(message),
                None => return Err(SessionError::garbage(line)),
            }
        }
    }

    pub(super) async fn greeting(&mut self) -> Result<Greeting, SessionError> {
        loop {
            match self.message().await? {
                Message::Greeting(greeting) => return Ok(greeting),
                other => log::debug!("before the greeting QEMU's monitor sent {other:?}"),
            }
        }
    }

    async fn replies(&mut self) -> SessionError {
        loop {
            match self.message().await {
                Ok(Message::Reply { id, result }) => self.commands.answer(id, result),
                Ok(other) => log::debug!("QEMU's monitor sent what is of no use: {other:?}"),
                Err(why) => return why,
            }
        }
    }

    /// The reader task: ends with the connection, or when this side hangs up.
    pub(super) async fn run(mut self) {
        let commands = self.commands.clone();
        let why = tokio::select! {
            why = self.replies() => why,
            () = commands.hang_up.notified() => SessionError::HungUp,
        };
        log::debug!("the session with QEMU's monitor is over: {why}");
        self.events.end(why.clone());
        commands.finish(why);
    }
}

/// The writer task: takes all that is queued, writes it in one go, and again.
pub(super) async fn write_all(
    write: OwnedWriteHalf,
    commands: Arc<PendingCommands>,
    transcript: Option<Transcript>,
) {
    tokio::select! {
        error = keep_writing(write, &commands, transcript) => {
            // What QEMU said before it went away is still to be read, so the end is the reader's to find.
            log::debug!("cannot write to QEMU's monitor: {error}");
            commands.shut();
        }
        () = commands.ended() => {}
    }
}

async fn keep_writing(
    mut write: OwnedWriteHalf,
    commands: &PendingCommands,
    transcript: Option<Transcript>,
) -> std::io::Error {
    loop {
        let Some(Batch { bytes, contexts, descriptor }) = commands.take_outgoing() else {
            commands.work.notified().await;
            continue;
        };
        if let Some(transcript) = &transcript {
            let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
            for (line, context) in lines.zip(contexts) {
                log_context::within(context, || transcript.record(Direction::Out, line));
            }
        }
        let written = match &descriptor {
            Some((descriptor, _)) => write_with(&mut write, &bytes, descriptor).await,
            None => write.write_all(&bytes).await,
        };
        if let Err(error) = written {
            return error;
        }
        if let Some((_, taken_by)) = descriptor {
            commands.answered(taken_by).await;
        }
    }
}

/// Writes with a descriptor beside the first bytes.
async fn write_with(write: &mut OwnedWriteHalf, bytes: &[u8], descriptor: &OwnedFd) -> std::io::Result<()> {
    let socket: &UnixStream = write.as_ref();
    let send = || {
        let descriptors = [descriptor.as_raw_fd()];
        let beside = [ControlMessage::ScmRights(&descriptors)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        Ok(sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &beside, flags, None)?)
    };
    let sent = socket.async_io(Interest::WRITABLE, send).await?;
    write.write_all(&bytes[sent..]).await
}
