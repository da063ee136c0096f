//! Keys to press in a VM: combinations such as `ctrl-alt-delete`, in QEMU's names, and text on a US keyboard.

use std::fmt;
use std::str::FromStr;

use qapi::Enum;
use qapi::qmp::QKeyCode;
use thiserror::Error;

use super::words::UnknownWord;

/// QEMU's names. The first one, `unmapped`, is no key.
const KEYS: &[&str] = QKeyCode::NAMES.split_at(1).1;

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

/// The names of all keys, QEMU's and the others.
pub fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().copied().chain(ALIASES.iter().map(|(alias, _)| *alias))
}

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
#[derive(Clone, PartialEq, Eq, Error)]
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
pub struct KeyCombo(Vec<QKeyCode>);

impl KeyCombo {
    /// In the order in which they are pressed.
    pub fn keys(&self) -> &[QKeyCode] {
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
        Some(Self(if shift { vec![QKeyCode::shift, key] } else { vec![key] }))
    }
}

/// The key that QEMU calls so.
fn key(name: &str) -> Option<QKeyCode> {
    QKeyCode::from_name(name).filter(|key| *key != QKeyCode::unmapped)
}

impl FromStr for KeyCombo {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let keys: Result<Vec<QKeyCode>, KeyError> = text
            .split('-')
            .map(|typed| {
                let name = typed.to_ascii_lowercase().replace(' ', "_");
                let name =
                    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name.as_str(), |(_, key)| key);
                match key(name) {
                    Some(key) => Ok(key),
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
        let names: Vec<&str> = self.0.iter().map(Enum::name).collect();
        f.write_str(&names.join("-"))
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
        assert_eq!("enter".parse::<KeyCombo>().unwrap().keys(), [QKeyCode::ret]);
    }

    #[test]
    fn what_is_no_key_is_none() {
        assert!(!KEYS.contains(&"unmapped") && KEYS.len() + 1 == QKeyCode::COUNT);
        assert!("unmapped".parse::<KeyCombo>().is_err());
        assert_eq!("f24".parse::<KeyCombo>().unwrap().keys(), [QKeyCode::f24]);
    }

    #[test]
    fn every_alias_and_symbol_is_a_key() {
        for key in ALIASES.iter().map(|(_, key)| key).chain(SYMBOLS.iter().map(|(_, _, key)| key)) {
            assert!(KEYS.contains(key), "{key}");
        }
    }

    #[test]
    fn bad_ones_are_named() {
        let message = |text: &str| text.parse::<KeyCombo>().unwrap_err().to_string();
        assert_eq!(message("ctrl-delte"), "unknown key 'delte', did you mean 'delete'?");
        assert!(message("ctrl-").contains("ctrl-alt-delete"));
        assert!(message("").contains("not a key"));
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
