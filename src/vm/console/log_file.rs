//! The console's log in the state directory, bounded: a guest that floods its console cannot fill the disk.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use crate::host::dirs::StateDir;

/// The log of this run.
pub(in super::super) const CURRENT: &str = "console.log";
/// What came before it: the older half of a long run, or the run before.
pub(in super::super) const OLDER: &str = "console.log.1";
/// Both together have at most this many bytes.
pub(in super::super) const DEFAULT_CAP: u64 = 16 << 20;

/// A log that is written.
#[derive(Debug)]
pub(in super::super) struct ConsoleLog {
    state: Arc<StateDir>,
    file: std::fs::File,
    written: u64,
    half: u64,
    /// The disk is full or gone: said once, then the console goes on without a log.
    broken: bool,
    rotated: Arc<AtomicBool>,
}

/// Reads the log of this run while it is written.
#[derive(Debug)]
pub(in super::super) struct LogReader {
    state: Arc<StateDir>,
    /// The older file is this run's, too.
    rotated: Arc<AtomicBool>,
}

impl LogReader {
    /// What is in the log but for its last bytes.
    pub(super) fn before(&self, last: usize) -> Vec<u8> {
        let mut all = Vec::new();
        if self.rotated.load(Ordering::Relaxed) {
            all = self.state.read(OLDER).unwrap_or_default();
        }
        all.extend(self.state.read(CURRENT).unwrap_or_default());
        all.truncate(all.len().saturating_sub(last));
        all
    }
}

impl ConsoleLog {
    /// Starts a new log; the one of the run before becomes the older one.
    pub(in super::super) fn start(state: Arc<StateDir>, cap: u64) -> io::Result<Self> {
        let file = rotate(&state)?;
        let rotated = Arc::default();
        Ok(Self { state, file, written: 0, half: half_of(cap), broken: false, rotated })
    }

    /// Goes on with the log of a run that began at `since` and whose supervisor has died.
    pub(in super::super) fn go_on(state: Arc<StateDir>, cap: u64, since: SystemTime) -> io::Result<Self> {
        // a file that was last written before is of the run before
        let is_ours = |name| {
            let written = std::fs::metadata(state.path().join(name)).and_then(|facts| facts.modified());
            written.is_ok_and(|written| written >= since)
        };
        let rotated = is_ours(OLDER);
        if !is_ours(CURRENT) && !rotated {
            return Self::start(state, cap);
        }
        let file = state.append(CURRENT)?;
        let written = file.metadata()?.len();
        let rotated = Arc::new(AtomicBool::new(rotated));
        Ok(Self { state, file, written, half: half_of(cap), broken: false, rotated })
    }

    /// A reader of it.
    pub(super) fn reader(&self) -> LogReader {
        LogReader { state: Arc::clone(&self.state), rotated: Arc::clone(&self.rotated) }
    }

    /// Appends output. A failure is told once and does not stop the console.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        if self.broken {
            return;
        }
        if let Err(error) = self.write(bytes) {
            log::warn!("the console's log cannot be written any more: {error}");
            self.broken = true;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.written + bytes.len() as u64 > self.half {
            self.file = rotate(&self.state)?;
            self.written = 0;
            self.rotated.store(true, Ordering::Relaxed);
        }
        self.written += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

/// What each of the two files may have; a piece of output is never split between them.
fn half_of(cap: u64) -> u64 {
    (cap / 2).max(super::pump::BUFFER as u64)
}

fn rotate(state: &StateDir) -> io::Result<std::fs::File> {
    state.rename(CURRENT, OLDER).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    state.create_new(CURRENT)
}
