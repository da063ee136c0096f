//! Bytes → lines, with a bound on the length of one line.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Room for one read. QEMU's usual messages are below 1 KiB, so a read brings many of them.
const READ_SIZE: usize = 64 * 1024;

/// What an empty buffer may keep: one 16 MiB answer must not cost 16 MiB for the rest of the VM's life.
const KEEP: usize = 4 * READ_SIZE;

/// Why there is no next line.
#[derive(Debug)]
pub(super) enum LineError {
    /// The line is longer than the limit. Its rest is skipped: the call after this one gives the next line.
    TooLong,
    /// The peer went away in the middle of a line.
    CutOff,
    /// Reading failed.
    Io(io::Error),
}

/// Splits a stream into lines. Reuses one buffer; its memory is bounded by the limit.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// Up to where no newline was found, so that slow bytes are not looked at again and again.
    scanned: usize,
    limit: usize,
    skipping: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Lines of at most `limit` bytes.
    pub(super) fn new(reader: R, limit: usize) -> Self {
        Self { reader, buffer: Vec::new(), start: 0, scanned: 0, limit, skipping: false }
    }

    /// The next line without its line end, or `None` at the end of the stream. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, LineError> {
        loop {
            if let Some(offset) = self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n') {
                let (start, end) = (self.start, self.scanned + offset);
                self.start = end + 1;
                self.scanned = self.start;
                if std::mem::take(&mut self.skipping) {
                    continue;
                }
                if end - start > self.limit {
                    return Err(LineError::TooLong);
                }
                return Ok(Some(self.buffer[start..end].trim_ascii()));
            }
            self.scanned = self.buffer.len();
            if self.skipping || self.buffer.len() - self.start > self.limit {
                self.forget();
                if !std::mem::replace(&mut self.skipping, true) {
                    return Err(LineError::TooLong);
                }
            }
            self.make_room();
            match self.reader.read_buf(&mut self.buffer).await {
                Ok(0) if self.buffer.is_empty() && !self.skipping => return Ok(None),
                Ok(0) => {
                    self.forget();
                    self.skipping = false;
                    return Err(LineError::CutOff);
                }
                Ok(_) => {}
                Err(error) => return Err(LineError::Io(error)),
            }
        }
    }

    fn forget(&mut self) {
        self.buffer.clear();
        (self.start, self.scanned) = (0, 0);
    }

    fn make_room(&mut self) {
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP {
            self.buffer.shrink_to(READ_SIZE);
        }
        self.buffer.reserve(READ_SIZE / 8);
        if self.buffer.capacity() < READ_SIZE {
            self.buffer.reserve(READ_SIZE - self.buffer.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::*;

    async fn all(input: &[u8], limit: usize) -> Vec<String> {
        let mut lines = Lines::new(input, limit);
        let mut seen = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(line)) => seen.push(String::from_utf8_lossy(line).into_owned()),
                Ok(None) => return seen,
                Err(LineError::CutOff) => seen.push("<cut off>".into()),
                Err(LineError::TooLong) => seen.push("<too long>".into()),
                Err(LineError::Io(error)) => panic!("{error}"),
            }
        }
    }

    #[tokio::test]
    async fn splits_and_trims() {
        assert_eq!(all(b"one\r\ntwo\n\nthree\n", 10).await, ["one", "two", "", "three"]);
        assert_eq!(all(b"one\ntw", 10).await, ["one", "<cut off>"]);
        assert!(all(b"", 10).await.is_empty());
    }

    #[tokio::test]
    async fn goes_on_after_a_line_that_is_too_long() {
        assert_eq!(all(b"ok\n12345678901\nnext\n", 10).await, ["ok", "<too long>", "next"]);
        let long = [vec![b'x'; 300_000], b"\nnext\n".to_vec()].concat();
        assert_eq!(all(&long, 10).await, ["<too long>", "next"]);
        assert_eq!(all(&vec![b'x'; 300_000], 10).await, ["<too long>", "<cut off>"]);
    }

    /// Gives one byte at a time.
    struct Trickle<'a>(&'a [u8]);

    impl AsyncRead for Trickle<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let (byte, rest) = self.0.split_at(self.0.len().min(1));
            buffer.put_slice(byte);
            self.0 = rest;
            Poll::Ready(Ok(()))
        }
    }

    /// If each byte were looked at again for each that follows, this would take hours.
    #[tokio::test]
    async fn a_long_line_may_come_byte_by_byte() {
        let long = [vec![b'x'; 2 << 20], b"\nnext\n".to_vec()].concat();
        let mut lines = Lines::new(Trickle(&long), 2 << 20);
        assert_eq!(lines.next().await.unwrap().unwrap().len(), 2 << 20);
        assert_eq!(lines.next().await.unwrap().unwrap(), b"next");
        let mut lines = Lines::new(Trickle(&long), (2 << 20) - 1);
        assert!(matches!(lines.next().await, Err(LineError::TooLong)));
        assert_eq!(lines.next().await.unwrap().unwrap(), b"next");
    }

    #[tokio::test]
    async fn gives_back_the_memory_of_a_long_line() {
        let long = [vec![b'x'; 8_000_000], b"\nnext\n".to_vec()].concat();
        let mut lines = Lines::new(&long[..], 10_000_000);
        assert_eq!(lines.next().await.unwrap().unwrap().len(), 8_000_000);
        assert_eq!(lines.next().await.unwrap().unwrap(), b"next");
        assert!(lines.next().await.unwrap().is_none());
        assert!(lines.buffer.capacity() <= KEEP);
    }
}
