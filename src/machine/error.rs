//! Errors of a [`super::Machine`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error as ThisError;

use crate::control::client::{ClientError, WireError};
use crate::control::find::FindError;
use crate::spec::duration;
use crate::vm::{ErrorChain, StartError};

/// Why an operation failed. The message says what and why; [`Self::hint`] what to do about it. Its `Debug` form, which
/// `unwrap` and a test that returns it print, is both.
#[derive(ThisError)]
pub enum Error {
    /// The VM could not be started; nothing is left behind.
    #[error("{}", .0.with_causes())]
    Start(Box<StartError>),
    /// The VM was not found.
    #[error("{}", .0.with_causes())]
    Find(#[from] FindError),
    /// The VM refused, has ended, or timed out; see [`Self::refusal`], [`Self::is_gone`], [`Self::is_timeout`].
    #[error(transparent)]
    Call(#[from] ClientError),
    /// A parameter is invalid.
    #[error("{0}")]
    Invalid(String),
    /// A path that is not UTF-8: the protocol is JSON.
    #[error("the path {} is not UTF-8", .0.display())]
    Path(PathBuf),
    /// A file on the host could not be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A copied file differs from the original.
    #[error("{path}: {why}")]
    Damaged {
        /// The file.
        path: String,
        /// What differs.
        why: &'static str,
    },
    /// A folder cannot be copied to this place in the guest.
    #[error("{path} in the guest: {said}")]
    GuestFolder {
        /// The place.
        path: String,
        /// What is missing.
        said: String,
    },
    /// The guest's `tar` could not pack or unpack a folder.
    #[error("the guest's tar failed with {path}{}", if said.is_empty() { String::new() } else { format!(": {said}") })]
    GuestTar {
        /// The folder of the guest.
        path: String,
        /// What it said last.
        said: String,
    },
    /// No template was made of a VM that did not meet the condition of [`Request::warm`](crate::Request::warm); the VM was ended.
    #[error("no template was made: {why}{console}")]
    NotWarm {
        /// Why it did not.
        why: Box<Self>,
        /// What its console printed last, each line behind a line's end; empty if it printed nothing.
        console: String,
    },
    /// The cache of templates cannot be used.
    #[error("the cache of templates: {0}")]
    TemplateCache(String),
    /// The guest has not released a device in time; the request stays pending.
    #[error("the guest has not released '{id}' within {}", duration::format(*.waited))]
    NotReleased {
        /// The device.
        id: String,
        /// How long the guest had.
        waited: Duration,
    },
}

impl Error {
    pub(super) fn invalid(why: impl std::error::Error) -> Self {
        Self::Invalid(why.with_causes())
    }

    pub(super) fn unclear(why: &str) -> Self {
        Self::Call(ClientError::Protocol(why.to_owned()))
    }

    pub(super) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::File { path, error }
    }

    /// The protocol's error, if the VM replied with one; programs can compare its name (such as `NoFreeSlot`).
    pub fn refusal(&self) -> Option<&WireError> {
        match self {
            Self::Call(ClientError::Remote(error)) => Some(error),
            _ => None,
        }
    }

    /// The VM has ended.
    pub fn is_gone(&self) -> bool {
        let refused = self.refusal().is_some_and(|error| error.name() == "NotRunning");
        refused || matches!(self, Self::Call(ClientError::Gone))
    }

    /// It did not happen before the deadline.
    pub fn is_timeout(&self) -> bool {
        let refused = self.refusal().is_some_and(|error| error.name() == "TimedOut");
        refused || matches!(self, Self::NotReleased { .. })
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Start(error) => error.hint(),
            Self::NotWarm { why, .. } => why.hint(),
            Self::TemplateCache(_) => Some(
                "make room there, or set XDG_CACHE_HOME to a folder of your own that can be written to"
                    .to_owned(),
            ),
            Self::Find(error) => error.hint(),
            Self::Call(_) => self.refusal()?.text("hint").map(str::to_owned),
            Self::Path(_) => Some("make a symbolic link to it with a plain name, and use that".to_owned()),
            Self::File { error, .. } if error.kind() == std::io::ErrorKind::IsADirectory => {
                Some("one file at a time: make an archive of a directory with `tar`".to_owned())
            }
            Self::Invalid(_)
            | Self::File { .. }
            | Self::Damaged { .. }
            | Self::GuestFolder { .. }
            | Self::GuestTar { .. }
            | Self::NotReleased { .. } => None,
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        self.hint().map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        Self::Start(Box::new(error))
    }
}
