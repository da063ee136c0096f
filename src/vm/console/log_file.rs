//! The console's log in the state directory, bounded: a guest that floods its console cannot fill the disk.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::host::dirs::{RunDir, StateDir, names};

/// The log of this run.
pub(in super::super) const CURRENT: &str = "console.log";
/// What came before it: the older half of a long run, or the run before.
pub(in super::super) const OLDER: &str = "console.log.1";
/// In the run directory: which of the two are this run's. Their times would not tell, for clocks are set.
const OURS: &str = names::CONSOLE_LOG;
/// Only the first.
const ONE: &[u8] = b"1";
/// The older one, too.
const BOTH: &[u8] = b"2";
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
    /// Goes when the VM has ended, whoever still has the log.
    run: Weak<RunDir>,
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
    pub(in super::super) fn start(state: Arc<StateDir>, cap: u64, run: &Arc<RunDir>) -> io::Result<Self> {
        let file = rotate(&state)?;
        run.write(OURS, ONE)?;
        Ok(Self::on(state, file, cap, false, run))
    }

    /// Goes on with the log of a run whose supervisor has died.
    pub(in super::super) fn go_on(state: Arc<StateDir>, cap: u64, run: &Arc<RunDir>) -> io::Result<Self> {
        let Ok(ours) = run.read(OURS) else { return Self::start(state, cap, run) };
        let file = state.append(CURRENT)?;
        let written = file.metadata()?.len();
        Ok(Self { written, ..Self::on(state, file, cap, ours == BOTH, run) })
    }

    fn on(state: Arc<StateDir>, file: std::fs::File, cap: u64, rotated: bool, run: &Arc<RunDir>) -> Self {
        let rotated = Arc::new(AtomicBool::new(rotated));
        let run = Arc::downgrade(run);
        Self { state, file, written: 0, half: half_of(cap), broken: false, rotated, run }
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
            if let Some(run) = self.run.upgrade() {
                run.write(OURS, BOTH)?;
            }
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
