//! The output of a VM's console, as text.

use std::fmt;

use anstream::adapter::StripBytes;

use crate::control::client::Replies;
use crate::control::verbs;

use super::{Error, Machine};

/// How much of a console's end is shown with an error.
const SHOWN_LINES: usize = 20;
pub(super) const SHOWN_BYTES: usize = 8 << 10;

/// What a VM's console prints, piece by piece, from the start of the run; it ends with the VM. Escape sequences are in it as the guest
/// has sent them; what is not UTF-8 is replaced by U+FFFD.
pub struct Console {
    replies: Replies<verbs::ReadConsole>,
    decoder: Utf8Decoder,
    skipped: u64,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("skipped", &self.skipped).finish_non_exhaustive()
    }
}

impl Console {
    /// The next piece, which may be a part of a line; `None` when the VM has ended.
    ///
    /// # Errors
    /// The supervisor has died.
    pub async fn next(&mut self) -> Result<Option<String>, Error> {
        while let Some(reply) = self.replies.next().await? {
            self.skipped += reply.skipped;
            let text = self.decoder.decode(&super::requests::bytes(&reply.data)?);
            if !text.is_empty() {
                return Ok(Some(text));
            }
        }
        let rest = self.decoder.finish();
        Ok((!rest.is_empty()).then_some(rest))
    }

    /// How many bytes are missing so far, since they were not read in time, or the log did not have them any more.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

impl Machine {
    /// What its console prints, from the start of this run (as far as the log has it) until the VM ends.
    ///
    /// # Errors
    /// The VM has no console.
    pub async fn console(&self) -> Result<Console, Error> {
        let call = verbs::ReadConsole { from: Some("start".to_owned()), follow: None };
        let replies = self.stream(call).await?;
        Ok(Console { replies, decoder: Utf8Decoder::default(), skipped: 0 })
    }

    /// What its console has printed so far in this run; of a VM that has ended, the last 64 KiB.
    ///
    /// # Errors
    /// The VM has no console.
    pub async fn console_so_far(&self) -> Result<String, Error> {
        let call = verbs::ReadConsole { from: Some("start".to_owned()), follow: Some(false) };
        let mut replies = self.stream(call).await?;
        let mut output = Vec::new();
        while let Some(reply) = replies.next().await? {
            output.extend(super::requests::bytes(&reply.data)?);
        }
        Ok(String::from_utf8_lossy(&output).into_owned())
    }
}

/// The last lines that are not empty, without what would change a terminal.
pub(super) fn last_lines(text: &[u8]) -> String {
    // without what moves a terminal's cursor and the like
    let text: Vec<u8> = StripBytes::new().strip_next(text).flatten().copied().collect();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES));
    let visible = |line: &&str| line.replace(|c: char| c.is_control() && c != '\t', "\u{fffd}");
    last.map(|line| format!("  {}", visible(line))).collect::<Vec<_>>().join("\n")
}

/// Decodes UTF-8 that comes in pieces, which may be cut inside a character.
#[derive(Debug, Default)]
struct Utf8Decoder {
    rest: Vec<u8>,
}

impl Utf8Decoder {
    fn decode(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let mut text = String::new();
        let mut done = 0;
        loop {
            let (valid, invalid) = match std::str::from_utf8(&self.rest[done..]) {
                Ok(valid) => (valid, None),
                Err(error) => {
                    let valid = &self.rest[done..done + error.valid_up_to()];
                    (std::str::from_utf8(valid).unwrap_or_default(), error.error_len())
                }
            };
            text.push_str(valid);
            done += valid.len();
            // no length: the end may be the beginning of a character
            let Some(length) = invalid else { break };
            text.push(char::REPLACEMENT_CHARACTER);
            done += length;
        }
        self.rest.drain(..done);
        text
    }

    /// What is left at the end.
    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_text_only() {
        let printed = b"one\r\n\r\n\x1b[0;1mtwo\x1b[0m... \x08 \x08three\r\n\x1b]0;title\x07";
        assert_eq!(last_lines(printed), "  one\n  two...  three");
    }

    #[test]
    fn pieces_of_text_are_the_text_however_they_are_cut() {
        let bytes = b"a\xc3\xa4\xff\xe2\x82\xac\xf0\x9f\x98\x80\xc3(\xe2\x82";
        let expected = String::from_utf8_lossy(bytes);
        for size in 1..=bytes.len() {
            let mut decoder = Utf8Decoder::default();
            let mut text: String = bytes.chunks(size).map(|piece| decoder.decode(piece)).collect();
            text += &decoder.finish();
            assert_eq!(text, expected, "pieces of {size}");
            assert!(decoder.rest.is_empty());
        }
    }

    #[test]
    fn the_last_lines_change_no_terminal() {
        assert_eq!(last_lines(b"one\r\n\n\x1b[2Jtwo\n"), "  one\n  two");
        let many = (0..100).map(|n| format!("{n}\n")).collect::<String>();
        assert_eq!(last_lines(many.as_bytes()).lines().count(), SHOWN_LINES);
    }
}
