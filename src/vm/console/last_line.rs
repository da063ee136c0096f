//! The last line of text that a console has printed, for people who wait for something.

use std::time::Duration;

use anstream::adapter::StripBytes;

/// A longer line is cut: it is one line of a message, or of a terminal.
const LONGEST: usize = 160;

/// Keeps the last line that has text.
#[derive(Debug, Default)]
pub struct LastLine {
    escapes: StripBytes,
    current: Vec<u8>,
    last: Vec<u8>,
}

impl LastLine {
    /// The last line of these bytes.
    pub fn of(bytes: &[u8]) -> Option<String> {
        let mut line = Self::default();
        line.take(bytes);
        line.text()
    }

    /// Takes the next output.
    pub fn take(&mut self, bytes: &[u8]) {
        for text in self.escapes.strip_next(bytes) {
            for byte in text {
                match byte {
                    // a carriage return begins a line that may overwrite this one
                    b'\n' | b'\r' if self.current.iter().any(u8::is_ascii_graphic) => {
                        self.last = std::mem::take(&mut self.current);
                    }
                    b'\n' | b'\r' => self.current.clear(),
                    _ if self.current.len() < LONGEST => self.current.push(*byte),
                    _ => {}
                }
            }
        }
    }

    /// The last line, without control characters' sequences and spaces around it; `None` if there is none yet.
    pub fn text(&self) -> Option<String> {
        let has_text = |line: &[u8]| line.iter().any(u8::is_ascii_graphic);
        let line = if has_text(&self.current) { &self.current } else { &self.last };
        has_text(line).then(|| String::from_utf8_lossy(line).trim().to_owned())
    }
}

/// The progress of a wait, with what the console printed last.
pub fn progress(what: &str, taken: Duration, last_line: Option<&str>) -> String {
    let seconds = taken.as_secs();
    match last_line {
        Some(line) => format!("{what} ({seconds} s); the console shows: {line}"),
        None => format!("{what} ({seconds} s); the console shows nothing yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_with_text_counts() {
        assert_eq!(LastLine::of(b""), None);
        assert_eq!(LastLine::of(b"one\r\ntwo\r\n\r\n  \r\n").as_deref(), Some("two"));
        assert_eq!(LastLine::of(b"boot\r\nlog\x1b[1min: ").as_deref(), Some("login:"));
        assert_eq!(LastLine::of(b"10 %\r20 %\r").as_deref(), Some("20 %"));
        assert_eq!(LastLine::of(&[b'x'; 1000]).map(|line| line.len()), Some(LONGEST));
    }

    #[test]
    fn a_wait_says_how_long_it_takes_and_what_the_console_shows() {
        let text = |line| progress("waiting for 'agent'", Duration::from_millis(12_700), line);
        assert_eq!(text(Some("login:")), "waiting for 'agent' (12 s); the console shows: login:");
        assert_eq!(text(None), "waiting for 'agent' (12 s); the console shows nothing yet");
    }
}
