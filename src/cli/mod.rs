//! What a person types and sees: arguments, tables, messages, hints, exit codes.

mod adopt;
mod args;
mod background;
mod completions;
mod console;
mod ctl;
mod failure;
mod logger;
mod ls;
mod output;
mod qemu;
mod qemu_args;

use std::process::ExitCode;

use clap::Parser;

use crate::control::client::Client;
use crate::control::find::{self, FindError};
use crate::host::dirs::{RuntimeEnvironment, runtime_root};
use crate::spec::VmName;

use args::{Cli, Program};
pub use failure::Failure;

/// The whole program: parses this process's arguments, does what they say, returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // help and version go to stdout with 0, mistakes to stderr with 2
        Err(error) => error.exit(),
    };
    let json = cli.wants_json();
    let result = match cli.program {
        Program::Qemu(args) => qemu::run(*args),
        Program::Ctl(args) => ctl::run(args),
        Program::Console(args) => console::run(&args),
        Program::Logs(args) => console::logs(&args),
        Program::Ls(args) => ls::run(&args),
        Program::Completions(args) => completions::run(&args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.print(json);
            ExitCode::from(failure.exit_code)
        }
    }
}

/// Connects to the VM that is meant; one whose supervisor has died gets a new one first.
fn connect(name: Option<&VmName>) -> Result<(VmName, Client), Failure> {
    let root = runtime_root(&RuntimeEnvironment::from_env()).map_err(FindError::from)?;
    match find::connect(&root, name) {
        Err(FindError::Orphan(name)) => {
            adopt::run(&root, &name)?;
            Ok(find::connect(&root, Some(&name))?)
        }
        other => Ok(other?),
    }
}
