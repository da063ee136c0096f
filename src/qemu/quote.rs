//! A command line as text that a shell reads back, for `--dry-run`.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use shlex::bytes::Quoter;

/// The command quoted for a POSIX shell, one option with its value on a line; every byte survives. Ends with a newline.
pub fn shell(program: &OsStr, arguments: &[OsString]) -> Vec<u8> {
    let mut text = quoted(program).into_owned();
    let mut previous_is_option = false;
    for argument in arguments {
        let is_option = argument.as_bytes().starts_with(b"-");
        let is_value = previous_is_option && !is_option;
        text.extend_from_slice(if is_value { b" " } else { b" \\\n    " });
        text.extend_from_slice(&quoted(argument));
        previous_is_option = is_option;
    }
    text.push(b'\n');
    text
}

/// One word for people to read and to type: quoted for a shell where it must be, with everything that a terminal could act on, and
/// what is not UTF-8, in the notation of `$'…'`.
pub fn word(argument: &OsStr) -> String {
    // besides controls: what turns the direction of the text around it
    let acts = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let is_plain = |text: &&str| !text.contains(acts);
    match argument.to_str().filter(is_plain) {
        Some(text) => String::from_utf8_lossy(&quoted(OsStr::new(text))).into_owned(),
        None => {
            let mut text = String::from("$'");
            for byte in argument.as_bytes() {
                match byte {
                    b'\'' | b'\\' => text.extend(['\\', char::from(*byte)]),
                    b' '..=b'~' => text.push(char::from(*byte)),
                    _ => text.push_str(&format!("\\x{byte:02x}")),
                }
            }
            text.push('\'');
            text
        }
    }
}

/// One word for a POSIX shell to read back.
pub fn posix(word: &str) -> String {
    String::from_utf8_lossy(&quoted(OsStr::new(word))).into_owned()
}

fn quoted(argument: &OsStr) -> Cow<'_, [u8]> {
    let bytes = argument.as_bytes();
    // the only refusal is a NUL byte, which no argument of a process can have
    Quoter::new().allow_nul(true).quote(bytes).unwrap_or(Cow::Borrowed(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_option_a_line() {
        let arguments = ["-S", "-name", "guest=a b", "-device", r#"{"id":"x"}"#].map(OsString::from);
        let text = shell(OsStr::new("/usr/bin/qemu-system-x86_64"), &arguments);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "/usr/bin/qemu-system-x86_64 \\\n    -S \\\n    -name 'guest=a b' \\\n    -device '{\"id\":\"x\"}'\n"
        );
    }

    #[test]
    fn a_word_is_shown_and_does_nothing() {
        let word = |text: &[u8]| word(OsStr::from_bytes(text));
        assert_eq!(word(b"/images/a"), "/images/a");
        assert_eq!(word(b"a b"), "'a b'");
        assert_eq!(word(b"\x1b]52;c;eA==\x07'\n"), r"$'\x1b]52;c;eA==\x07\'\x0a'");
        assert_eq!(word(b"\xff"), r"$'\xff'");
        assert_eq!(word("\u{9b}2J".as_bytes()), r"$'\xc2\x9b2J'");
    }

    proptest! {
        #[test]
        fn every_byte_survives(words in prop::collection::vec(prop::collection::vec(1u8.., 0..12), 0..8)) {
            // word by word: this parser, unlike a shell, takes a continued line for a word
            for word in words {
                let argument = OsString::from_vec(word.clone());
                prop_assert_eq!(shlex::bytes::split(&quoted(&argument)), Some(vec![word]));
            }
        }
    }
}
