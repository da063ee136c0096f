//! Makes characters visible that would control a terminal, forge a line of a message or table, or change the order of displayed
//! text.
//!
//! Names of files, guests, images and devices may contain anything, and so may the answers of QEMU and a guest agent.
//! [`super::output`] is the only module that prints, and passes all text for people through here.

use std::fmt::Write as _;

/// Text for one line or one cell of a table: newlines and tabs are made visible, too.
pub(super) fn line(text: &str) -> String {
    shown(text, |_| false)
}

/// Text of several lines.
pub(super) fn lines(text: &str) -> String {
    shown(text, |letter| matches!(letter, '\n' | '\t'))
}

/// A message: its second and later lines are indented, so that none of them can look like a message or hint of its own.
pub(super) fn message(text: &str) -> String {
    let mut message = String::with_capacity(text.len());
    for (number, line) in lines(text).split('\n').enumerate() {
        if number > 0 {
            message.push_str(if line.starts_with(' ') { "\n" } else { "\n  " });
        }
        message.push_str(line);
    }
    message
}

/// JSON text with the same value in ASCII: other characters occur only in strings, which can contain escapes.
pub(super) fn json(text: &str) -> String {
    replaced(text, |letter, shown| {
        // serde_json has escaped the control characters below U+0020 already
        if letter < ' ' || !steers(letter) {
            return false;
        }
        for unit in letter.encode_utf16(&mut [0; 2]) {
            let _ = write!(shown, "\\u{unit:04x}");
        }
        true
    })
}

fn shown(text: &str, stays: impl Fn(char) -> bool) -> String {
    replaced(text, |letter, shown| {
        if stays(letter) || !steers(letter) {
            return false;
        }
        match letter {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            other => shown.extend(other.escape_unicode()),
        }
        true
    })
}

fn replaced(text: &str, replace: impl Fn(char, &mut String) -> bool) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, letter| {
        if !replace(letter, &mut shown) {
            shown.push(letter);
        }
        shown
    })
}

/// Control characters (C0, DEL, C1), line and paragraph separators, marks that change the direction of text (UAX #9), and tags,
/// which are invisible.
fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{2028}' | '\u{2029}'
            | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_steers_is_shown_and_the_rest_is_as_it_was() {
        assert_eq!(line("plain: Ünïcödé 日本 \u{1f600} \\"), "plain: Ünïcödé 日本 \u{1f600} \\");
        assert_eq!(line("\u{1b}]52;c;eA\u{7}"), "\\u{1b}]52;c;eA\\u{7}");
        assert_eq!(line("a\nb\tc\rd\u{9b}e\u{7f}"), "a\\nb\\tc\\rd\\u{9b}e\\u{7f}");
        assert_eq!(lines("a\nb\tc\r"), "a\nb\tc\\r");
        assert_eq!(line("gnp.\u{202e}exe"), "gnp.\\u{202e}exe");
    }

    #[test]
    fn no_line_of_a_message_passes_for_another() {
        assert_eq!(message("x\nhint: rm -rf\n  indented"), "x\n  hint: rm -rf\n  indented");
    }

    proptest! {
        #[test]
        fn json_means_what_it_meant(text: String) {
            let value = serde_json::json!({ "text": format!("{text}\u{9b}\u{202e}\u{e0041}") });
            let shown = json(&value.to_string());
            prop_assert!(!shown.chars().any(steers), "{}", shown);
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }

        #[test]
        fn nothing_that_steers_is_left(text: String) {
            prop_assert!(!line(&text).chars().any(steers));
            prop_assert!(!lines(&text).chars().any(|letter| steers(letter) && letter != '\n' && letter != '\t'));
        }
    }
}
