//! Finds the end of a command's output.
//!
//! QEMU does not pass on that the guest has closed a port (and reports it up to a second late), so the shell that runs the command
//! writes a mark of random letters to it, with the command's status.

use memchr::memmem;

/// Letters of a mark.
const MARK: usize = 32;
/// Digits of the status behind it.
const STATUS: usize = 3;

/// A new mark.
pub(super) fn random() -> String {
    format!("{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>())
}

/// What is read from a port, without the mark.
pub(super) struct Marked {
    mark: String,
    /// Read, but possibly the beginning of the mark.
    held: Vec<u8>,
    /// The status behind the mark, once it was read.
    pub(super) status: Option<u16>,
}

impl Marked {
    /// What ends with this mark.
    pub(super) fn new(mark: &str) -> Self {
        Self { mark: mark.to_owned(), held: Vec::new(), status: None }
    }

    /// Takes what was read; returns what belongs to the output. After the mark nothing does.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.status.is_some() {
            return Vec::new();
        }
        self.held.extend_from_slice(bytes);
        let mark = self.mark.as_bytes();
        let ready = match memmem::find(&self.held, mark) {
            Some(at) => {
                let status = self.held.get(at + MARK..at + MARK + STATUS);
                let number = |digits| str::from_utf8(digits).ok()?.parse().ok();
                // a command that writes its own mark, with no status behind it, has failed
                self.status = status.map(|digits| number(digits).unwrap_or(u16::MAX));
                at
            }
            None => {
                let longest = self.held.len().min(MARK - 1);
                let begun = (1..=longest).rev().find(|length| self.held.ends_with(&mark[..*length]));
                self.held.len() - begun.unwrap_or_default()
            }
        };
        let rest = self.held.split_off(ready);
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether bytes are held back that may be the beginning of the mark.
    pub(super) fn is_waiting(&self) -> bool {
        self.status.is_none() && !self.held.is_empty() && self.held.len() < MARK
    }

    /// What was held back, at an end without this mark, or when nothing has followed it.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        match self.status {
            None => std::mem::take(&mut self.held),
            Some(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_ends_at_the_mark_however_it_is_cut() {
        let mark = random();
        let beginning = &mark.as_bytes()[..7];
        let bytes: Vec<u8> = [b"a\0b\n", beginning, b"z", beginning, mark.as_bytes(), b"137later"].concat();
        for cut in 1..=60 {
            let mut marked = Marked::new(&mark);
            let mut output = Vec::new();
            for piece in bytes.chunks(cut) {
                output.extend(marked.take(piece));
            }
            let end = bytes.len() - b"137later".len() - MARK;
            assert_eq!(output, bytes[..end], "in pieces of {cut}");
            assert_eq!(marked.status, Some(137));
        }
    }

    #[test]
    fn nothing_is_held_back_that_cannot_be_the_mark() {
        let mark = random();
        let (mut marked, begun) = (Marked::new(&mark), &mark[..3]);
        assert_eq!(marked.take(b"prompt$ "), b"prompt$ ");
        assert_eq!(marked.take(begun.as_bytes()), b"");
        assert_eq!(marked.take(b"!"), format!("{begun}!").as_bytes());
        assert_eq!(marked.take(begun.as_bytes()), b"");
        assert!(marked.is_waiting());
        assert_eq!(marked.rest(), begun.as_bytes());
        // the mark itself is never given out, however late its status is
        assert_eq!(marked.take(mark.as_bytes()), b"");
        assert!(!marked.is_waiting());
        marked.take(b"000");
        assert_eq!((marked.is_waiting(), marked.status), (false, Some(0)));
    }
}
