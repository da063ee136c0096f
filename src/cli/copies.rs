//! `SOURCE:DESTINATION`: files and folders that are copied into the guest before a command, and out of it afterwards.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::control::client::Client;
use crate::machine::{copy_in, copy_out};

use super::failure::Failure;

/// A copy into the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CopyIn {
    source: PathBuf,
    destination: String,
}

/// A copy out of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CopyOut {
    source: String,
    destination: PathBuf,
}

impl FromStr for CopyIn {
    type Err = String;

    /// The guest's path begins behind the last colon before a slash: paths of this host may have colons.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.rfind(":/") {
            Some(at) if at > 0 => {
                Ok(Self { source: text[..at].into(), destination: text[at + 1..].to_owned() })
            }
            _ => Err("not of the form SOURCE:DESTINATION with an absolute path of the guest".to_owned()),
        }
    }
}

impl FromStr for CopyOut {
    type Err = String;

    /// The guest's path ends at the first colon.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((source, destination)) if source.starts_with('/') && !destination.is_empty() => {
                Ok(Self { source: source.to_owned(), destination: destination.into() })
            }
            _ => Err("not of the form SOURCE:DESTINATION with an absolute path of the guest".to_owned()),
        }
    }
}

impl CopyIn {
    pub(super) fn run(&self, client: &mut Client, agent_timeout: Option<Duration>) -> Result<(), Failure> {
        let (source, destination) = (&self.source, &self.destination);
        copy_in(client, source, destination, agent_timeout, &mut |_, _| {})?;
        Ok(())
    }
}

impl CopyOut {
    pub(super) fn run(&self, client: &mut Client, agent_timeout: Option<Duration>) -> Result<(), Failure> {
        copy_out(client, &self.source, &self.destination, agent_timeout, &mut |_, _| {})?;
        Ok(())
    }
}
