//! Networking modes: `default|user[,net=…][,dns=…][,hostname=…][,restrict=on]|bridge,NAME|tap,NAME|none`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::options::{OptionError, split_text};
use super::text::text_type;
use super::user_net::{UserNet, UserNetError};
use super::words::UnknownWord;

/// A Linux network interface's name: 1 to 15 bytes, no `/`, no white space, not `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

/// Why a text is not an interface's name.
#[derive(Clone, PartialEq, Eq, Error)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Networking {
    /// QEMU's own user-mode stack; also `default`. The only one with forwards.
    User(UserNet),
    /// A bridge, through QEMU's bridge helper.
    Bridge(InterfaceName),
    /// A tap device that exists already.
    Tap(InterfaceName),
    /// No network card.
    None,
}

/// How it stands in JSON: the mode, and beside it what belongs to it.
#[derive(Serialize, Deserialize)]
struct Written {
    mode: Mode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interface: Option<InterfaceName>,
    #[serde(flatten)]
    user: UserNet,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    User,
    Bridge,
    Tap,
    None,
}

impl From<Networking> for Written {
    fn from(networking: Networking) -> Self {
        let plain = |mode, interface| Self { mode, interface, user: UserNet::default() };
        match networking {
            Networking::User(user) => Self { user, ..plain(Mode::User, None) },
            Networking::Bridge(name) => plain(Mode::Bridge, Some(name)),
            Networking::Tap(name) => plain(Mode::Tap, Some(name)),
            Networking::None => plain(Mode::None, None),
        }
    }
}

impl TryFrom<Written> for Networking {
    type Error = NetworkingError;

    fn try_from(written: Written) -> Result<Self, NetworkingError> {
        let Written { mode, interface, user } = written;
        match (mode, interface) {
            (Mode::User, _) => user.check().map(|()| Self::User(user)).map_err(Into::into),
            (Mode::Bridge, Some(name)) => Ok(Self::Bridge(name)),
            (Mode::Tap, Some(name)) => Ok(Self::Tap(name)),
            (Mode::Bridge, None) => Err(NetworkingError::NoName("bridge")),
            (Mode::Tap, None) => Err(NetworkingError::NoName("tap")),
            (Mode::None, _) => Ok(Self::None),
        }
    }
}

impl Default for Networking {
    fn default() -> Self {
        Self::User(UserNet::default())
    }
}

impl Networking {
    /// What is said of user networking, if it is that.
    pub fn user(&self) -> Option<&UserNet> {
        match self {
            Self::User(user) => Some(user),
            Self::Bridge(_) | Self::Tap(_) | Self::None => None,
        }
    }

    /// Whether it is user networking, of whatever network.
    pub fn is_user(&self) -> bool {
        self.user().is_some()
    }

    /// The same as text without the options of user networking: `user`, `tap,NAME`, `bridge,NAME` or `none`.
    pub fn without_options(&self) -> String {
        match self {
            Self::User(_) => "user".to_owned(),
            other => other.to_string(),
        }
    }
}

/// Why a text is not a networking mode.
#[derive(Clone, PartialEq, Eq, Error)]
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
    /// Not a list of options.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// What is said of user networking makes no sense.
    #[error(transparent)]
    User(#[from] UserNetError),
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
            "none" if name.is_some() => Err(NetworkingError::UnwantedName(mode.to_owned())),
            "default" | "user" => user_net(mode, name).map(Self::User),
            "none" => Ok(Self::None),
            _ => Err(UnknownWord::new("networking mode", mode, KNOWN).into()),
        }
    }
}

/// The options behind `user`.
fn user_net(mode: &str, text: Option<&str>) -> Result<UserNet, NetworkingError> {
    let mut user = UserNet::default();
    let elements = text.map(split_text).unwrap_or_default();
    let mut seen: Vec<&str> = Vec::new();
    for element in &elements {
        let Some((name, value)) = element.split_once('=') else {
            return Err(match UserNet::NAMES.contains(&element.as_str()) {
                true => OptionError::NoValue(element.clone()).into(),
                false => NetworkingError::UnwantedName(mode.to_owned()),
            });
        };
        if !UserNet::NAMES.contains(&name) {
            return Err(OptionError::Unknown(UnknownWord::new("option", name, UserNet::NAMES)).into());
        }
        if seen.contains(&name) {
            return Err(OptionError::Duplicate(name.to_owned()).into());
        }
        seen.push(name);
        user.set(name, value)?;
    }
    user.check()?;
    Ok(user)
}

impl fmt::Display for Networking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => {
                let options = user.said().into_iter().map(|(name, value)| format!(",{name}={value}"));
                f.pad(&format!("user{}", options.collect::<String>()))
            }
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
        assert_eq!("default".parse(), Ok(Networking::default()));
        let text = "user,net=10.0.3.0/24,dns=10.0.3.4,hostname=box,restrict=on";
        let networking: Networking = text.parse().unwrap();
        assert_eq!((networking.without_options(), networking.is_user()), ("user".to_owned(), true));
        assert_eq!("user,restrict=off".parse(), Ok(Networking::default()));
        for text in [text, "user", "user,dns=10.0.2.9", "bridge,br0", "tap,tap-1", "none"] {
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
            ("user,", "user networking takes no name".into()),
            ("user,net", "option 'net' needs a value: net=…".into()),
            (
                "user,nett=10.0.3.0/24",
                "unknown option 'nett', did you mean 'net'? (known: net, dns, hostname, restrict)".into(),
            ),
            ("user,net=10.0.3.0/24,net=10.0.4.0/24", "option 'net' is given twice".into()),
            ("user,net=10.0.3.7/24", "10.0.3.7/24 is an address in a network: the network is 10.0.3.0/24".into()),
            ("user,dns=dns", "dns 'dns' is not an IPv4 address".into()),
            (
                "user,net=10.0.3.0/24,dns=10.0.2.3",
                "dns=10.0.2.3 is not in the network, 10.0.3.0/24: it is an address for the guest, behind which QEMU asks the host's \
                 name server"
                    .into(),
            ),
            ("user,net=10.0.3.0/24,dns=10.0.3.2", "dns=10.0.3.2 is the host's address in 10.0.3.0/24".into()),
            ("user,net=10.0.3.0/24,dns=10.0.3.15", "dns=10.0.3.15 is the guest's address in 10.0.3.0/24".into()),
            ("user,hostname=a_b", "'a_b' is not a host's name (1 to 32 letters, digits, '-' and '.')".into()),
            ("user,restrict=yes", "restrict 'yes' must be on or off".into()),
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

    #[test]
    fn json_of_earlier_versions_is_read_and_nothing_is_added_to_it() {
        for (json, text) in [
            (r#"{"mode":"user"}"#, "user"),
            (r#"{"mode":"none"}"#, "none"),
            (r#"{"mode":"tap","interface":"vt0"}"#, "tap,vt0"),
            (r#"{"mode":"bridge","interface":"br0"}"#, "bridge,br0"),
            (r#"{"mode":"user","net":"10.0.3.0/24","restrict":true}"#, "user,net=10.0.3.0/24,restrict=on"),
        ] {
            let networking: Networking = text.parse().unwrap();
            assert_eq!(serde_json::from_str::<Networking>(json).unwrap(), networking);
            assert_eq!(serde_json::to_string(&networking).unwrap(), json);
        }
        for json in [r#"{"mode":"tap"}"#, r#"{"mode":"user","net":"10.0.3.1/24"}"#, r#"{"mode":"x"}"#] {
            assert!(serde_json::from_str::<Networking>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_network_of_its_own_is_found_for_each_card() {
        let user = |text: &str| text.parse::<Networking>().unwrap().user().unwrap().clone();
        let others = [
            ("nic0".to_owned(), user("user").subnet()),
            ("b".to_owned(), user("user,net=10.0.3.0/24").subnet()),
        ];
        let settled = |text: &str| user(text).settled(&others).map(|user| Networking::User(user).to_string());
        assert_eq!(settled("user").unwrap(), "user,net=10.0.4.0/24");
        assert_eq!(user("user").settled(&[]).unwrap(), user("user"));
        assert_eq!(
            settled("user,net=10.0.0.0/16").unwrap_err().to_string(),
            "net=10.0.0.0/16 overlaps 10.0.2.0/24, the network of card 'nic0'"
        );
        assert!(
            settled("user,dns=10.0.2.3").unwrap_err().to_string().contains("not in the network, 10.0.4.0/24")
        );
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
