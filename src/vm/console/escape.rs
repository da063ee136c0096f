//! The escape key of an interactive console: `Ctrl-a`, then a letter. No I/O.

use std::str::FromStr;

use thiserror::Error;

/// The escape key, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EscapeKey {
    /// A control character.
    Control(u8),
    /// None: all keys go to the guest.
    None,
}

impl Default for EscapeKey {
    fn default() -> Self {
        Self::Control(1)
    }
}

/// The text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is not an escape key: ctrl-a to ctrl-z, ctrl-], ^A, or none")]
pub struct EscapeKeyError(String);

impl FromStr for EscapeKey {
    type Err = EscapeKeyError;

    fn from_str(text: &str) -> Result<Self, EscapeKeyError> {
        let lower = text.to_ascii_lowercase();
        if lower == "none" {
            return Ok(Self::None);
        }
        let key = lower.strip_prefix("ctrl-").or_else(|| lower.strip_prefix('^'));
        match key.map(str::as_bytes) {
            Some([letter @ (b'a'..=b'z' | b'[' | b'\\' | b']' | b'^' | b'_')]) => {
                Ok(Self::Control(letter & 0x1f))
            }
            _ => Err(EscapeKeyError(text.to_owned())),
        }
    }
}

impl std::fmt::Display for EscapeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Control(code) => write!(f, "Ctrl-{}", char::from(code | 0x40).to_ascii_lowercase()),
            Self::None => f.write_str("none"),
        }
    }
}

/// The meaning of typed bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Typed {
    /// Input for the guest.
    Bytes(Vec<u8>),
    /// Escape, `x`: shut down.
    Shutdown,
    /// Escape, `d`: leave the console.
    Detach,
    /// Escape, `s`: print a status line.
    Status,
    /// Escape, `w`: set the guest's terminal size.
    Size,
    /// Escape, `h` or any other key: print the help.
    Help,
}

/// Separates keys for the guest from escape sequences, across reads.
#[derive(Debug)]
pub(super) struct Escape {
    key: EscapeKey,
    pending: bool,
}

impl Escape {
    pub(super) fn new(key: EscapeKey) -> Self {
        Self { key, pending: false }
    }

    pub(super) fn key(&self) -> EscapeKey {
        self.key
    }

    pub(super) fn split(&mut self, input: &[u8]) -> Vec<Typed> {
        let EscapeKey::Control(key) = self.key else { return vec![Typed::Bytes(input.to_owned())] };
        let mut all = Vec::new();
        let mut plain = Vec::new();
        for &byte in input {
            let typed = match (std::mem::take(&mut self.pending), byte) {
                (false, byte) if byte == key => {
                    self.pending = true;
                    continue;
                }
                (false, byte) => {
                    plain.push(byte);
                    continue;
                }
                (true, byte) if byte == key => {
                    plain.push(byte);
                    continue;
                }
                (true, b'x' | b'X') => Typed::Shutdown,
                (true, b'd' | b'D') => Typed::Detach,
                (true, b's' | b'S') => Typed::Status,
                (true, b'w' | b'W') => Typed::Size,
                (true, _) => Typed::Help,
            };
            if !plain.is_empty() {
                all.push(Typed::Bytes(std::mem::take(&mut plain)));
            }
            all.push(typed);
        }
        if !plain.is_empty() {
            all.push(Typed::Bytes(plain));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_across_reads() {
        let mut escape = Escape::new(EscapeKey::default());
        assert_eq!(
            escape.split(b"ls\x01xq"),
            [Typed::Bytes(b"ls".to_vec()), Typed::Shutdown, Typed::Bytes(b"q".to_vec())]
        );
        assert_eq!(escape.split(b"\x01"), []);
        assert_eq!(escape.split(b"\x01a"), [Typed::Bytes(b"\x01a".to_vec())]);
        assert_eq!(escape.split(b"\x01d\x01?"), [Typed::Detach, Typed::Help]);
        assert_eq!(escape.split(b"\x01w"), [Typed::Size]);
        assert_eq!(Escape::new(EscapeKey::None).split(b"\x01x"), [Typed::Bytes(b"\x01x".to_vec())]);
    }

    #[test]
    fn keys_have_names() {
        assert_eq!("ctrl-a".parse(), Ok(EscapeKey::Control(1)));
        assert_eq!("^]".parse(), Ok(EscapeKey::Control(0x1d)));
        assert_eq!("none".parse(), Ok(EscapeKey::None));
        for (key, name) in [
            (EscapeKey::Control(1), "Ctrl-a"),
            (EscapeKey::Control(0x1d), "Ctrl-]"),
            (EscapeKey::None, "none"),
        ] {
            assert_eq!((key.to_string().as_str(), name.parse()), (name, Ok(key)));
        }
        for bad in ["", "a", "ctrl-", "ctrl-1", "^ab", "alt-x"] {
            assert!(bad.parse::<EscapeKey>().is_err(), "{bad}");
        }
    }
}
