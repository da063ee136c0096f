//! The two tasks of a session: one reads, one writes.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::desk::{Desk, Parcel};
use super::error::SessionError;
use super::lines::Lines;
use super::message::{Greeting, Message};
use super::queue::EventSender;
use super::transcript::{Direction, Transcript};

/// The one that reads: answers go to the desk, events to their queue.
pub(super) struct Reader {
    pub(super) lines: Lines<OwnedReadHalf>,
    pub(super) desk: Arc<Desk>,
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
                Err(error) => return Err(SessionError::from_line(error, self.desk.limits.line)),
            };
            if let Some(transcript) = &self.transcript {
                transcript.record(Direction::In, line);
            }
            match Message::parse(line) {
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
                Ok(Message::Reply { id, result }) => self.desk.answer(id, result),
                Ok(other) => log::debug!("QEMU's monitor sent what is of no use: {other:?}"),
                Err(why) => return why,
            }
        }
    }

    /// The reader task: ends with the connection, or when this side hangs up.
    pub(super) async fn run(mut self) {
        let desk = self.desk.clone();
        let why = tokio::select! {
            why = self.replies() => why,
            () = desk.hang_up.notified() => SessionError::HungUp,
        };
        log::debug!("the session with QEMU's monitor is over: {why}");
        self.events.end(why.clone());
        desk.finish(why);
    }
}

/// The writer task: takes all that is queued, writes it in one go, and again.
pub(super) async fn write_all(write: OwnedWriteHalf, desk: Arc<Desk>, transcript: Option<Transcript>) {
    tokio::select! {
        error = keep_writing(write, &desk, transcript) => {
            // What QEMU said before it went away is still to be read, so the end is the reader's to find.
            log::debug!("cannot write to QEMU's monitor: {error}");
            desk.shut();
        }
        () = desk.ended() => {}
    }
}

async fn keep_writing(
    mut write: OwnedWriteHalf,
    desk: &Desk,
    transcript: Option<Transcript>,
) -> std::io::Error {
    loop {
        let parcels = desk.take_outgoing();
        if parcels.is_empty() {
            desk.work.notified().await;
            continue;
        }
        for parcel in parcels {
            if let Some(transcript) = &transcript {
                let lines = parcel.bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
                lines.for_each(|line| transcript.record(Direction::Out, line));
            }
            if let Err(error) = write_parcel(&mut write, parcel).await {
                return error;
            }
        }
    }
}

async fn write_parcel(write: &mut OwnedWriteHalf, parcel: Parcel) -> std::io::Result<()> {
    let Parcel { bytes, descriptor } = parcel;
    let sent = match descriptor {
        Some(descriptor) => send_with(write, &bytes, &descriptor).await?,
        None => 0,
    };
    write.write_all(&bytes[sent..]).await
}

/// Sends the beginning of `bytes` with a descriptor; how much of it.
async fn send_with(write: &OwnedWriteHalf, bytes: &[u8], descriptor: &OwnedFd) -> std::io::Result<usize> {
    let stream: &UnixStream = write.as_ref();
    let descriptors = [descriptor.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    stream
        .async_io(Interest::WRITABLE, || {
            let data = [IoSlice::new(bytes)];
            sendmsg::<()>(stream.as_raw_fd(), &data, &rights, flags, None).map_err(std::io::Error::from)
        })
        .await
}
