//! The console's log in the state directory. Its size is bounded: a guest that floods its console cannot fill the disk.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::host::dirs::{RunDir, StateDir, names};

/// The log of this run.
pub(in super::super) const CURRENT: &str = "console.log";
/// The output before it: the older half of a long run, or the run before.
pub(in super::super) const OLDER: &str = "console.log.1";
/// In the run directory: which of the two files belong to this run. Their times do not show it, since clocks can be set.
const OURS: &str = names::CONSOLE_LOG;
/// Only the first.
const ONE: &[u8] = b"1";
/// The older one, too.
const BOTH: &[u8] = b"2";

/// The open files of this run's log: the older one, if it belongs to this run, and the current one. All readers share them, so that
/// a reader needs no descriptor and cannot fail for lack of one.
type Files = Arc<Mutex<Vec<Arc<File>>>>;

/// A log that is written.
#[derive(Debug)]
pub(in super::super) struct ConsoleLog {
    state: Arc<StateDir>,
    files: Files,
    file: Arc<File>,
    written: u64,
    half: u64,
    /// The disk is full or gone: reported once, then the console continues without a log.
    broken: bool,
    /// Dropped when the VM has ended, even if a reader still has the log.
    run: Weak<RunDir>,
}

/// Reads the log of this run while it is written.
#[derive(Debug)]
pub(in super::super) struct LogReader {
    files: Files,
}

impl LogReader {
    /// Reads these files.
    #[cfg(test)]
    pub(super) fn of(files: Vec<File>) -> Self {
        Self { files: Arc::new(Mutex::new(files.into_iter().map(Arc::new).collect())) }
    }

    /// The current content of the log without its last bytes.
    pub(super) fn before(&self, last: usize) -> Past {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let part = |file: &Arc<File>| {
            let length = file.metadata().ok()?.len();
            Some(Part { file: Arc::clone(file), length })
        };
        let mut past = Past { parts: files.iter().filter_map(part).collect() };
        let mut kept = past.length().saturating_sub(last as u64);
        for part in &mut past.parts {
            part.length = part.length.min(kept);
            kept -= part.length;
        }
        past
    }

    /// The last bytes of the log, and the number of bytes before them.
    pub(super) fn tail(&self, most: usize) -> (u64, Vec<u8>) {
        let past = self.before(0);
        let older = past.length().saturating_sub(most as u64);
        (older, past.read(older, most))
    }
}

/// A part of the log. Only the bytes asked for are in memory, and the files stay the same while the log is rotated.
#[derive(Debug, Default, Clone)]
pub(super) struct Past {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    file: Arc<File>,
    length: u64,
}

impl Past {
    /// Bytes from a position on, at most so many; fewer only at the end, or where the log cannot be read.
    pub(super) fn read(&self, mut from: u64, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in &self.parts {
            while from < part.length && bytes.len() < most {
                let left = usize::try_from(part.length - from).unwrap_or(most).min(most - bytes.len());
                let begun = bytes.len();
                bytes.resize(begun + left, 0);
                let count = part.file.read_at(&mut bytes[begun..], from).unwrap_or(0);
                bytes.truncate(begun + count);
                if count == 0 {
                    return bytes;
                }
                from += count as u64;
            }
            from = from.saturating_sub(part.length);
        }
        bytes
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.parts.iter().map(|part| part.length).sum()
    }
}

impl ConsoleLog {
    /// Starts a new log; the log of the run before becomes the older file.
    pub(in super::super) fn start(state: Arc<StateDir>, cap: u64, run: &Arc<RunDir>) -> io::Result<Self> {
        let file = rotate(&state)?;
        run.write(OURS, ONE)?;
        Ok(Self::on(state, None, file, cap, run))
    }

    /// Continues the log of a run whose supervisor has died.
    pub(in super::super) fn go_on(state: Arc<StateDir>, cap: u64, run: &Arc<RunDir>) -> io::Result<Self> {
        let Ok(ours) = run.read(OURS) else { return Self::start(state, cap, run) };
        let file = state.append(CURRENT)?;
        let written = file.metadata()?.len();
        let older = (ours == BOTH).then(|| state.open_to_read(OLDER).ok()).flatten();
        Ok(Self { written, ..Self::on(state, older, file, cap, run) })
    }

    fn on(state: Arc<StateDir>, older: Option<File>, file: File, cap: u64, run: &Arc<RunDir>) -> Self {
        let file = Arc::new(file);
        let files = older.map(Arc::new).into_iter().chain([Arc::clone(&file)]).collect();
        let (files, run) = (Arc::new(Mutex::new(files)), Arc::downgrade(run));
        Self { state, files, file, written: 0, half: half_of(cap), broken: false, run }
    }

    /// A reader of it.
    pub(super) fn reader(&self) -> LogReader {
        LogReader { files: Arc::clone(&self.files) }
    }

    /// Begins with earlier output, of which it takes the end if all of it is more than a file may have.
    pub(in super::super) fn begin_with(&mut self, earlier: &[u8]) {
        let most = usize::try_from(self.half).unwrap_or(usize::MAX);
        self.append(&earlier[earlier.len().saturating_sub(most)..]);
    }

    /// Appends output. A failure is reported once and does not stop the console.
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
            let older = std::mem::replace(&mut self.file, Arc::new(rotate(&self.state)?));
            *self.files.lock().unwrap_or_else(PoisonError::into_inner) = vec![older, Arc::clone(&self.file)];
            self.written = 0;
            if let Some(run) = self.run.upgrade() {
                run.write(OURS, BOTH)?;
            }
        }
        self.written += bytes.len() as u64;
        (&*self.file).write_all(bytes)
    }
}

/// The most bytes of each of the two files; a piece of output is never split between them.
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
    use super::*;

    /// A log of these files, oldest first, and the folder it is in.
    fn log(sizes: &[&[u8]]) -> (tempfile::TempDir, Arc<StateDir>, LogReader) {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(&dir.path().join("state")).unwrap());
        let names = &[OLDER, CURRENT][2 - sizes.len()..];
        let files = names.iter().zip(sizes).map(|(name, bytes)| {
            let mut file = state.create_new(name).unwrap();
            file.write_all(bytes).unwrap();
            file
        });
        let log = LogReader::of(files.collect());
        (dir, state, log)
    }

    fn all(past: &Past) -> Vec<u8> {
        past.read(0, usize::MAX)
    }

    #[test]
    fn a_log_of_any_size_is_read_whole() {
        let (_dir, state, log) = log(&[b"", b""]);
        // more than any other file of vmrun may have
        for name in [OLDER, CURRENT] {
            state.append(name).unwrap().set_len(33 << 20).unwrap();
        }
        state.append(CURRENT).unwrap().write_all(b"the end").unwrap();
        assert_eq!(all(&log.before(7)).len(), 66 << 20);
        assert!(all(&log.before(0)).ends_with(b"\0the end"));
        assert_eq!(log.tail(4).1, b" end");
        assert_eq!(log.tail(100 << 20).1.len(), (66 << 20) + 7);
    }

    #[test]
    fn the_cut_is_where_it_is_asked_for_on_both_sides_of_the_files() {
        let (_dir, state, log) = log(&[b"abc", b"defg"]);
        let whole = b"abcdefg";
        for last in 0..9_usize {
            let cut = whole.len().saturating_sub(last);
            assert_eq!(all(&log.before(last)), &whole[..cut]);
            assert_eq!(log.tail(last).1, &whole[cut..]);
        }
        // any piece of it
        for from in 0..9_usize {
            for most in 0..9_usize {
                let begin = from.min(whole.len());
                let end = (begin + most).min(whole.len());
                assert_eq!(log.before(0).read(from as u64, most), &whole[begin..end]);
            }
        }
        // later output is not part of it
        let past = log.before(0);
        state.append(CURRENT).unwrap().write_all(b"h").unwrap();
        state.rename(CURRENT, OLDER).unwrap();
        assert_eq!(all(&past), whole);
    }
}
