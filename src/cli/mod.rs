//! The command line interface: arguments, tables, messages, hints, exit codes.

mod adopt;
mod args;
mod as_typed;
mod background;
mod completions;
mod console;
mod ctl;
mod doctor;
mod ended;
mod exit_codes;
mod failure;
#[cfg(test)]
mod flag_list;
mod guest_command;
mod harmless;
mod lazy;
mod linuxkit;
mod logger;
mod ls;
mod manual;
mod output;
mod qemu;
mod qemu_args;
mod templates;
mod usage;
mod visible;
mod wrap;

use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
use clap::{CommandFactory, FromArgMatches};

use crate::control::after::{self, Fate};
use crate::control::client::Client;
use crate::control::find::{self, FindError, Standing};
use crate::host::dirs::{RuntimeEnvironment, StoreEnvironment, runtime_root};
use crate::host::sys;
use crate::spec::VmName;
use crate::vm::RunRecord;

use args::{Cli, Program};
pub use failure::Failure;
use lazy::Lazy;

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
    let cli = match parse(words) {
        Ok(cli) => cli,
        // help and version go to stdout with 0; `vmrun` alone prints its help, too
        Err(error) if !error.use_stderr() || error.kind() == DisplayHelpOnMissingArgumentOrSubcommand => {
            return output::help(&error).map_or_else(|failure| fail(&failure, false), ExitCode::from);
        }
        Err(error) => return fail(&error.into(), usage::wants_json(std::env::args_os())),
    };
    let json = cli.wants_json();
    if !matches!(cli.program, Program::Qemu(_)) {
        // invalid arguments, and failures to print
        logger::install(0, logger::LogFormat::Text);
    }
    let result = match cli.program {
        Program::Qemu(Lazy(args)) => apart(|| qemu::run(*args)),
        Program::Wrap(Lazy(args)) => apart(|| wrap::run(args)),
        Program::Ctl(Lazy(args)) => apart(|| ctl::run(args)),
        Program::Console(Lazy(args)) => apart(|| console::run(&args)),
        Program::Logs(Lazy(args)) => apart(|| console::logs(&args)),
        Program::Ls(Lazy(args)) => apart(|| ls::run(&args)),
        Program::Templates(Lazy(args)) => apart(|| templates::run(&args)),
        Program::Forget(Lazy(args)) => apart(|| ended::forget(&args)),
        Program::Doctor(Lazy(args)) => apart(|| doctor::run(&args)),
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
    if matches!(cli.program, Program::Qemu(_) | Program::Wrap(_)) {
        drop(ManuallyDrop::into_inner(grammar));
    }
    Ok(cli)
}

/// Connects to the VM of a command; one whose supervisor has died is taken over first, and for one that has ended its record
/// answers.
fn connect(name: Option<&VmName>) -> Result<(VmName, Client), Failure> {
    let root = runtime_root(&RuntimeEnvironment::from_env()).map_err(FindError::from)?;
    let found = match find::connect(&root, name) {
        Err(FindError::Orphan(name)) => adopt::run(&root, &name)
            .and_then(|()| Ok(find::connect(&root, Some(&name))?))
            .or_else(|failure| {
                adopt::await_end(&root, &name);
                ended(&root, &name).ok_or(failure)
            }),
        Err(error @ (FindError::NoSuch { .. } | FindError::Stale(_))) => match name {
            Some(name) => ended(&root, name).ok_or_else(|| error.into()),
            None => Err(error.into()),
        },
        Err(FindError::None) => Err(none_runs(&root)),
        other => other.map_err(Failure::from),
    };
    found.map(|(name, client)| (name, client.adopting(adopt::adopt)))
}

/// A VM that has ended, if it has a record.
fn ended(root: &Path, name: &VmName) -> Option<(VmName, Client)> {
    match after::fate(root, name, None, &StoreEnvironment::from_env()) {
        Fate::Ended(record) => after::client(*record).ok().map(|client| (name.clone(), client)),
        _ => None,
    }
}

/// Like [`connect`], for queries of how a VM ended: if none runs, the only one that has ended within the last minute is used, since
/// the query came a moment too late.
fn connect_after_the_end(name: Option<&VmName>) -> Result<(VmName, Client), Failure> {
    let failure = match connect(name) {
        Err(failure) if name.is_none() => failure,
        connected => return connected,
    };
    let root = runtime_root(&RuntimeEnvironment::from_env()).map_err(FindError::from)?;
    let Some(record) = only_ended(&root) else { return Err(failure) };
    let name = record.name().clone();
    after::client(record).map(|client| (name, client)).map_err(|_| failure)
}

/// The error that no VM runs, with the one that has just ended.
fn none_runs(root: &Path) -> Failure {
    let failure = Failure::from(FindError::None);
    let Some(record) = only_ended(root) else { return failure };
    let (name, outcome) = (record.name(), &record.outcome);
    let ended = format!("VM '{name}' has just ended: {outcome}; `vmrun ctl --vm {name} status` tells more");
    failure.and_hint(ended)
}

/// The only VM that has ended within the last minute, if none runs; `None` if there are several.
fn only_ended(root: &Path) -> Option<RunRecord> {
    for (name, standing) in find::all(root).ok()? {
        if standing != Standing::Stale {
            return None;
        }
        // VMs of killed supervisors get their records now
        let _ = ended(root, &name);
    }
    let mut recent = RunRecord::all(&StoreEnvironment::from_env(), root);
    recent.retain(|record| Duration::from_millis(record.age_ms()) < after::RECENT);
    let [record] = <[RunRecord; 1]>::try_from(recent).ok()?;
    Some(record)
}

fn fail(failure: &Failure, as_json: bool) -> ExitCode {
    failure.print(as_json);
    ExitCode::from(failure.exit_code)
}
