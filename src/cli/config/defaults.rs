//! The defaults that the file and the environment give, each with where it stands.

use std::fmt;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};

use super::super::failure::Failure;
use super::key::Key;

/// The flag of a grammar with nothing else; clap takes no name that is made at run time.
const ALONE: &str = "--value";

/// Where a default comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A line of the file.
    File(PathBuf, usize),
    /// A variable.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "${name}"),
        }
    }
}

/// A default of one flag.
#[derive(Debug, Clone)]
pub(super) struct Default {
    pub(super) key: Key,
    /// The values: one, several of a list, or `true`/`false` of a switch.
    pub(super) values: Vec<String>,
    pub(super) origin: Origin,
}

impl Default {
    /// The default, if its values fit the flag.
    pub(super) fn checked(key: Key, values: Vec<String>, origin: Origin) -> Result<Self, Failure> {
        let default = Self { key, values, origin };
        let truth = |value: &String| matches!(value.as_str(), "true" | "false");
        if default.key.is_switch() && !default.values.iter().all(truth) {
            return Err(default.failure("it is true or false"));
        }
        if default.key.is_count() && default.values.iter().any(|value| value.parse::<u8>().is_err()) {
            return Err(default.failure("it is a number from 0 to 255"));
        }
        let flag = format!("--{}", default.key.flag);
        let words = default.words().into_iter().map(|word| word.replacen(&flag, ALONE, 1));
        match default.parser().try_get_matches_from(std::iter::once("vmrun".to_owned()).chain(words)) {
            Ok(_) => Ok(default),
            Err(error) => {
                let told = Failure::from(error).message;
                Err(default.failure(&told.replacen(ALONE, &flag, 1)))
            }
        }
    }

    /// What is wrong with it, and where it stands.
    pub(super) fn failure(&self, why: &str) -> Failure {
        Failure::usage(format!("{}: {}: {why}", self.origin, self.key.name()))
    }

    /// As words of a command line.
    pub(super) fn words(&self) -> Vec<String> {
        let flag = &self.key.flag;
        if self.key.is_switch() {
            return self
                .values
                .iter()
                .filter(|value| *value == "true")
                .map(|_| format!("--{flag}"))
                .collect();
        }
        if self.key.is_count() {
            let count = self.values.first().and_then(|value| value.parse().ok()).unwrap_or(0);
            return vec![format!("--{flag}"); count];
        }
        self.values.iter().map(|value| format!("--{flag}={value}")).collect()
    }

    /// A grammar with this flag alone: what it needs beside it is seen on the real command line.
    fn parser(&self) -> Command {
        let argument = &self.key.argument;
        let mut alone = Arg::new("value").long(ALONE.trim_start_matches('-'));
        alone = match argument.get_action() {
            ArgAction::SetTrue => alone.action(ArgAction::SetTrue),
            ArgAction::Count => alone.action(ArgAction::Count),
            // the last of a flag's several uses counts, but a default has one
            action => alone.action(action.clone()).value_parser(argument.get_value_parser().clone()),
        };
        Command::new("vmrun").disable_help_flag(true).arg(alone)
    }
}
