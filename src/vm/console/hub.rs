//! A ring of recent output with any number of readers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, watch};

use super::log_file::{LogReader, Past};

/// How much recent output is kept for readers: a full boot's output, and more than a reader that keeps up needs.
const CAPACITY: usize = 256 << 10;
/// The most bytes that a reader gets at once.
const MAX_CHUNK: usize = 16 << 10;

/// Where a reader starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// At the oldest output that is still kept.
    Recent,
    /// At the output that comes from now on.
    Now,
    /// At the VM's start, as far as the log still has it.
    Start,
}

/// Recent output; clones share it.
#[derive(Debug, Clone)]
pub struct Hub {
    ring: Arc<Mutex<Ring>>,
    /// Bytes put in so far.
    end: watch::Sender<u64>,
    /// Bytes that the ring does not hold any more.
    log: Option<Arc<LogReader>>,
    searching: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Ring {
    bytes: VecDeque<u8>,
    /// Bytes put in so far: the position behind the last one kept.
    end: u64,
    closed: bool,
}

/// One reader's position. It holds no output: that is in the ring and in the log, shared by all readers.
#[derive(Debug, Clone)]
pub struct Reader {
    ring: Arc<Mutex<Ring>>,
    end: watch::Receiver<u64>,
    position: u64,
    /// The number of bytes read last that are read once more with the next piece.
    again: usize,
    /// The log before the ring when this reader was made, and the position at its end.
    past: Past,
    past_end: u64,
    /// Where the output ended when this reader was made.
    made_at: u64,
    searching: Arc<Semaphore>,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes lost before it, because this reader was too slow or could not read them once more.
    pub skipped: u64,
    /// The output.
    pub bytes: Vec<u8>,
    /// How many of the bytes, its first ones, the guest had printed before the reader was made.
    pub earlier: usize,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Hub {
    /// An empty hub; `log` has the output that is older than the ring.
    pub(super) fn new(log: Option<Arc<LogReader>>) -> Self {
        let hub = Self {
            ring: Arc::default(),
            end: watch::Sender::new(0),
            log,
            searching: Arc::new(Semaphore::new(1)),
        };
        if let Some(log) = &hub.log {
            // non-empty after a takeover; empty at a VM's start
            let (older, tail) = log.tail(CAPACITY);
            hub.ring.lock().unwrap_or_else(PoisonError::into_inner).end = older;
            hub.push(&tail);
        }
        hub
    }

    /// Adds output; never waits for a reader.
    pub fn push(&self, bytes: &[u8]) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.end += bytes.len() as u64;
        let kept = &bytes[bytes.len().saturating_sub(CAPACITY)..];
        let excess = (ring.bytes.len() + kept.len()).saturating_sub(CAPACITY);
        ring.bytes.drain(..excess);
        ring.bytes.extend(kept);
        let end = ring.end;
        drop(ring);
        self.end.send_replace(end);
    }

    /// No more output will come; readers end when they have read the rest.
    pub fn close(&self) {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.end.send_modify(|_| {});
    }

    /// Resolves when no more output will come.
    pub(super) async fn closed(&self) {
        let is_closed = |_: &u64| self.ring.lock().unwrap_or_else(PoisonError::into_inner).closed;
        // we own the sender: it lives as long as this waits
        let _ = self.end.subscribe().wait_for(is_closed).await;
    }

    /// The output that is still kept; does not wait for more.
    pub(in crate::vm) fn recent(&self) -> Vec<u8> {
        let mut reader = self.reader(From::Recent);
        std::iter::from_fn(|| reader.try_next()).flat_map(|chunk| chunk.bytes).collect()
    }

    /// A new reader.
    pub fn reader(&self, from: From) -> Reader {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let start = ring.end - ring.bytes.len() as u64;
        let past = match (from, &self.log) {
            // output is in the log before it is in the ring, and both are filled without an await in between
            (From::Start, Some(log)) if start > 0 => log.before(ring.bytes.len()),
            _ => Past::default(),
        };
        Reader {
            ring: Arc::clone(&self.ring),
            end: self.end.subscribe(),
            position: if from == From::Now { ring.end } else { start.saturating_sub(past.length()) },
            again: 0,
            past,
            past_end: start,
            made_at: ring.end,
            searching: Arc::clone(&self.searching),
        }
    }
}

impl Reader {
    /// The next piece starts with so many of the bytes that were read last.
    pub(in super::super) fn read_again(&mut self, bytes: usize) {
        self.again = bytes;
    }

    /// Waits until there is output to read; false when no more will come. Cancellation-safe.
    pub(in super::super) async fn ready(&mut self) -> bool {
        loop {
            // marked as seen before the check: output after the check wakes us
            self.end.borrow_and_update();
            {
                let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
                if self.position < ring.end {
                    return true;
                }
                if ring.closed {
                    return false;
                }
            }
            if self.end.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Waits for output; `None` when no more will come. Cancellation-safe.
    pub async fn next(&mut self) -> Option<Chunk> {
        while self.ready().await {
            if let Some(chunk) = self.try_next() {
                return Some(chunk);
            }
        }
        None
    }

    /// The output that is there already; `None` when all of it was read.
    pub fn try_next(&mut self) -> Option<Chunk> {
        let again = std::mem::take(&mut self.again);
        let from = self.position - again as u64;
        let (skipped, bytes) = self.bytes(from, again + MAX_CHUNK);
        let position = from + skipped + bytes.len() as u64;
        let is_new = position > self.position;
        self.position = position.max(self.position);
        let earlier = self.made_at.saturating_sub(from + skipped).try_into().unwrap_or(usize::MAX);
        let earlier = bytes.len().min(earlier);
        is_new.then_some(Chunk { skipped, bytes, earlier })
    }

    /// Waits for the turn of this search among all searches of consoles, then searches on another thread, since a regular
    /// expression may take any time. It reads there what it searches, so that only one piece is in memory for all searches. `None`
    /// if that thread has failed.
    pub(in super::super) async fn search<T: Send + 'static>(
        mut self,
        search: impl FnOnce(&mut Self) -> T + Send + 'static,
    ) -> Option<(Self, T)> {
        let searching = Arc::clone(&self.searching);
        // never closed
        let _turn = searching.acquire().await.ok()?;
        let searched = tokio::task::spawn_blocking(move || {
            let found = search(&mut self);
            (self, found)
        });
        searched.await.ok()
    }

    /// Bytes from a position on, and how many before them are lost.
    fn bytes(&mut self, from: u64, most: usize) -> (u64, Vec<u8>) {
        if from < self.past_end {
            let begin = self.past_end - self.past.length();
            let mut bytes = self.past.read(from.saturating_sub(begin), most);
            let reached = from + bytes.len() as u64;
            if reached >= self.past_end || bytes.len() == most {
                let (lost, rest) = self.ring_bytes(reached, most - bytes.len());
                // the loss is reported with the next piece
                if lost == 0 {
                    bytes.extend(rest);
                }
                return (0, bytes);
            }
            // the log cannot be read any more
            self.past_end = 0;
        }
        // its files may be closed
        self.past = Past::default();
        self.ring_bytes(from, most)
    }

    /// Bytes of the ring from a position on, and how many before them are lost.
    fn ring_bytes(&self, from: u64, most: usize) -> (u64, Vec<u8>) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let start = ring.end - ring.bytes.len() as u64;
        let skipped = start.saturating_sub(from);
        let offset = usize::try_from(from + skipped - start).unwrap_or(usize::MAX).min(ring.bytes.len());
        let end = (offset + most).min(ring.bytes.len());
        (skipped, ring.bytes.range(offset..end).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_reader_has_its_own_position() {
        let hub = Hub::default();
        let mut early = hub.reader(From::Now);
        hub.push(b"one");
        let mut late = hub.reader(From::Recent);
        let mut now = hub.reader(From::Now);
        hub.push(b"two");
        assert_eq!(early.next().await.unwrap().bytes, b"onetwo");
        assert_eq!(late.next().await.unwrap().bytes, b"onetwo");
        assert_eq!(now.next().await.unwrap().bytes, b"two");
        hub.close();
        assert_eq!(early.next().await, None);
    }

    #[tokio::test]
    async fn a_reader_tells_what_was_there_before_it() {
        let hub = Hub::default();
        hub.push(b"before");
        let mut reader = hub.reader(From::Recent);
        hub.push(b"after");
        let chunk = reader.next().await.unwrap();
        assert_eq!((chunk.bytes.as_slice(), chunk.earlier), (&b"beforeafter"[..], "before".len()));
        hub.push(b"later");
        assert_eq!(reader.next().await.unwrap().earlier, 0);
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_missed() {
        let hub = Hub::default();
        let mut reader = hub.reader(From::Now);
        hub.push(&vec![b'a'; CAPACITY]);
        hub.push(b"bcd");
        let chunk = reader.next().await.unwrap();
        assert_eq!((chunk.skipped, chunk.bytes.len()), (3, MAX_CHUNK));
        hub.push(&vec![b'x'; 3 * CAPACITY]);
        assert_eq!(
            reader.next().await.unwrap().skipped,
            2 * CAPACITY as u64 + 3 + CAPACITY as u64 - MAX_CHUNK as u64 - 3
        );
    }

    /// A hub that continues a log which has more than the ring.
    fn on_a_log() -> (Hub, Vec<u8>) {
        let bytes: Vec<u8> = (0..CAPACITY + 3 * MAX_CHUNK + 5).map(|at| (at % 251) as u8).collect();
        let files = bytes.chunks(CAPACITY).map(|part| {
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, part).unwrap();
            file
        });
        (Hub::new(Some(Arc::new(LogReader::of(files.collect())))), bytes)
    }

    #[tokio::test]
    async fn what_was_read_is_read_again_from_wherever_it_is() {
        for again in [0, 1, 100, MAX_CHUNK, 4 * MAX_CHUNK] {
            let (hub, bytes) = on_a_log();
            let mut reader = hub.reader(From::Start);
            let mut read = Vec::new();
            while let Some(chunk) = reader.try_next() {
                let begin = read.len() - again.min(read.len());
                assert_eq!((chunk.skipped, &chunk.bytes[..read.len() - begin]), (0, &read[begin..]));
                read.truncate(begin);
                read.extend(chunk.bytes);
                reader.read_again(again.min(read.len()));
            }
            assert!(read == bytes, "{again}");
            reader.read_again(2);
            hub.push(b"x");
            assert_eq!(reader.next().await.unwrap().bytes, [&bytes[bytes.len() - 2..], b"x"].concat());
            // the loss in the ring is reported and is not part of the text
            reader.read_again(3);
            hub.push(&vec![b'y'; CAPACITY]);
            assert_eq!(
                reader.next().await.unwrap(),
                Chunk { skipped: 3, bytes: vec![b'y'; MAX_CHUNK + 3], earlier: 0 }
            );
        }
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken() {
        let hub = Hub::default();
        let mut reader = hub.reader(From::Now);
        let waiting = tokio::spawn(async move { reader.next().await });
        tokio::task::yield_now().await;
        hub.push(b"hello");
        assert_eq!(waiting.await.unwrap().unwrap().bytes, b"hello");
    }
}
