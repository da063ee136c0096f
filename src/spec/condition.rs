//! What `ctl wait` can wait for.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::words::UnknownWord;

/// A condition of `ctl wait` and `--wait`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// `running`: the guest's processors run.
    Running,
    /// `paused`.
    Paused,
    /// `exit`: QEMU has ended.
    Exit,
    /// `console=REGEX`: a line of the console matches. The expression has been compiled once to check it.
    Console(String),
    /// `agent`: the guest agent answers.
    Agent,
    /// `port=GUEST`: something in the guest accepts TCP connections on this port.
    Port(u16),
    /// `ssh`: an sshd that is started in the guest greets, so that `vmrun ssh` works.
    Ssh,
    /// `event=NAME`: a QMP event (or one of vmrun's own) of this name comes.
    Event(String),
}

const KNOWN: &[&str] = &["running", "paused", "exit", "console", "agent", "ssh", "port", "event"];

/// Why a text is not a condition.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum ConditionError {
    /// No such condition.
    #[error(transparent)]
    Unknown(#[from] UnknownWord),
    /// `running=…`.
    #[error("condition '{0}' takes no value")]
    UnwantedValue(&'static str),
    /// `console` alone.
    #[error("condition '{name}' needs a value: {name}={value}")]
    NoValue {
        /// The condition.
        name: &'static str,
        /// What its value is.
        value: &'static str,
    },
    /// Not a regular expression.
    #[error("console '{text}' is not a regular expression: {reason}")]
    Regex {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not the number of a port.
    #[error("port '{0}' is not a number from 1 to 65535")]
    Port(String),
    /// Not the name of an event.
    #[error("event '{0}' is not a name (letters, digits, '_', '-' and '.')")]
    Event(String),
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let (typed, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let name = *KNOWN
            .iter()
            .find(|known| **known == typed)
            .ok_or_else(|| UnknownWord::new("condition", typed, KNOWN))?;
        let wanted = |what| {
            let value = value.filter(|value| !value.is_empty());
            value.ok_or(ConditionError::NoValue { name, value: what })
        };
        match name {
            "console" => regex(wanted("REGEX")?).map(Self::Console),
            "port" => port(wanted("GUEST")?).map(Self::Port),
            "event" => event(wanted("NAME")?).map(Self::Event),
            _ if value.is_some() => Err(ConditionError::UnwantedValue(name)),
            "running" => Ok(Self::Running),
            "paused" => Ok(Self::Paused),
            "agent" => Ok(Self::Agent),
            "ssh" => Ok(Self::Ssh),
            _ => Ok(Self::Exit),
        }
    }
}

fn regex(text: &str) -> Result<String, ConditionError> {
    match regex_lite::Regex::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(ConditionError::Regex { text: text.to_owned(), reason: error.to_string() }),
    }
}

fn port(text: &str) -> Result<u16, ConditionError> {
    let port = text.parse().ok().filter(|port| *port != 0 && !text.starts_with('+'));
    port.ok_or_else(|| ConditionError::Port(text.to_owned()))
}

fn event(text: &str) -> Result<String, ConditionError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if text.chars().all(allowed) { Ok(text.to_owned()) } else { Err(ConditionError::Event(text.to_owned())) }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.pad("running"),
            Self::Paused => f.pad("paused"),
            Self::Exit => f.pad("exit"),
            Self::Console(regex) => write!(f, "console={regex}"),
            Self::Agent => f.pad("agent"),
            Self::Ssh => f.pad("ssh"),
            Self::Port(port) => write!(f, "port={port}"),
            Self::Event(name) => write!(f, "event={name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn round_trips_each() {
        for text in [
            "running",
            "paused",
            "exit",
            "console=login: $",
            "console=a=b",
            "agent",
            "ssh",
            "port=22",
            "event=RESET",
        ] {
            assert_eq!(text.parse::<Condition>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        const LIST: &str = "(known: running, paused, exit, console, agent, ssh, port, event)";
        for (text, message) in [
            ("", format!("unknown condition '' {LIST}")),
            ("runing", format!("unknown condition 'runing', did you mean 'running'? {LIST}")),
            ("boot=1", format!("unknown condition 'boot' {LIST}")),
            ("exit=0", "condition 'exit' takes no value".into()),
            ("console", "condition 'console' needs a value: console=REGEX".into()),
            ("console=", "condition 'console' needs a value: console=REGEX".into()),
            (
                "console=(",
                "console '(' is not a regular expression: found open group without closing ')'".into(),
            ),
            ("port=0", "port '0' is not a number from 1 to 65535".into()),
            ("port=+22", "port '+22' is not a number from 1 to 65535".into()),
            ("port=ssh", "port 'ssh' is not a number from 1 to 65535".into()),
            ("event=a b", "event 'a b' is not a name (letters, digits, '_', '-' and '.')".into()),
        ] {
            assert_eq!(text.parse::<Condition>().unwrap_err().to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn round_trips(port in 1..=u16::MAX, event in "[A-Z_]{1,20}", regex in "[a-z .=]{1,20}") {
            for condition in [Condition::Port(port), Condition::Event(event), Condition::Console(regex)] {
                prop_assert_eq!(condition.to_string().parse(), Ok(condition));
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            for text in [format!("console={text}"), format!("port={text}"), text] {
                let _ = text.parse::<Condition>();
            }
        }
    }
}
