//! A ring of recent output with any number of readers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, watch};

use super::log_file::{LogReader, Past};

/// How much recent output is kept for readers: a full boot's worth, and more than any reader that keeps up needs.
const CAPACITY: usize = 256 << 10;
/// The most that a reader is given at once.
const MAX_CHUNK: usize = 16 << 10;

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With everything that is still kept.
    Recent,
    /// With what comes from now on.
    Now,
    /// With all that was printed since the VM's start, as far as the log still has it.
    Start,
}

/// Recent output; clones share it.
#[derive(Debug, Clone)]
pub struct Hub {
    ring: Arc<Mutex<Ring>>,
    /// Bytes put in so far.
    end: watch::Sender<u64>,
    /// What the ring does not hold any more.
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

/// One reader's position.
#[derive(Debug, Clone)]
pub struct Reader {
    ring: Arc<Mutex<Ring>>,
    end: watch::Receiver<u64>,
    position: u64,
    /// What comes before the ring.
    past: Past,
    searching: Arc<Semaphore>,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes before it that this reader was too slow for.
    pub skipped: u64,
    /// The output.
    pub bytes: Vec<u8>,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Hub {
    /// An empty hub; `log` has what is older than the ring.
    pub(super) fn new(log: Option<Arc<LogReader>>) -> Self {
        let hub = Self {
            ring: Arc::default(),
            end: watch::Sender::new(0),
            log,
            searching: Arc::new(Semaphore::new(1)),
        };
        if let Some(log) = &hub.log {
            // of a run that is taken over; nothing at a run's start
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

    /// No more output will come; readers end when they have read what there is.
    pub fn close(&self) {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.end.send_modify(|_| {});
    }

    /// Resolves when no more output will come.
    pub(super) async fn closed(&self) {
        let is_closed = |_: &u64| self.ring.lock().unwrap_or_else(PoisonError::into_inner).closed;
        // the sender is ours: it lives as long as this waits
        let _ = self.end.subscribe().wait_for(is_closed).await;
    }

    /// A new reader.
    pub fn reader(&self, from: From) -> Reader {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let start = ring.end - ring.bytes.len() as u64;
        let position = if from == From::Now { ring.end } else { start };
        let past = match (from, &self.log) {
            // output is in the log before it is in the ring, and both are filled without a pause in between
            (From::Start, Some(log)) if start > 0 => log.before(ring.bytes.len()),
            _ => Past::default(),
        };
        Reader {
            ring: Arc::clone(&self.ring),
            end: self.end.subscribe(),
            position,
            past,
            searching: Arc::clone(&self.searching),
        }
    }
}

impl Reader {
    /// Waits for output; none when no more will come. Cancellation-safe.
    pub async fn next(&mut self) -> Option<Chunk> {
        if let Some(bytes) = self.past.next(MAX_CHUNK) {
            return Some(Chunk { skipped: 0, bytes });
        }
        loop {
            // marked as seen before looking: what comes after the look wakes us
            self.end.borrow_and_update();
            match self.look() {
                Look::Chunk(chunk) => return Some(chunk),
                Look::Closed => return None,
                Look::Nothing => self.end.changed().await.ok()?,
            }
        }
    }

    /// What is there already; none when that has been read.
    pub fn try_next(&mut self) -> Option<Chunk> {
        if let Some(bytes) = self.past.next(MAX_CHUNK) {
            return Some(Chunk { skipped: 0, bytes });
        }
        match self.look() {
            Look::Chunk(chunk) => Some(chunk),
            Look::Closed | Look::Nothing => None,
        }
    }

    /// Searches a piece of output on another thread, since an expression may take any time; of all readers of a console one at
    /// a time, each in turn. None if that thread has failed.
    pub(in super::super) async fn search<T: Send + 'static>(
        &self,
        search: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        // never closed
        let _turn = self.searching.acquire().await.ok()?;
        tokio::task::spawn_blocking(search).await.ok()
    }

    fn look(&mut self) -> Look {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let start = ring.end - ring.bytes.len() as u64;
        let skipped = start.saturating_sub(self.position);
        self.position += skipped;
        let offset = usize::try_from(self.position - start).unwrap_or(usize::MAX);
        let bytes: Vec<u8> = ring.bytes.iter().skip(offset).take(MAX_CHUNK).copied().collect();
        self.position += bytes.len() as u64;
        match (bytes.is_empty(), ring.closed) {
            (false, _) => Look::Chunk(Chunk { skipped, bytes }),
            (true, true) => Look::Closed,
            (true, false) => Look::Nothing,
        }
    }
}

enum Look {
    Chunk(Chunk),
    Closed,
    Nothing,
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
