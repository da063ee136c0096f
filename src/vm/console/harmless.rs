//! Filters a guest's output for a terminal whose answers do not reach that guest, because it shows the output later than it was
//! printed, or because nobody reads its keys: text, colours and cursor movements pass, nothing else.
//!
//! Removed is what makes a terminal answer (the answer would be typed into the shell), what sets its clipboard, title or size, and
//! what switches its modes: every string (OSC, DCS, SOS, PM, APC), every private sequence, and of the control sequences (CSI) all
//! but a few (ECMA-48; "XTerm Control Sequences"). A string ends with its line, so that one without an end hides no more than that:
//! parsers such as `vte` would keep all of it.
//!
//! A console that goes on live after what was printed before needs the modes that the guest has switched: [`Harmless::with_modes`]
//! lets those pass, too.

/// Final bytes of the control sequences that pass: cursor movements, erasing, inserting and deleting, scrolling, and colours.
const PASSING: &[u8] = b"ABCDEFGHJKLMPSTX@dfm";
/// Those that switch modes, and the scrolling region.
const MODES: &[u8] = b"hlr";
/// A longer control sequence is none of those.
const LONGEST: usize = 64;

/// The filter; sequences that are split between two pieces are recognised.
#[derive(Debug, Default)]
pub struct Harmless {
    state: State,
    with_modes: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Text,
    /// Inside a multi-byte character: how many bytes follow, and the smallest value of the next one.
    Character {
        left: u8,
        least: u8,
    },
    /// After 0xC2, which starts a letter or a C1 control character.
    Latin,
    Escape,
    /// An escape sequence with more than one letter.
    LongEscape,
    /// The selection of a character set.
    CharacterSet(u8),
    Control(Vec<u8>),
    /// OSC, DCS, SOS, PM or APC.
    String {
        after_c2: bool,
    },
}

impl Harmless {
    /// One that lets the terminal's modes and character sets pass.
    pub fn with_modes() -> Self {
        Self { with_modes: true, ..Self::default() }
    }

    /// The bytes that may be shown.
    pub fn filter(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.take(*byte, &mut shown);
        }
        shown
    }

    fn take(&mut self, byte: u8, shown: &mut Vec<u8>) {
        self.state = match (std::mem::take(&mut self.state), byte) {
            (State::String { .. }, 0x07 | 0x18 | 0x1a) => State::Text,
            // the line continues below
            (State::String { .. }, b'\n') => text(byte, shown),
            (_, 0x1b) => State::Escape,
            (State::String { after_c2: true }, 0x9c) => State::Text,
            (State::String { .. }, _) => State::String { after_c2: byte == 0xc2 },
            (State::Text, 0x0e | 0x0f) if self.with_modes => {
                shown.push(byte);
                State::Text
            }
            (State::Text, _) => text(byte, shown),
            (State::Character { left, least }, _) if (least..=0xbf).contains(&byte) => {
                shown.push(byte);
                if left > 1 { State::Character { left: left - 1, least: 0x80 } } else { State::Text }
            }
            (State::Latin, 0x80..=0x9f) => c1(byte - 0x40),
            (State::Latin, 0xa0..=0xbf) => {
                shown.extend([0xc2, byte]);
                State::Text
            }
            (State::Escape, b'7' | b'8' | b'D' | b'E' | b'M') => {
                shown.extend([0x1b, byte]);
                State::Text
            }
            (State::Escape, b'@'..=b'_') => c1(byte),
            (State::Escape, b'=' | b'>') if self.with_modes => {
                shown.extend([0x1b, byte]);
                State::Text
            }
            (State::Escape, b'('..=b'+') => State::CharacterSet(byte),
            (State::CharacterSet(set), b'0' | b'A' | b'B') if self.with_modes => {
                shown.extend([0x1b, set, byte]);
                State::Text
            }
            (State::Escape | State::LongEscape | State::CharacterSet(_), b' '..=b'/') => State::LongEscape,
            (State::Escape | State::LongEscape | State::CharacterSet(_), b'0'..=b'~') => State::Text,
            (State::Control(mut sequence), b' '..=b'?') => {
                if sequence.len() <= LONGEST {
                    sequence.push(byte);
                }
                State::Control(sequence)
            }
            (State::Control(sequence), b'@'..=b'~') => {
                let is_plain = |sequence: &[u8]| sequence.iter().all(|byte| matches!(byte, b'0'..=b';'));
                let mode = sequence.strip_prefix(b"?").filter(|_| byte != b'r').unwrap_or(&sequence);
                let passes = (is_plain(&sequence) && PASSING.contains(&byte))
                    || (self.with_modes && is_plain(mode) && MODES.contains(&byte));
                if passes && sequence.len() <= LONGEST {
                    shown.extend([0x1b, b'[']);
                    shown.extend(sequence);
                    shown.push(byte);
                }
                State::Text
            }
            // the unfinished sequence ends here
            (_, _) => text(byte, shown),
        };
    }
}

/// What a C1 control character starts, by its second byte in the form with ESC.
fn c1(byte: u8) -> State {
    match byte {
        b'[' => State::Control(Vec::new()),
        b']' | b'P' | b'X' | b'^' | b'_' => State::String { after_c2: false },
        _ => State::Text,
    }
}

/// A byte outside any sequence.
fn text(byte: u8, shown: &mut Vec<u8>) -> State {
    let (left, least) = match byte {
        0x07..=0x0d | 0x20..=0x7e => (0, 0),
        0xc2 => return State::Latin,
        0xc3..=0xdf => (1, 0x80),
        0xe0 => (2, 0xa0),
        0xe1..=0xef => (2, 0x80),
        0xf0 => (3, 0x90),
        0xf1..=0xf4 => (3, 0x80),
        // terminals disagree on these, except for letters of old 8-bit character sets
        0xa0..=0xbf => (0, 0),
        _ => return State::Text,
    };
    shown.push(byte);
    if left > 0 { State::Character { left, least } } else { State::Text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        String::from_utf8(Harmless::default().filter(text.as_bytes())).unwrap()
    }

    #[test]
    fn text_and_colours_pass() {
        for text in [
            "a\r\n\tb\u{8}",
            "\x1b[1;31mred\x1b[0m",
            "\x1b[2J\x1b[H\x1b[10;20H\x1b[K\x1b7\x1b8",
            "Üñ ©£ 日本 \u{1f600}",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn nothing_makes_a_terminal_answer_or_sets_anything() {
        let harmful = [
            // answers: status, cursor, attributes, version, modes, checksum, ENQ, DECRQSS, termcap, colours
            "\x1b[5n",
            "\x1b[6n",
            "\x1b[c",
            "\x1b[>c",
            "\x1b[>q",
            "\x1b[?25$p",
            "\x1b[1*y",
            "\x05",
            "\x1bP$qm\x1b\\",
            "\x1bP+q544e\x1b\\",
            "\x1b]10;?\x07",
            "\x1b[x",
            "\x1bZ",
            // title, clipboard, size, mouse, other screen, keys, reset, character sets
            "\x1b]0;title\x07",
            "\x1b]52;c;ZXZpbA==\x1b\\",
            "\x1b[8;1;1t",
            "\x1b[21t",
            "\x1b[?1000h",
            "\x1b[?1049h",
            "\x1b[?2004h",
            "\x1b[4h",
            "\x1bc",
            "\x1b(0",
            "\x0e",
            "\x1b_apc\x1b\\",
            "\x1b^pm\x1b\\",
            "\x1bXsos\x1b\\",
            // the same as C1 control characters
            "\u{9b}6n",
            "\u{9d}52;c;ZXZpbA==\u{9c}",
            "\u{90}$qm\u{9c}",
            "\u{9f}apc\u{9c}",
        ];
        for sequence in harmful {
            assert_eq!(shown(&format!("a{sequence}b")), "ab", "{sequence:?}");
        }
        let endless = format!("\x1b[{}m", "1;".repeat(LONGEST));
        assert_eq!(shown(&format!("a{endless}b")), "ab");
    }

    #[test]
    fn modes_pass_for_a_console_that_goes_on() {
        let with_modes =
            |text: &str| String::from_utf8(Harmless::with_modes().filter(text.as_bytes())).unwrap();
        for text in [
            "\x1b[?1049h\x1b[?1h\x1b=",
            "\x1b[?2004l\x1b>",
            "\x1b[4h\x1b[1;24r",
            "\x1b(0\x0e\x0f\x1b(B",
            "\x1b[1;31mred",
        ] {
            assert_eq!(with_modes(text), text);
        }
        // nothing that is answered, such as the state of a mode
        for query in [
            "\x1b[6n",
            "\x1b[?6n",
            "\x1b[c",
            "\x1b[>c",
            "\x1b[?25$p",
            "\x1b[?u",
            "\x1b[18t",
            "\x1b]11;?\x07",
            "\x05",
        ] {
            assert_eq!(with_modes(&format!("a{query}b")), "ab", "{query:?}");
        }
    }

    #[test]
    fn a_string_without_an_end_hides_no_more_than_its_line() {
        assert_eq!(shown("a\x1b]0;title\nnext"), "a\nnext");
    }

    #[test]
    fn eight_bit_controls_do_not_pass() {
        assert_eq!(Harmless::default().filter(b"a\x9b6n\xe0\x82\x9b6n"), b"a6n\xe06n");
    }

    proptest! {
        #[test]
        fn pieces_are_filtered_as_the_whole(bytes: Vec<u8>, size in 1_usize..5) {
            let whole = Harmless::default().filter(&bytes);
            let mut filter = Harmless::default();
            let pieces: Vec<u8> = bytes.chunks(size).flat_map(|piece| filter.filter(piece)).collect();
            prop_assert_eq!(&pieces, &whole);
            // filtered output passes unchanged
            prop_assert_eq!(Harmless::default().filter(&whole), whole);
        }
    }
}
