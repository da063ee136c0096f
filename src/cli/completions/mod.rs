//! Completion of command lines in shells: `vmrun completions SHELL` prints a script, which runs `vmrun __complete` for each TAB.
//!
//! The scripts know nothing of vmrun's flags: what can follow comes from the grammar that parses, and from what runs at that
//! moment. So a script goes with every later version of the program.

mod answer;
mod live;
mod values;

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::{Cli, CompletionsArgs};
use super::failure::Failure;
use super::output::Stdout;

pub(super) use answer::{COMMAND, run as answer};

/// Prints the script. Shells without one of ours get a list of the flags, made by clap.
pub(super) fn run(args: &CompletionsArgs) -> Result<u8, Failure> {
    let script = match args.shell {
        Shell::Bash => include_bytes!("vmrun.bash").to_vec(),
        Shell::Zsh => include_bytes!("vmrun.zsh").to_vec(),
        Shell::Fish => include_bytes!("vmrun.fish").to_vec(),
        other => {
            let mut script = Vec::new();
            clap_complete::generate(other, &mut Cli::command(), "vmrun", &mut script);
            script
        }
    };
    let mut stdout = Stdout::default();
    stdout.raw(&script);
    stdout.finish()
}
