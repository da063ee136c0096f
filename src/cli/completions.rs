//! `vmrun completions SHELL`.

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs};
use super::failure::Failure;
use super::output::Stdout;

/// Prints the script.
pub(super) fn run(args: &CompletionsArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vmrun", &mut script);
    let mut stdout = Stdout::default();
    stdout.raw(&script);
    stdout.finish()
}
