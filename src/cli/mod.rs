//! The command line interface: arguments, tables, messages, hints, exit codes.

mod adopt;
mod args;
mod as_typed;
mod background;
mod clean;
mod completions;
mod config;
mod console;
mod copies;
mod ctl;
mod doctor;
mod ended;
mod exit_codes;
mod failure;
#[cfg(test)]
mod flag_list;
mod guest_command;
mod guest_terminal;
mod help;
mod lazy;
mod limit;
mod linuxkit;
mod logger;
mod ls;
mod manual;
mod output;
mod qemu;
mod qemu_args;
mod run;
mod shell;
mod ssh;
mod suggest;
mod target;
mod templates;
mod usage;
mod version;
mod visible;
mod waiting;
mod words;
mod wrap;

use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::process::ExitCode;

use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
use clap::{CommandFactory, FromArgMatches};

use crate::host::sys;

use args::{Cli, Program};
pub use failure::Failure;
use lazy::Lazy;
use target::{connect, connect_after_the_end};

/// The whole program: parses the arguments, runs the command, returns the exit code.
pub fn main() -> ExitCode {
    sys::outlive_file_size_limit();
    // called by the name of a QEMU, it acts as that QEMU
    if let Some(result) = apart(|| wrap::by_name(std::env::args_os().collect())) {
        logger::install(0, logger::LogFormat::Text);
        return result.map_or_else(|failure| fail(&failure, false), ExitCode::from);
    }
    let words: Vec<OsString> = std::env::args_os().collect();
    let words = match linuxkit::by_name(&words) {
        Some(Ok(meant)) => meant,
        Some(Err(failure)) => return fail(&failure, false),
        None => words,
    };
    if words.get(1).is_some_and(|word| word == completions::COMMAND) {
        apart(|| completions::answer(&words));
        return ExitCode::SUCCESS;
    }
    if version::is_wanted(&words) {
        return apart(version::run).map_or_else(|failure| fail(&failure, true), ExitCode::from);
    }
    if let Some(failure) = suggest::flag_of_qemu(&words) {
        return fail(&failure, false);
    }
    let words = match apart(|| config::with_defaults(words.clone())) {
        Ok(words) => words,
        Err(failure) => {
            let is_run = words.get(1).is_some_and(|word| word == "run");
            let failure = if is_run { run::told_apart(failure) } else { failure };
            return fail(&failure, usage::wants_json(&words));
        }
    };
    let cli = match parse(words.clone()) {
        Ok(cli) => cli,
        // help and version go to stdout with 0; `vmrun` alone prints its help, too
        Err(error) if !error.use_stderr() || error.kind() == DisplayHelpOnMissingArgumentOrSubcommand => {
            return output::help(&error).map_or_else(|failure| fail(&failure, false), ExitCode::from);
        }
        Err(error) => {
            let failure = suggest::failure(error, &words);
            let is_run = words.get(1).is_some_and(|word| word == "run");
            let failure = if is_run { run::told_apart(failure) } else { failure };
            return fail(&failure, usage::wants_json(&words));
        }
    };
    let json = cli.wants_json();
    if !matches!(cli.program, Program::Qemu(_) | Program::Run(_)) {
        // invalid arguments, and failures to print
        logger::install(0, logger::LogFormat::Text);
    }
    let result = match cli.program {
        Program::Qemu(Lazy(args)) => apart(|| qemu::run(*args)),
        Program::Run(Lazy(args)) => apart(|| run::run(*args)),
        Program::Wrap(Lazy(args)) => apart(|| wrap::run(args)),
        Program::Ctl(Lazy(args)) => apart(|| ctl::run(args)),
        Program::Console(Lazy(args)) => apart(|| console::run(&args)),
        Program::Logs(Lazy(args)) => apart(|| console::logs(&args)),
        Program::Ls(Lazy(args)) => apart(|| ls::run(&args)),
        Program::Templates(Lazy(args)) => apart(|| templates::run(&args)),
        Program::Forget(Lazy(args)) => apart(|| ended::forget(&args)),
        Program::Shutdown(Lazy(args)) => apart(|| words::shutdown::run(args)),
        Program::Kill(Lazy(args)) => apart(|| words::shutdown::kill(args)),
        Program::Exec(Lazy(args)) => apart(|| words::exec(args)),
        Program::Shell(Lazy(args)) => apart(|| shell::run(args)),
        Program::Ssh(Lazy(args)) => apart(|| ssh::ssh(args)),
        Program::Scp(Lazy(args)) => apart(|| ssh::scp(args)),
        Program::Rsync(Lazy(args)) => apart(|| ssh::rsync(args)),
        Program::SshConfig(Lazy(args)) => apart(|| ssh::ssh_config(&args)),
        Program::SshProxy(Lazy(args)) => apart(|| ssh::ssh_proxy(args)),
        Program::Cp(Lazy(args)) => apart(|| words::cp::run(args)),
        Program::Inspect(Lazy(args)) => apart(|| words::inspect(&args)),
        Program::Clean(Lazy(args)) => apart(|| clean::run(&args)),
        Program::Doctor(Lazy(args)) => apart(|| doctor::run(&args)),
        Program::Config(Lazy(args)) => apart(|| config::run(&args)),
        Program::Completions(Lazy(args)) => apart(|| completions::run(&args)),
        Program::Manual(Lazy(args)) => apart(|| manual::run(&args)),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => fail(&failure, json),
    }
}

/// Not inlined: the stack that one command needs must not be touched by every command, which costs up to 3 µs a page.
#[inline(never)]
fn apart<T>(run: impl FnOnce() -> T) -> T {
    run()
}

/// Like `Cli::try_parse_from`, but leaves the memory of the grammar to the end of the process.
fn parse(words: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut grammar = ManuallyDrop::new(Cli::command());
    let mut matches = grammar.try_get_matches_from_mut(linuxkit::spelled_out(words))?;
    let cli = Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut grammar))?;
    if matches!(cli.program, Program::Qemu(_) | Program::Run(_) | Program::Wrap(_)) {
        drop(ManuallyDrop::into_inner(grammar));
    }
    Ok(cli)
}

fn fail(failure: &Failure, as_json: bool) -> ExitCode {
    failure.print(as_json);
    ExitCode::from(failure.exit_code)
}
