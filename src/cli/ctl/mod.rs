//! `vmrun ctl`: each command is a method of the control protocol and a way to show its reply.

mod clock;
mod copy;
mod devices;
mod disks;
mod events;
mod exec;
mod guest;
mod nics;
mod ports;
mod power;
mod raw;
mod save;
mod screen;
mod snapshot;
mod stats;
mod status;
mod throttle;
mod usb;
mod wait;

use clap::{Args, Subcommand};

use crate::control::client::Client;
use crate::spec::VmName;

use super::failure::Failure;
use super::lazy::Lazy;
use super::output::Output;

/// `vmrun ctl`.
#[derive(Debug, Args)]
pub(super) struct CtlArgs {
    /// The VM's name; may be left out while exactly one VM runs
    #[arg(long, value_name = "NAME", global = true)]
    vm: Option<VmName>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    command: Command,
}

/// In groups, of which only those are made whose words were typed.
#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Status(Lazy<status::Command>),
    #[command(flatten)]
    Usb(Lazy<usb::Command>),
    #[command(flatten)]
    Ports(Lazy<ports::Command>),
    #[command(flatten)]
    Nics(Lazy<nics::Command>),
    #[command(flatten)]
    Disks(Lazy<disks::Command>),
    #[command(flatten)]
    Devices(Lazy<devices::Command>),
    #[command(flatten)]
    Snapshots(Lazy<snapshot::Command>),
    #[command(flatten)]
    Power(Lazy<power::Command>),
    #[command(flatten)]
    Wait(Lazy<wait::Command>),
    #[command(flatten)]
    Guest(Lazy<guest::Command>),
    #[command(flatten)]
    Screen(Lazy<screen::Command>),
    #[command(flatten)]
    Raw(Lazy<raw::Command>),
}

/// What every command gets.
struct Context {
    client: Client,
    output: Output,
}

/// Runs one command against the VM that is meant.
pub(super) fn run(args: CtlArgs) -> Result<u8, Failure> {
    let output = Output { json: args.json };
    // what needs no VM, or is wrong by itself, does not look for one
    let command = match args.command {
        Command::Usb(Lazy(usb)) if usb.is_of_host() => return usb::list_host(output),
        Command::Raw(Lazy(raw)) => Command::Raw(Lazy(raw.checked()?)),
        command => command,
    };
    let (_, client) = match &command {
        Command::Wait(_) | Command::Power(Lazy(power::Command::Shutdown(_))) => {
            super::connect_after_the_end(args.vm.as_ref())?
        }
        _ => super::connect(args.vm.as_ref())?,
    };
    let mut context = Context { client, output };
    match command {
        Command::Status(Lazy(command)) => command.run(&mut context),
        Command::Usb(Lazy(command)) => command.run(&mut context),
        Command::Ports(Lazy(command)) => command.run(&mut context),
        Command::Nics(Lazy(command)) => command.run(&mut context),
        Command::Disks(Lazy(command)) => command.run(&mut context),
        Command::Devices(Lazy(command)) => command.run(&mut context),
        Command::Snapshots(Lazy(command)) => command.run(&mut context),
        Command::Power(Lazy(command)) => command.run(&mut context),
        Command::Wait(Lazy(command)) => command.run(&mut context),
        Command::Guest(Lazy(command)) => command.run(&mut context),
        Command::Screen(Lazy(command)) => command.run(&mut context),
        Command::Raw(Lazy(command)) => command.run(&mut context),
    }
}
