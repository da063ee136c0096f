//! Keys to press in a VM: combinations such as `ctrl-alt-delete`, in QEMU's names, and text on a US keyboard.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::words::UnknownWord;

/// QEMU's names (`QKeyCode` in its `ui.json`).
const KEYS: &[&str] = &[
    "shift",
    "shift_r",
    "alt",
    "alt_r",
    "ctrl",
    "ctrl_r",
    "menu",
    "esc",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "0",
    "minus",
    "equal",
    "backspace",
    "tab",
    "q",
    "w",
    "e",
    "r",
    "t",
    "y",
    "u",
    "i",
    "o",
    "p",
    "bracket_left",
    "bracket_right",
    "ret",
    "a",
    "s",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "semicolon",
    "apostrophe",
    "grave_accent",
    "backslash",
    "z",
    "x",
    "c",
    "v",
    "b",
    "n",
    "m",
    "comma",
    "dot",
    "slash",
    "asterisk",
    "spc",
    "caps_lock",
    "f1",
    "f2",
    "f3",
    "f4",
    "f5",
    "f6",
    "f7",
    "f8",
    "f9",
    "f10",
    "num_lock",
    "scroll_lock",
    "kp_divide",
    "kp_multiply",
    "kp_subtract",
    "kp_add",
    "kp_enter",
    "kp_decimal",
    "sysrq",
    "kp_0",
    "kp_1",
    "kp_2",
    "kp_3",
    "kp_4",
    "kp_5",
    "kp_6",
    "kp_7",
    "kp_8",
    "kp_9",
    "less",
    "f11",
    "f12",
    "print",
    "home",
    "pgup",
    "pgdn",
    "end",
    "left",
    "up",
    "down",
    "right",
    "insert",
    "delete",
    "stop",
    "again",
    "props",
    "undo",
    "front",
    "copy",
    "open",
    "paste",
    "find",
    "cut",
    "lf",
    "help",
    "meta_l",
    "meta_r",
    "compose",
    "pause",
    "ro",
    "hiragana",
    "henkan",
    "yen",
    "muhenkan",
    "katakanahiragana",
    "kp_comma",
    "kp_equals",
    "power",
    "sleep",
    "wake",
    "audionext",
    "audioprev",
    "audiostop",
    "audioplay",
    "audiomute",
    "volumeup",
    "volumedown",
    "mediaselect",
    "mail",
    "calculator",
    "computer",
    "ac_home",
    "ac_back",
    "ac_forward",
    "ac_refresh",
    "ac_bookmarks",
    "lang1",
    "lang2",
];

/// What people call some of them.
const ALIASES: &[(&str, &str)] = &[
    ("enter", "ret"),
    ("return", "ret"),
    ("space", "spc"),
    ("escape", "esc"),
    ("del", "delete"),
    ("ins", "insert"),
    ("control", "ctrl"),
    ("super", "meta_l"),
    ("win", "meta_l"),
    ("meta", "meta_l"),
    ("pageup", "pgup"),
    ("pagedown", "pgdn"),
    ("altgr", "alt_r"),
    ("period", "dot"),
];

/// Keys without and with shift, on a US keyboard.
const SYMBOLS: &[(char, char, &str)] = &[
    ('1', '!', "1"),
    ('2', '@', "2"),
    ('3', '#', "3"),
    ('4', '$', "4"),
    ('5', '%', "5"),
    ('6', '^', "6"),
    ('7', '&', "7"),
    ('8', '*', "8"),
    ('9', '(', "9"),
    ('0', ')', "0"),
    ('-', '_', "minus"),
    ('=', '+', "equal"),
    ('[', '{', "bracket_left"),
    (']', '}', "bracket_right"),
    (';', ':', "semicolon"),
    ('\'', '"', "apostrophe"),
    ('`', '~', "grave_accent"),
    ('\\', '|', "backslash"),
    (',', '<', "comma"),
    ('.', '>', "dot"),
    ('/', '?', "slash"),
];

/// Why keys cannot be pressed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Nothing between the hyphens.
    #[error("'{0}' is not a key or a combination such as ctrl-alt-delete")]
    Empty(String),
    /// No such key.
    #[error("{}", shortly(.0))]
    Unknown(UnknownWord),
    /// Not on this keyboard.
    #[error("not on a US keyboard: {0}")]
    Untypable(String),
}

/// There are too many keys to name them all.
fn shortly(word: &UnknownWord) -> String {
    let guess = word.nearest().map(|near| format!(", did you mean '{near}'?")).unwrap_or_default();
    format!("unknown key '{}'{guess}", word.typed)
}

/// Keys that are pressed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCombo(Vec<&'static str>);

impl KeyCombo {
    /// QEMU's names, in the order in which they are pressed.
    pub fn keys(&self) -> &[&'static str] {
        &self.0
    }

    /// What has to be pressed for a text on a US keyboard.
    ///
    /// # Errors
    /// `Untypable` names the characters that are not on it.
    pub fn typing(text: &str) -> Result<Vec<Self>, KeyError> {
        let mut missing: Vec<String> = Vec::new();
        let mut combos = Vec::new();
        for character in text.chars() {
            match Self::of(character) {
                Some(combo) => combos.push(combo),
                None => {
                    let shown = format!("{character:?}");
                    if !missing.contains(&shown) {
                        missing.push(shown);
                    }
                }
            }
        }
        if missing.is_empty() { Ok(combos) } else { Err(KeyError::Untypable(missing.join(", "))) }
    }

    fn of(character: char) -> Option<Self> {
        let key = |name: &str| KEYS.iter().find(|key| **key == name).copied();
        let symbol = || SYMBOLS.iter().find(|(plain, shifted, _)| [*plain, *shifted].contains(&character));
        let (name, shift) = match character {
            '\n' => ("ret".to_owned(), false),
            '\t' => ("tab".to_owned(), false),
            ' ' => ("spc".to_owned(), false),
            letter if letter.is_ascii_alphabetic() => {
                (letter.to_ascii_lowercase().to_string(), letter.is_ascii_uppercase())
            }
            _ => symbol().map(|(plain, _, name)| ((*name).to_owned(), *plain != character))?,
        };
        let key = key(&name)?;
        Some(Self(if shift { vec!["shift", key] } else { vec![key] }))
    }
}

impl FromStr for KeyCombo {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let keys: Result<Vec<&'static str>, KeyError> = text
            .split('-')
            .map(|typed| {
                let name = typed.to_ascii_lowercase().replace(' ', "_");
                let name =
                    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name.as_str(), |(_, key)| key);
                match KEYS.iter().find(|key| **key == name) {
                    Some(key) => Ok(*key),
                    None if typed.is_empty() => Err(KeyError::Empty(text.to_owned())),
                    None => Err(KeyError::Unknown(UnknownWord::new("key", typed, KEYS))),
                }
            })
            .collect();
        keys.map(Self)
    }
}

impl fmt::Display for KeyCombo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> String {
        let combos = KeyCombo::typing(text).unwrap();
        combos.iter().map(KeyCombo::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn combinations_and_their_other_names() {
        let combo: KeyCombo = "Ctrl-Alt-Del".parse().unwrap();
        assert_eq!(combo.to_string(), "ctrl-alt-delete");
        assert_eq!(combo.to_string().parse(), Ok(combo));
        assert_eq!("enter".parse::<KeyCombo>().unwrap().keys(), ["ret"]);
    }

    #[test]
    fn every_alias_and_symbol_is_a_key() {
        for key in ALIASES.iter().map(|(_, key)| key).chain(SYMBOLS.iter().map(|(_, _, key)| key)) {
            assert!(KEYS.contains(key), "{key}");
        }
    }

    #[test]
    fn bad_ones_are_named() {
        let told = |text: &str| text.parse::<KeyCombo>().unwrap_err().to_string();
        assert_eq!(told("ctrl-delte"), "unknown key 'delte', did you mean 'delete'?");
        assert!(told("ctrl-").contains("ctrl-alt-delete"));
        assert!(told("").contains("not a key"));
    }

    #[test]
    fn text_on_a_us_keyboard() {
        assert_eq!(typed("aB 1!\n"), "a shift-b spc 1 shift-1 ret");
        let every: String = (' '..='~').collect();
        assert_eq!(KeyCombo::typing(&every).unwrap().len(), 95);
        let error = KeyCombo::typing("aäbß€ä").unwrap_err().to_string();
        assert_eq!(error, "not on a US keyboard: 'ä', 'ß', '€'");
    }
}
