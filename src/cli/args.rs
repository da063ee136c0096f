//! The command line's grammar, top level.

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::spec::VmName;

use super::console::{ConsoleArgs, LogsArgs};
use super::ctl::CtlArgs;
use super::lazy::Lazy;
use super::qemu_args::QemuArgs;
use super::wrap::WrapArgs;

/// Starts QEMU virtual machines and changes them while they run.
#[derive(Debug, Parser)]
#[command(name = "vmrun", version, propagate_version = false, max_term_width = 110)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) program: Program,
}

#[derive(Debug, Subcommand)]
pub(super) enum Program {
    /// Start a VM from an image
    Qemu(Lazy<Box<QemuArgs>>),
    /// Start a VM by a QEMU command line as it is, and make it one of vmrun's
    Wrap(Lazy<WrapArgs>),
    /// See and change a running VM
    Ctl(Lazy<CtlArgs>),
    /// Attach to a VM's console
    Console(Lazy<ConsoleArgs>),
    /// Print what a VM's console has shown
    Logs(Lazy<LogsArgs>),
    /// List the running VMs, and those that have ended
    Ls(Lazy<LsArgs>),
    /// Remove the records of VMs that have ended
    Forget(Lazy<ForgetArgs>),
    /// Tell what this machine has of what vmrun needs, and what to do about the rest
    Doctor(Lazy<DoctorArgs>),
    /// Print a completion script for a shell
    Completions(Lazy<CompletionsArgs>),
}

/// `vmrun ls`.
#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// List those that have ended, too: the last 100, for 30 days
    #[arg(long, short)]
    pub(super) all: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// `vmrun forget`.
#[derive(Debug, Args)]
pub(super) struct ForgetArgs {
    /// The names of the VMs
    #[arg(required = true, value_name = "NAME")]
    pub(super) names: Vec<VmName>,
}

/// `vmrun doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// `vmrun completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    pub(super) shell: Shell,
}

impl Cli {
    /// Whether errors are wanted as JSON.
    pub(super) fn wants_json(&self) -> bool {
        match &self.program {
            Program::Ctl(Lazy(args)) => args.json,
            Program::Ls(Lazy(args)) => args.json,
            Program::Doctor(Lazy(args)) => args.json,
            _ => false,
        }
    }
}
