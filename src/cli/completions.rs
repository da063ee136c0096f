//! `vmrun completions SHELL`.

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs};
use super::failure::Failure;

/// Prints the script.
pub(super) fn run(args: &CompletionsArgs) -> Result<u8, Failure> {
    clap_complete::generate(args.shell, &mut Cli::command(), "vmrun", &mut std::io::stdout());
    Ok(0)
}
