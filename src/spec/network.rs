//! Networking modes: `default|user|bridge,NAME|tap,NAME|none`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::text::text_type;
use super::words::UnknownWord;

/// A Linux network interface's name: 1 to 15 bytes, no `/`, no white space, not `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

/// Why a text is not an interface's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InterfaceNameError {
    /// Empty, too long, or with a character that Linux does not allow (`dev_valid_name`).
    #[error("'{0}' is not a network interface's name (1 to 15 bytes, without '/', ':' and white space)")]
    Invalid(String),
}

impl FromStr for InterfaceName {
    type Err = InterfaceNameError;

    fn from_str(text: &str) -> Result<Self, InterfaceNameError> {
        let bad = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
        // one that begins with a comma could not be distinguished from the comma before it
        let bad_start = text.starts_with(',');
        if text.is_empty()
            || bad_start
            || text.len() > 15
            || text == "."
            || text == ".."
            || text.contains(bad)
        {
            return Err(InterfaceNameError::Invalid(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

text_type!(InterfaceName, InterfaceNameError);

/// The modes.
pub(super) const KNOWN: &[&str] = &["default", "user", "bridge", "tap", "none"];

/// How the VM is networked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "mode", content = "interface")]
pub enum Networking {
    /// QEMU's own user-mode stack; also `default`. The only one with forwards.
    #[default]
    User,
    /// A bridge, through QEMU's bridge helper.
    Bridge(InterfaceName),
    /// A tap device that exists already.
    Tap(InterfaceName),
    /// No network card.
    None,
}

/// Why a text is not a networking mode.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NetworkingError {
    /// `bridge` or `tap` alone.
    #[error("{0} networking needs a name: {0},NAME")]
    NoName(&'static str),
    /// A name where none belongs.
    #[error("{0} networking takes no name")]
    UnwantedName(String),
    /// The name cannot be that of an interface.
    #[error(transparent)]
    Name(#[from] InterfaceNameError),
    /// No such mode.
    #[error(transparent)]
    Unknown(#[from] UnknownWord),
}

impl FromStr for Networking {
    type Err = NetworkingError;

    fn from_str(text: &str) -> Result<Self, NetworkingError> {
        let (mode, name) = text.split_once(',').map_or((text, None), |(mode, name)| (mode, Some(name)));
        let named = |mode| match name {
            None | Some("") => Err(NetworkingError::NoName(mode)),
            Some(name) => Ok(name.parse::<InterfaceName>()?),
        };
        match mode {
            "bridge" => named("bridge").map(Self::Bridge),
            "tap" => named("tap").map(Self::Tap),
            "default" | "user" | "none" if name.is_some() => {
                Err(NetworkingError::UnwantedName(mode.to_owned()))
            }
            "default" | "user" => Ok(Self::User),
            "none" => Ok(Self::None),
            _ => Err(UnknownWord::new("networking mode", mode, KNOWN).into()),
        }
    }
}

impl fmt::Display for Networking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.pad("user"),
            Self::Bridge(name) => f.pad(&format!("bridge,{name}")),
            Self::Tap(name) => f.pad(&format!("tap,{name}")),
            Self::None => f.pad("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_each_mode() {
        assert_eq!("default".parse(), Ok(Networking::User));
        for text in ["user", "bridge,br0", "tap,tap-1", "none"] {
            assert_eq!(text.parse::<Networking>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        const LIST: &str = "(known: default, user, bridge, tap, none)";
        for (text, message) in [
            ("bridge", "bridge networking needs a name: bridge,NAME".into()),
            ("bridge,", "bridge networking needs a name: bridge,NAME".into()),
            ("tap", "tap networking needs a name: tap,NAME".into()),
            ("user,br0", "user networking takes no name".into()),
            ("none,", "none networking takes no name".into()),
            ("", format!("unknown networking mode '' {LIST}")),
            ("brige,br0", format!("unknown networking mode 'brige', did you mean 'bridge'? {LIST}")),
            ("nat", format!("unknown networking mode 'nat', did you mean 'user'? {LIST}")),
            (
                "tap,a b",
                "'a b' is not a network interface's name (1 to 15 bytes, without '/', ':' and white space)"
                    .into(),
            ),
        ] {
            assert_eq!(text.parse::<Networking>().unwrap_err().to_string(), message, "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(name in "[a-z][a-z0-9.,_-]{0,14}") {
            let name: InterfaceName = name.parse().unwrap();
            for mode in [Networking::Bridge(name.clone()), Networking::Tap(name)] {
                prop_assert_eq!(mode.to_string().parse(), Ok(mode));
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<Networking>();
            let _ = format!("tap,{text}").parse::<Networking>();
        }
    }
}
