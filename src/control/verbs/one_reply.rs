//! Bytes of a stream in one reply, for calls without `more`: so many that the reply is a message of at most 1 MiB, even if JSON escapes
//! each of them, and as text where they are that.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;

/// The most bytes of one stream: with a second one, and all of them as `\u001b`, less than a message may have.
pub(super) const MOST: usize = 64 << 10;

/// The beginning of a stream.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    bytes: Vec<u8>,
    /// There was more.
    pub(super) is_cut: bool,
}

impl Beginning {
    /// Takes what there is room for.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let taken = bytes.len().min(MOST - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        self.is_cut |= taken < bytes.len();
    }

    /// As base64.
    pub(super) fn base64(&self) -> String {
        BASE64.encode(&self.bytes)
    }

    /// As text, if it is UTF-8; without the character at its end that was cut.
    pub(super) fn text(&self) -> Option<String> {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => Some(text.to_owned()),
            Err(error) if self.is_cut && error.error_len().is_none() => {
                std::str::from_utf8(&self.bytes[..error.valid_up_to()]).ok().map(str::to_owned)
            }
            Err(_) => None,
        }
    }
}

/// The end of a stream as text, if it is UTF-8; `is_cut`: without the character at its start that was cut.
pub(super) fn text_of_end(bytes: &[u8], is_cut: bool) -> Option<String> {
    // a character has at most three bytes after its first
    let rest = bytes.iter().take(3).take_while(|byte| is_cut && (**byte & 0xc0) == 0x80).count();
    std::str::from_utf8(&bytes[rest..]).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_is_utf_8() {
        let of = |bytes: &[u8]| {
            let mut beginning = Beginning::default();
            bytes.chunks(3).for_each(|piece| beginning.take(piece));
            beginning
        };
        assert_eq!(of(b"").text().unwrap(), "");
        assert_eq!(of("gr\u{fc}n".as_bytes()).text().unwrap(), "gr\u{fc}n");
        // half a character is not text, unless it was cut here
        assert_eq!(of(b"gr\xc3").text(), None);
        assert_eq!(of(b"a\xffb").text(), None);
        let long = of("\u{20ac}".repeat(MOST).as_bytes());
        assert!(long.is_cut);
        assert_eq!(long.text().unwrap().len(), MOST - MOST % 3);
    }

    #[test]
    fn the_end_is_text_without_half_a_character() {
        assert_eq!(text_of_end(b"\x82\xacend", true).unwrap(), "end");
        assert_eq!(text_of_end(b"\x82\xacend", false), None);
        assert_eq!(text_of_end("\u{20ac}".as_bytes(), true).unwrap(), "\u{20ac}");
    }

    #[test]
    fn the_largest_reply_is_a_message() {
        let mut all = Beginning::default();
        all.take(&[0x1b; MOST]);
        assert!(!all.is_cut);
        let text = serde_json::to_string(&all.text().unwrap()).unwrap();
        let reply = 2 * (all.base64().len() + text.len());
        assert!(reply + 1024 < crate::control::socket::MAX_MESSAGE, "{reply}");
    }
}
