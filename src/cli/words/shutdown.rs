//! `vmrun shutdown` (`stop`) and `vmrun kill`: one VM, several, or all.

use std::thread;

use clap::Args;
use serde::Serialize;

use crate::spec::VmName;
use crate::vm::Outcome;

use super::super::connect_after_the_end;
use super::super::ctl::{self, run_command};
use super::super::failure::Failure;
use super::super::output::{Lines, Output, tell};
use super::super::target::{NOT_RUNNING, named, running};
use super::super::waiting::Progress;

/// `vmrun shutdown`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ShutdownArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    options: ctl::Shutdown,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// `vmrun kill`.
#[derive(Debug, Args)]
pub(in crate::cli) struct KillArgs {
    #[command(flatten)]
    which: Which,
    /// Succeed if a VM does not run
    #[arg(long)]
    if_running: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// Which VMs.
#[derive(Debug, Args)]
struct Which {
    /// VM names [default: $VMRUN_VM, else the only one that runs]
    #[arg(value_name = "NAME", value_parser = named, conflicts_with = "all")]
    names: Vec<VmName>,
    /// All running VMs
    #[arg(long)]
    all: bool,
}

/// One of several VMs that were shut down.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// How it ended; `None`: it did not run, and `--if-running` was given.
    outcome: Option<Outcome>,
    #[serde(skip)]
    code: u8,
}

/// Shuts VMs down.
pub(in crate::cli) fn run(args: ShutdownArgs) -> Result<u8, Failure> {
    end(args.which, args.options, Output { json: args.json })
}

/// Ends VMs without asking their guests.
pub(in crate::cli) fn kill(args: KillArgs) -> Result<u8, Failure> {
    end(args.which, ctl::Shutdown::forced(args.if_running), Output { json: args.json })
}

fn end(which: Which, options: ctl::Shutdown, output: Output) -> Result<u8, Failure> {
    let names = match (which.all, which.names.as_slice()) {
        (true, _) => running()?,
        (false, []) => {
            return run_command(options, None, output).map_err(|failure| {
                match failure.code == "several-running" {
                    true => failure.hint(Some("name one or more, or `--all`".to_owned())),
                    false => failure,
                }
            });
        }
        (false, [name]) => return run_command(options, Some(name), output),
        (false, _) => which.names,
    };
    if names.is_empty() {
        tell("vmrun: no VM is running");
    }
    // each takes as long as its guest does
    let ending: Vec<_> =
        names.into_iter().map(|name| thread::spawn(move || one(&name, options, which.all))).collect();
    let progress = Progress::new(format!("shutting down {} VMs", ending.len()));
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for result in ending {
        match result.join() {
            Ok(Ok(row)) => rows.push(row),
            Ok(Err(failure)) => failures.push(failure),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    drop(progress);
    output.print(&rows, || rows.iter().map(line).collect::<Lines>())?;
    let last = failures.pop();
    for failure in failures {
        failure.print(output.json);
    }
    match last {
        Some(failure) => Err(failure),
        None => Ok(rows.iter().map(|row| row.code).find(|code| *code != 0).unwrap_or(0)),
    }
}

/// Shuts one down. With `--all` one that ends by itself meanwhile is no failure.
fn one(name: &VmName, options: ctl::Shutdown, all: bool) -> Result<Row, Failure> {
    let off = || Row { name: name.to_string(), outcome: None, code: 0 };
    let ended = connect_after_the_end(Some(name)).and_then(|(_, mut client)| {
        match client.has_ended() && (options.if_running() || all) {
            true => Ok(off()),
            false => {
                let outcome = options.call(&mut client)?;
                let code = options.exit_code(&outcome);
                Ok(Row { name: name.to_string(), outcome: Some(outcome), code })
            }
        }
    });
    match ended {
        Err(failure) if failure.code == NOT_RUNNING && (options.if_running() || all) => Ok(off()),
        ended => ended,
    }
}

fn line(row: &Row) -> String {
    match &row.outcome {
        Some(outcome) => format!("{}: {}", row.name, outcome.message),
        None => format!("{}: it does not run", row.name),
    }
}
