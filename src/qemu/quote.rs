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
