//! The sockets under the protocol: guarded ones for the service, blocking ones for the one-shot client.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
#[cfg(target_os = "linux")]
use tokio::io::Interest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout, timeout_at};

use super::framing::{FrameError, ReadBytes, WriteBytes};

/// The longest message of a client: the largest regular one is a `Qmp` command of a few KiB.
pub const MAX_MESSAGE: usize = 1 << 20;
/// How long a client may take from the first byte of a message to its last.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(30);
/// The interval at which a client that has closed its sending direction is checked while it waits for a reply.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a client may not read before it is disconnected.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// A connection that messages are read from and written to.
pub(super) trait Socket {
    type ReadHalf: ReadBytes;
    type WriteHalf: WriteBytes;

    fn split(self) -> (Self::ReadHalf, Self::WriteHalf);
}

/// A client's connection with limits of memory and time.
#[derive(Debug)]
pub struct Guarded(pub UnixStream);

/// Reading half of [`Guarded`].
#[derive(Debug)]
pub struct GuardedRead {
    socket: OwnedReadHalf,
    /// Bytes of the incomplete message, and when it started.
    half: usize,
    began: Option<Instant>,
}

/// Writing half of [`Guarded`].
#[derive(Debug)]
pub struct GuardedWrite(OwnedWriteHalf);

impl Socket for Guarded {
    type ReadHalf = GuardedRead;
    type WriteHalf = GuardedWrite;

    fn split(self) -> (GuardedRead, GuardedWrite) {
        let (read, write) = self.0.into_split();
        (GuardedRead { socket: read, half: 0, began: None }, GuardedWrite(write))
    }
}

impl ReadBytes for GuardedRead {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, FrameError> {
        if self.half > MAX_MESSAGE {
            return Err(FrameError::TooLong);
        }
        let count = match self.began {
            None => self.socket.read(buffer).await?,
            Some(began) => timeout_at(began + MESSAGE_DEADLINE, self.socket.read(buffer))
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??,
        };
        match buffer[..count].iter().rposition(|byte| *byte == 0) {
            Some(end) => {
                self.half = count - end - 1;
                self.began = (self.half > 0).then(Instant::now);
            }
            None => {
                self.half += count;
                self.began.get_or_insert_with(Instant::now);
            }
        }
        Ok(count)
    }
}

impl GuardedWrite {
    /// Resolves when the peer has closed its socket, even if what it sent before was not read. A peer that has closed only its
    /// sending direction (as `nc -N` does at the end of its input) still wants its replies.
    pub async fn hung_up(&self) {
        hung_up(self.0.as_ref()).await;
    }

    /// The socket.
    pub(super) fn socket(&self) -> &UnixStream {
        self.0.as_ref()
    }
}

/// Like [`GuardedWrite::hung_up`].
pub(super) async fn hung_up(socket: &UnixStream) {
    one_direction_closed(socket).await;
    while !is_closed(socket) {
        // the runtime reports the end of the receiving direction, and no more after that
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(target_os = "linux")]
async fn one_direction_closed(socket: &UnixStream) {
    // Linux has no urgent data on these sockets, so this is the end of one direction or of both (unix(7), epoll_ctl(2))
    let _ = socket.ready(Interest::PRIORITY).await;
}

#[cfg(not(target_os = "linux"))]
async fn one_direction_closed(_socket: &UnixStream) {}

/// Whether the peer has closed its socket, and not only its sending direction.
fn is_closed(socket: &UnixStream) -> bool {
    let mut asked = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    let answered = poll(&mut asked, PollTimeout::ZERO);
    let [asked] = asked;
    answered.is_ok() && asked.revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

impl WriteBytes for GuardedWrite {
    async fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        let written = timeout(WRITE_DEADLINE, self.0.write_all(frame)).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// A blocking socket: its futures complete at once, so a one-shot client needs no runtime.
#[derive(Debug)]
pub struct Blocking(pub StdStream);

/// One half of [`Blocking`].
#[derive(Debug)]
pub struct BlockingHalf(StdStream);

impl Blocking {
    /// Splits it, which needs a second descriptor.
    pub fn halves(self) -> io::Result<BlockingPair> {
        Ok(BlockingPair(BlockingHalf(self.0.try_clone()?), BlockingHalf(self.0)))
    }
}

/// Both halves of a blocking socket.
#[derive(Debug)]
pub struct BlockingPair(BlockingHalf, BlockingHalf);

impl Socket for BlockingPair {
    type ReadHalf = BlockingHalf;
    type WriteHalf = BlockingHalf;

    fn split(self) -> (BlockingHalf, BlockingHalf) {
        (self.0, self.1)
    }
}

impl ReadBytes for BlockingHalf {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, FrameError> {
        Ok(self.0.read(buffer)?)
    }
}

impl WriteBytes for BlockingHalf {
    async fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.write_all(frame)
    }
}
