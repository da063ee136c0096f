//! The console's log in the state directory, bounded: a guest that floods its console cannot fill the disk.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
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
    file: File,
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
    /// What is in the log now, but for its last bytes.
    pub(super) fn before(&self, last: usize) -> Past {
        let names = if self.rotated.load(Ordering::Relaxed) { &[OLDER, CURRENT][..] } else { &[CURRENT] };
        let open = |name: &&str| {
            let file = self.state.open_to_read(name).ok()?;
            let length = file.metadata().ok()?.len();
            Some(Part { file: Arc::new(file), at: 0, left: length })
        };
        let mut past = Past { files: names.iter().filter_map(open).collect() };
        let mut kept = past.length().saturating_sub(last as u64);
        for part in &mut past.files {
            part.left = part.left.min(kept);
            kept -= part.left;
        }
        past
    }

    /// The last bytes of the log, and how many there are before them.
    pub(super) fn tail(&self, most: usize) -> (u64, Vec<u8>) {
        let mut past = self.before(0);
        let older = past.length().saturating_sub(most as u64);
        past.skip(older);
        (older, std::iter::from_fn(|| past.next(most)).flatten().collect())
    }
}

/// A part of the log that a reader has still to read. However large the log is, only one piece of it is in memory; and the files stay
/// what they are while the log goes on under their names.
#[derive(Debug, Default, Clone)]
pub(super) struct Past {
    files: VecDeque<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Past {
    /// The next piece; none at the end.
    pub(super) fn next(&mut self, most: usize) -> Option<Vec<u8>> {
        while let Some(part) = self.files.front_mut() {
            let mut piece = vec![0; usize::try_from(part.left).unwrap_or(most).min(most)];
            let count = part.file.read_at(&mut piece, part.at).unwrap_or(0);
            if count > 0 {
                piece.truncate(count);
                part.at += count as u64;
                part.left -= count as u64;
                return Some(piece);
            }
            self.files.pop_front();
        }
        None
    }

    fn length(&self) -> u64 {
        self.files.iter().map(|part| part.left).sum()
    }

    fn skip(&mut self, mut bytes: u64) {
        for part in &mut self.files {
            let here = bytes.min(part.left);
            part.at += here;
            part.left -= here;
            bytes -= here;
        }
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

    fn on(state: Arc<StateDir>, file: File, cap: u64, rotated: bool, run: &Arc<RunDir>) -> Self {
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

fn rotate(state: &StateDir) -> io::Result<File> {
    state.rename(CURRENT, OLDER).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    state.create_new(CURRENT)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom};

    use super::*;

    fn reader(rotated: bool) -> (tempfile::TempDir, LogReader) {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(&dir.path().join("state")).unwrap());
        (dir, LogReader { state, rotated: Arc::new(AtomicBool::new(rotated)) })
    }

    fn all(mut past: Past) -> Vec<u8> {
        std::iter::from_fn(|| past.next(1 << 20)).flatten().collect()
    }

    #[test]
    fn a_log_of_any_size_is_read_whole() {
        let (_dir, log) = reader(true);
        // more than any other file of ours may have
        let older = log.state.create_new(OLDER).unwrap();
        older.set_len(33 << 20).unwrap();
        let mut current = log.state.create_new(CURRENT).unwrap();
        current.set_len(33 << 20).unwrap();
        current.seek(SeekFrom::End(0)).unwrap();
        current.write_all(b"the end").unwrap();
        assert_eq!(all(log.before(7)).len(), 66 << 20);
        assert!(all(log.before(0)).ends_with(b"\0the end"));
        assert_eq!(log.tail(4).1, b" end");
        assert_eq!(log.tail(100 << 20).1.len(), (66 << 20) + 7);
    }

    #[test]
    fn the_cut_is_where_it_is_asked_for_on_both_sides_of_the_files() {
        let (_dir, log) = reader(true);
        log.state.create_new(OLDER).unwrap().write_all(b"abc").unwrap();
        log.state.create_new(CURRENT).unwrap().write_all(b"defg").unwrap();
        let whole = b"abcdefg";
        for last in 0..9_usize {
            let cut = whole.len().saturating_sub(last);
            assert_eq!(all(log.before(last)), &whole[..cut]);
            assert_eq!(log.tail(last).1, &whole[cut..]);
        }
        // what comes later is not part of it
        let past = log.before(0);
        log.state.append(CURRENT).unwrap().write_all(b"h").unwrap();
        log.state.rename(CURRENT, OLDER).unwrap();
        assert_eq!(all(past), whole);
        let (_dir, log) = reader(false);
        assert_eq!(all(log.before(0)), b"");
    }
}
