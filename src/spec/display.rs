//! What a VM shows, and where: `--display`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::words::UnknownWord;

/// The longest path of a Unix socket (`sockaddr_un`, without its NUL).
const MAX_SOCKET_PATH: usize = 107;
/// VNC's display 0; a display is a number above it.
const VNC_PORT: u16 = 5900;

const KNOWN: &[&str] = &["none", "gui", "headless", "gtk", "sdl", "vnc=…", "spice=…"];

/// What the VM shows (`--display`, `--gui`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Display {
    /// No video device; the serial console only.
    #[default]
    None,
    /// A window of this desktop's usual toolkit (`--gui`).
    Gui,
    /// A video device without a window, for screenshots.
    Headless,
    /// A window of GTK, with options of QEMU's `-display gtk`.
    Gtk(WindowOptions),
    /// A window of SDL, with options of QEMU's `-display sdl`.
    Sdl(WindowOptions),
    /// A VNC server.
    Vnc(Endpoint),
    /// A SPICE server.
    Spice(Endpoint),
}

/// `NAME=VALUE` of QEMU's `-display`, both of lower-case letters, digits, `-` and `.` only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WindowOptions(Vec<(String, String)>);

/// Where a server of pictures listens: nowhere that another machine could reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(String),
    /// A port of 127.0.0.0/8, which every user of this machine can connect to.
    V4(Ipv4Addr, u16),
    /// A port of `::1`.
    V6(u16),
}

/// Why a text is not a display.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum DisplayError {
    /// None that vmrun knows.
    #[error(transparent)]
    Unknown(#[from] UnknownWord),
    /// A server without the address on which it listens.
    #[error("display '{0}' needs a place to listen on: {0}=unix:PATH, or {0}=[ADDR]:NUMBER")]
    NoEndpoint(&'static str),
    /// An address that other machines can reach.
    #[error(
        "display address '{0}' is not this machine alone; possible are unix:PATH, 127.0.0.1 and [::1], to which `ssh -L` leads from elsewhere"
    )]
    Address(String),
    /// No port, or none that there is.
    #[error("display number '{0}' is not a number, or too high")]
    Number(String),
    /// Not the path of a socket.
    #[error(
        "the path of the display's socket must have 1 to {MAX_SOCKET_PATH} bytes and no control characters"
    )]
    Path,
    /// Not an option of a window.
    #[error("display option '{0}' must be NAME=VALUE, such as full-screen=on")]
    Option(String),
    /// `none`, `gui` and `headless` are that and no more.
    #[error("display '{0}' has no options")]
    NoOptions(&'static str),
}

impl Display {
    /// Whether there is a video device, with keyboard and pointer.
    pub fn has_screen(&self) -> bool {
        *self != Self::None
    }

    /// Whether it is a window on this machine's desktop.
    pub fn is_window(&self) -> bool {
        matches!(self, Self::Gui | Self::Gtk(_) | Self::Sdl(_))
    }

    /// The address of a server.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::Vnc(endpoint) | Self::Spice(endpoint) => Some(endpoint),
            _ => None,
        }
    }

    /// The same with the path of its socket as `absolute` gives it.
    pub fn with_socket<E>(self, absolute: impl FnOnce(&str) -> Result<String, E>) -> Result<Self, E> {
        Ok(match self {
            Self::Vnc(Endpoint::Unix(path)) => Self::Vnc(Endpoint::Unix(absolute(&path)?)),
            Self::Spice(Endpoint::Unix(path)) => Self::Spice(Endpoint::Unix(absolute(&path)?)),
            other => other,
        })
    }
}

impl WindowOptions {
    /// As QEMU takes them, a comma before each.
    pub fn as_text(&self) -> String {
        self.0.iter().map(|(name, value)| format!(",{name}={value}")).collect()
    }

    /// Whether one of this name is there.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    fn parse(text: Option<&str>) -> Result<Self, DisplayError> {
        let plain = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|byte| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
                })
        };
        let option = |option: &str| match option.split_once('=') {
            Some((name, value)) if plain(name) && plain(value) => Ok((name.to_owned(), value.to_owned())),
            _ => Err(DisplayError::Option(option.to_owned())),
        };
        text.into_iter().flat_map(|text| text.split(',')).map(option).collect::<Result<_, _>>().map(Self)
    }
}

impl Endpoint {
    /// `base`: what is added to the number that is typed, to make it a port.
    fn parse(text: &str, base: u16) -> Result<Self, DisplayError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(path).map(|()| Self::Unix(path.to_owned()));
        }
        let (address, typed) = text.rsplit_once(':').ok_or_else(|| DisplayError::Number(text.to_owned()))?;
        let number = || DisplayError::Number(typed.to_owned());
        if !typed.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(number());
        }
        let port = typed.parse::<u16>().ok().and_then(|typed| typed.checked_add(base)).ok_or_else(number)?;
        if port == 0 {
            return Err(number());
        }
        let elsewhere = || DisplayError::Address(address.to_owned());
        match address {
            // unlike QEMU, where it is every address of this machine
            "" | "localhost" => Ok(Self::V4(Ipv4Addr::LOCALHOST, port)),
            _ => match address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                Some(six) if six.parse() == Ok(Ipv6Addr::LOCALHOST) => Ok(Self::V6(port)),
                Some(_) => Err(elsewhere()),
                None => match address.parse::<Ipv4Addr>() {
                    Ok(four) if four.is_loopback() => Ok(Self::V4(four, port)),
                    _ => Err(elsewhere()),
                },
            },
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, base: u16) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{path}"),
            Self::V4(address, port) => write!(f, "{address}:{}", port.saturating_sub(base)),
            Self::V6(port) => write!(f, "[::1]:{}", port.saturating_sub(base)),
        }
    }

    /// The number of the VNC display that has this port.
    pub fn vnc_display(port: u16) -> u16 {
        port.saturating_sub(VNC_PORT)
    }
}

fn socket_path(path: &str) -> Result<(), DisplayError> {
    match path.is_empty() || path.len() > MAX_SOCKET_PATH || path.contains(char::is_control) {
        true => Err(DisplayError::Path),
        false => Ok(()),
    }
}

impl FromStr for Display {
    type Err = DisplayError;

    fn from_str(text: &str) -> Result<Self, DisplayError> {
        let address = |kind: &'static str| text.strip_prefix(kind).and_then(|rest| rest.strip_prefix('='));
        if let Some(address) = address("vnc") {
            return Endpoint::parse(address, VNC_PORT).map(Self::Vnc);
        }
        if let Some(address) = address("spice") {
            return Endpoint::parse(address, 0).map(Self::Spice);
        }
        let (kind, options) = text.split_once(',').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        let plain =
            |display, name| if options.is_none() { Ok(display) } else { Err(DisplayError::NoOptions(name)) };
        match kind {
            "none" => plain(Self::None, "none"),
            "gui" => plain(Self::Gui, "gui"),
            "headless" => plain(Self::Headless, "headless"),
            "gtk" => Ok(Self::Gtk(WindowOptions::parse(options)?)),
            "sdl" => Ok(Self::Sdl(WindowOptions::parse(options)?)),
            "vnc" => Err(DisplayError::NoEndpoint("vnc")),
            "spice" => Err(DisplayError::NoEndpoint("spice")),
            _ => Err(UnknownWord::new("display", kind, KNOWN).into()),
        }
    }
}

impl fmt::Display for Display {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Gui => f.write_str("gui"),
            Self::Headless => f.write_str("headless"),
            Self::Gtk(options) => write!(f, "gtk{}", options.as_text()),
            Self::Sdl(options) => write!(f, "sdl{}", options.as_text()),
            Self::Vnc(endpoint) => f.write_str("vnc=").and_then(|()| endpoint.write(f, VNC_PORT)),
            Self::Spice(endpoint) => f.write_str("spice=").and_then(|()| endpoint.write(f, 0)),
        }
    }
}

impl From<Display> for String {
    fn from(display: Display) -> Self {
        display.to_string()
    }
}

impl TryFrom<String> for Display {
    type Error = DisplayError;

    fn try_from(text: String) -> Result<Self, DisplayError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prints_as_it_was_typed_and_in_json_too() {
        for (typed, printed) in [
            ("none", "none"),
            ("gui", "gui"),
            ("headless", "headless"),
            ("gtk", "gtk"),
            ("gtk,full-screen=on,zoom-to-fit=off", "gtk,full-screen=on,zoom-to-fit=off"),
            ("sdl,gl=off", "sdl,gl=off"),
            ("vnc=:1", "vnc=127.0.0.1:1"),
            ("vnc=localhost:0", "vnc=127.0.0.1:0"),
            ("vnc=127.0.0.2:7", "vnc=127.0.0.2:7"),
            ("vnc=[::1]:3", "vnc=[::1]:3"),
            ("vnc=unix:/a,b:c", "vnc=unix:/a,b:c"),
            ("spice=:5930", "spice=127.0.0.1:5930"),
            ("spice=unix:s.sock", "spice=unix:s.sock"),
        ] {
            let display: Display = typed.parse().unwrap();
            assert_eq!(display.to_string(), printed);
            assert_eq!(serde_json::to_value(&display).unwrap(), printed);
            assert_eq!(serde_json::from_value::<Display>(printed.into()).unwrap(), display);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let list = "(known: none, gui, headless, gtk, sdl, vnc=…, spice=…)";
        for (text, message) in [
            ("headles", format!("unknown display 'headles', did you mean 'headless'? {list}")),
            ("curses", format!("unknown display 'curses' {list}")),
            ("none,gl=on", "display 'none' has no options".into()),
            ("vnc", "display 'vnc' needs a place to listen on: vnc=unix:PATH, or vnc=[ADDR]:NUMBER".into()),
            ("gtk,gl", "display option 'gl' must be NAME=VALUE, such as full-screen=on".into()),
            ("gtk,", "display option '' must be NAME=VALUE, such as full-screen=on".into()),
            ("sdl,gl=on=", "display option 'gl=on=' must be NAME=VALUE, such as full-screen=on".into()),
            ("vnc=:x", "display number 'x' is not a number, or too high".into()),
            ("vnc=:59636", "display number '59636' is not a number, or too high".into()),
            ("spice=:0", "display number '0' is not a number, or too high".into()),
            ("vnc=none", "display number 'none' is not a number, or too high".into()),
            ("vnc=:1,password=on", "display number '1,password=on' is not a number, or too high".into()),
            (
                "vnc=unix:",
                "the path of the display's socket must have 1 to 107 bytes and no control characters".into(),
            ),
        ] {
            assert_eq!(text.parse::<Display>().unwrap_err().to_string(), message, "{text}");
        }
        for address in ["0.0.0.0", "10.0.0.1", "[::]", "[fe80::1]", "example.org", "::1"] {
            let error = format!("vnc={address}:1").parse::<Display>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("display address '{address}' is not this machine alone")),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_read_prints_as_what_was_read(text in "(none|gtk|sdl|vnc=|spice=|unix:|\\[::1\\]|127\\.0\\.0\\.1|:|,|gl=on|[0-9]|/|a){0,6}") {
            if let Ok(display) = text.parse::<Display>() {
                prop_assert_eq!(display.to_string().parse(), Ok(display));
            }
        }
    }
}
