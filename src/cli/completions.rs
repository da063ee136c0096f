//! `vmrun completions SHELL`.

use std::io::Write;

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs};
use super::failure::Failure;

/// Prints the script.
pub(super) fn run(args: &CompletionsArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vmrun", &mut script);
    // whoever closed our stdout does not want to hear of it
    let _ = std::io::stdout().write_all(&script);
    Ok(0)
}
