//! The comma grammar of `--disk`, `--device` and `--virtiofs`: elements with commas between them, most of them
//! `key=value`; a literal comma is typed twice, as in QEMU (`get_opt_value` in its `util/qemu-option.c`).
//! Works on bytes, since paths need not be UTF-8.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use thiserror::Error;

use super::words::UnknownWord;

/// Why a list of options is refused, whatever the options are for.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum OptionError {
    /// An element has no characters.
    #[error("an option is empty (one comma too many? a literal comma is typed twice)")]
    Empty,
    /// No such option.
    #[error(transparent)]
    Unknown(#[from] UnknownWord),
    /// No such option, but it has no `=` either: perhaps a path was cut at its comma.
    #[error("{0}; a literal comma is typed twice")]
    UnknownBare(UnknownWord),
    /// No such option, but it is the first element: perhaps a path with `=` in it.
    #[error("{unknown}; for a path with '=' in it write {main}=PATH")]
    UnknownFirst {
        /// What was typed.
        unknown: UnknownWord,
        /// The option that takes the path.
        main: &'static str,
    },
    /// An option is there twice.
    #[error("option '{0}' is given twice")]
    Duplicate(String),
    /// An option stands without `=value`.
    #[error("option '{0}' needs a value: {0}=…")]
    NoValue(String),
    /// A value that must be text is not.
    #[error("the value of option '{0}' is not UTF-8")]
    NotUtf8(String),
    /// A path has no characters.
    #[error("the path is empty")]
    EmptyPath,
    /// No file can have such a name.
    #[error("the path has a NUL byte in it")]
    NulInPath,
}

/// Cuts at single commas and makes one comma of each double one.
pub(super) fn split(text: &OsStr) -> Vec<OsString> {
    let mut elements = Vec::new();
    let mut element = Vec::new();
    let mut bytes = text.as_bytes().iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b',' && bytes.next_if_eq(&b',').is_none() {
            elements.push(OsString::from_vec(std::mem::take(&mut element)));
        } else {
            element.push(byte);
        }
    }
    elements.push(OsString::from_vec(element));
    elements
}

/// [`split`] for what is UTF-8 as a whole; its parts then are as well, since a comma is never part of another character.
pub(super) fn split_text(text: &str) -> Vec<String> {
    split(text.as_ref()).into_iter().map(|element| element.to_string_lossy().into_owned()).collect()
}

/// Doubles the commas: what [`split`] turns back.
fn escape(value: &OsStr) -> OsString {
    OsString::from_vec(value.as_bytes().split(|byte| *byte == b',').collect::<Vec<_>>().join(&b",,"[..]))
}

/// Cuts at the first `=`.
fn pair(element: &OsStr) -> (&OsStr, Option<&OsStr>) {
    let bytes = element.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (OsStr::from_bytes(&bytes[..at]), Some(OsStr::from_bytes(&bytes[at + 1..]))),
        None => (element, None),
    }
}

/// One option as read: its name, and its value if it had one.
pub(super) type Read = (&'static str, Option<OsString>);

/// Reads a list whose first element may be the value of the option `main` alone. Each name is one of `known` and there once.
pub(super) fn read(
    text: &OsStr,
    main: &'static str,
    known: &'static [&'static str],
) -> Result<Vec<Read>, OptionError> {
    let mut options: Vec<Read> = Vec::new();
    for (position, element) in split(text).into_iter().enumerate() {
        let (name, value) = pair(&element);
        let option = match known.iter().find(|known| name == **known) {
            Some(name) if value.is_some() || position > 0 => (*name, value.map(OsStr::to_owned)),
            _ if position == 0 && (value.is_none() || looks_like_path(name)) => (main, Some(element)),
            _ => {
                let unknown = UnknownWord::new("option", &name.to_string_lossy(), known);
                return Err(match value {
                    _ if element.is_empty() => OptionError::Empty,
                    _ if position == 0 => OptionError::UnknownFirst { unknown, main },
                    Some(_) => OptionError::Unknown(unknown),
                    None => OptionError::UnknownBare(unknown),
                });
            }
        };
        if options.iter().any(|(name, _)| *name == option.0) {
            return Err(OptionError::Duplicate(option.0.to_owned()));
        }
        options.push(option);
    }
    Ok(options)
}

/// Whether what stands before a `=` is rather the beginning of a path than the name of an option.
fn looks_like_path(name: &OsStr) -> bool {
    name.as_bytes().contains(&b'/') || name.as_bytes().starts_with(b".")
}

/// The value of an option that must be text.
pub(super) fn text<'a>(name: &str, value: Option<&'a OsStr>) -> Result<&'a str, OptionError> {
    let value = value.ok_or_else(|| OptionError::NoValue(name.to_owned()))?;
    value.to_str().ok_or_else(|| OptionError::NotUtf8(name.to_owned()))
}

/// The value of an option that is a path.
pub(super) fn path(name: &str, value: Option<OsString>) -> Result<PathBuf, OptionError> {
    let path = value.ok_or_else(|| OptionError::NoValue(name.to_owned()))?;
    if path.is_empty() {
        return Err(OptionError::EmptyPath);
    }
    if path.as_bytes().contains(&0) {
        return Err(OptionError::NulInPath);
    }
    Ok(path.into())
}

/// Writes a list that [`read`] reads: `path` first, alone where that is not ambiguous.
pub(super) struct Writer(OsString);

impl Writer {
    /// Starts the list with the value of the option `main`, if it has one.
    pub(super) fn new(main: &str, path: Option<&OsStr>) -> Self {
        let mut writer = Self(OsString::new());
        match path {
            Some(path) if path.is_empty() || path.as_bytes().contains(&b'=') => writer.add(main, path),
            Some(path) => writer.0 = escape(path),
            None => {}
        }
        writer
    }

    /// Adds an option.
    pub(super) fn add(&mut self, name: &str, value: impl AsRef<OsStr>) {
        if !self.0.is_empty() {
            self.0.push(",");
        }
        self.0.push(name);
        self.0.push("=");
        self.0.push(escape(value.as_ref()));
    }

    /// The list.
    pub(super) fn finish(self) -> OsString {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn splits_at_single_commas() {
        let split = |text: &str| split(text.as_ref()).join("|".as_ref()).into_string().unwrap();
        assert_eq!(split("a,b=c"), "a|b=c");
        assert_eq!(split("a,,b"), "a,b");
        // from the left, as QEMU does
        assert_eq!(split("a,,,b"), "a,|b");
        assert_eq!(split("a,"), "a|");
        assert_eq!(split(""), "");
    }

    #[test]
    fn reads_the_first_element_as_path_or_option() {
        let known: &[&str] = &["file", "tag"];
        let read = |text: &str| read(text.as_ref(), "file", known);
        let file = |path: &str| Ok(vec![("file", Some(path.into()))]);
        assert_eq!(read("tag"), file("tag"));
        assert_eq!(read("./tag=1"), file("./tag=1"));
        assert_eq!(read("a/b=c"), file("a/b=c"));
        assert_eq!(read("file=tag=x"), file("tag=x"));
        assert_eq!(read("tag=x"), Ok(vec![("tag", Some("x".into()))]));
        assert_eq!(read("x,tag"), Ok(vec![("file", Some("x".into())), ("tag", None)]));
    }

    proptest! {
        #[test]
        fn what_was_escaped_is_one_element(bytes in prop::collection::vec(prop_oneof![Just(b','), any::<u8>()], 0..20)) {
            let value = OsString::from_vec(bytes);
            prop_assert_eq!(split(&escape(&value)), vec![value]);
        }
    }
}
