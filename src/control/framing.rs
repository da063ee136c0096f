//! Varlink's framing: each message is a JSON object with a byte 0 behind it.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::socket::MAX_MESSAGE;

/// As much is read at once, in bytes.
const PIECE: usize = 8 << 10;
/// What stays allocated between two messages, in bytes: a supervisor may have a thousand connections.
const KEPT: usize = 64 << 10;

/// Why there is no message.
#[derive(Debug, Error)]
pub(super) enum FrameError {
    /// The other side has closed the connection, or reading or writing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The message is over the limit.
    #[error("a message has more than {MAX_MESSAGE} bytes")]
    TooLong,
    /// The message is not what was expected. It was read to its end, so the connection can go on.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

/// The reading half of a socket.
pub(super) trait ReadBytes {
    /// Reads what there is, at most as much as fits; 0 at the end. Cancellation-safe.
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, FrameError>;
}

/// The writing half of a socket.
pub(super) trait WriteBytes {
    /// Writes all of it.
    async fn write(&mut self, frame: &[u8]) -> io::Result<()>;
}

/// Takes a stream of bytes apart into messages.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    source: R,
    /// What was read is `buffer[start..filled]`; no byte 0 is in it before `searched`.
    buffer: Vec<u8>,
    start: usize,
    searched: usize,
    filled: usize,
}

impl<R: ReadBytes> FrameReader<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, buffer: Vec::new(), start: 0, searched: 0, filled: 0 }
    }

    /// The next message. Cancellation-safe: what has come of it by then stays.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<T, FrameError> {
        loop {
            let end = self.buffer[self.searched..self.filled].iter().position(|byte| *byte == 0);
            if let Some(end) = end.map(|end| self.searched + end) {
                let message = serde_json::from_slice(&self.buffer[self.start..end]);
                self.use_up(end + 1);
                return Ok(message?);
            }
            self.searched = self.filled;
            self.make_room();
            match self.source.read(&mut self.buffer[self.filled..]).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                count => self.filled += count,
            }
        }
    }

    fn use_up(&mut self, end: usize) {
        (self.start, self.searched) = (end, end);
        if self.start == self.filled {
            (self.start, self.searched, self.filled) = (0, 0, 0);
            if self.buffer.len() > KEPT {
                self.buffer = Vec::new();
            }
        }
    }

    fn make_room(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.filled, 0);
            self.searched -= self.start;
            self.filled -= self.start;
            self.start = 0;
        }
        if self.buffer.len() - self.filled < PIECE {
            self.buffer.resize((2 * self.filled).max(PIECE) + PIECE, 0);
        }
    }
}

/// A message as it travels.
pub(super) fn frame(message: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut frame = serde_json::to_vec(message)?;
    frame.push(0);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Gives its bytes in pieces of these lengths, and is not ready in between.
    struct Pieces {
        bytes: Vec<u8>,
        size: usize,
        is_ready: bool,
    }

    impl ReadBytes for Pieces {
        async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, FrameError> {
            self.is_ready = !self.is_ready;
            if !self.is_ready {
                std::future::pending::<()>().await;
            }
            let count = self.size.min(self.bytes.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.bytes[..count]);
            self.bytes.drain(..count);
            Ok(count)
        }
    }

    fn all(bytes: &[u8], size: usize) -> Vec<Option<Value>> {
        let mut reader = FrameReader::new(Pieces { bytes: bytes.to_vec(), size, is_ready: false });
        let mut messages = Vec::new();
        loop {
            // a future that is not ready is dropped, and nothing is lost with it
            match reader.next::<Value>().now_or_never() {
                None => {}
                Some(Ok(message)) => messages.push(Some(message)),
                Some(Err(FrameError::Json(_))) => messages.push(None),
                Some(Err(_)) => return messages,
            }
        }
    }

    proptest! {
        #[test]
        fn messages_are_the_same_in_whatever_pieces_they_come(lengths: Vec<u16>, size in 1..9000_usize) {
            let expected: Vec<Option<Value>> = lengths.iter().map(|length| Some(json!("x".repeat(usize::from(*length))))).collect();
            let bytes: Vec<u8> = expected.iter().flat_map(|message| frame(message).unwrap()).collect();
            prop_assert_eq!(all(&bytes, size), expected);
        }
    }

    #[test]
    fn what_is_no_message_ends_at_its_zero_and_what_is_half_is_none() {
        assert_eq!(all(b"\0{}\0}\0[1]\0{\"a\":", 3), [None, Some(json!({})), None, Some(json!([1]))]);
    }
}
