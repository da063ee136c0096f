//! What is done through the guest's agent: `exec`, `copy-to`, `copy-from`.

use clap::Subcommand;

use super::super::failure::Failure;
use super::super::lazy::Lazy;
use super::{Context, copy, exec};

/// What the guest agent does.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a command in the guest, through its agent; exits with the command's own code
    Exec(Lazy<exec::Exec>),
    /// Copy a file into the guest, through its agent
    CopyTo(Lazy<copy::CopyTo>),
    /// Copy a file out of the guest, through its agent
    CopyFrom(Lazy<copy::CopyFrom>),
}

impl Command {
    pub(super) fn run(self, context: &mut Context) -> Result<u8, Failure> {
        match self {
            Self::Exec(Lazy(exec)) => exec.run(context),
            Self::CopyTo(Lazy(copy)) => copy.run(context),
            Self::CopyFrom(Lazy(copy)) => copy.run(context),
        }
    }
}
