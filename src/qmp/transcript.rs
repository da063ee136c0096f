//! What went over a monitor, for people who look for a fault: one JSON object a line.
//!
//! `{"at":1763826349.123456,"dir":"out","msg":{"execute":"stop","id":7}}`, `at` in seconds since the Unix epoch,
//! `dir` `out` or `in`; a message that is no JSON is a string. It never fails a session.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From vmrun.
    Out,
    /// To vmrun.
    In,
}

/// A cheap handle; the monitor and the guest agent may share one.
#[derive(Debug, Clone)]
pub struct Transcript(Arc<Sink>);

#[derive(Debug)]
enum Sink {
    Log,
    /// `None` after the first failure.
    File(Mutex<Option<File>>),
}

impl Transcript {
    /// Into vmrun's own log, at level `trace`, target `vmrun::transcript`.
    pub fn log() -> Self {
        Self(Arc::new(Sink::Log))
    }

    /// Appends to a file, which is made with mode 0600 if it is not there: commands can contain secrets.
    ///
    /// # Errors
    /// The file cannot be opened, or is a pipe without a reader.
    pub fn file(path: &Path) -> io::Result<Self> {
        let file = crate::host::files::append(path)?;
        Ok(Self(Arc::new(Sink::File(Mutex::new(Some(file))))))
    }

    /// Records one message, given without its line end.
    pub(super) fn record(&self, direction: Direction, message: &[u8]) {
        match &*self.0 {
            Sink::Log => {
                if log::log_enabled!(target: "vmrun::transcript", log::Level::Trace) {
                    let text = String::from_utf8_lossy(&line(direction, message)).into_owned();
                    log::trace!(target: "vmrun::transcript", "{}", text.trim_end());
                }
            }
            Sink::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                // One write per message, so that two monitors do not mix and a crash loses nothing. It ends in the
                // page cache.
                let written = file.as_mut().map_or(Ok(()), |file| file.write_all(&line(direction, message)));
                if let Err(error) = written {
                    log::warn!("the transcript ends here: {error}");
                    *file = None;
                }
            }
        }
    }
}

fn line(direction: Direction, message: &[u8]) -> Vec<u8> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let dir = match direction {
        Direction::Out => "out",
        Direction::In => "in",
    };
    let mut line = format!("{{\"at\":{}.{:06},\"dir\":\"{dir}\",\"msg\":", at.as_secs(), at.subsec_micros())
        .into_bytes();
    let is_json =
        message.first() == Some(&b'{') && serde_json::from_slice::<serde::de::IgnoredAny>(message).is_ok();
    if is_json && std::str::from_utf8(message).is_ok() {
        line.extend_from_slice(message);
    } else {
        let text = serde_json::Value::from(String::from_utf8_lossy(message));
        line.extend_from_slice(text.to_string().as_bytes());
    }
    line.extend_from_slice(b"}\n");
    line
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_line_is_json() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t");
        let transcript = Transcript::file(&path).unwrap();
        transcript.record(Direction::Out, br#"{"execute":"stop","id":7}"#);
        transcript.record(Direction::In, b"gar\"bage \xff");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["msg"]["execute"], "stop");
        assert_eq!(lines[0]["dir"], "out");
        assert!(lines[0]["at"].as_f64().unwrap() > 1.7e9);
        assert_eq!(lines[1]["msg"], "gar\"bage \u{fffd}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_full_disk_does_not_matter() {
        let transcript = Transcript::file(Path::new("/dev/full")).unwrap();
        transcript.record(Direction::Out, b"{}");
        transcript.record(Direction::Out, b"{}");
    }
}
