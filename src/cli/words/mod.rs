//! Commands by the names that users of docker type: each is one of `vmrun ctl` with the VM's name in front.

pub(super) mod cp;
pub(super) mod shutdown;

use clap::Args;

use crate::control::verbs;
use crate::spec::VmName;

use super::connect;
use super::ctl::{self, run_command};
use super::failure::Failure;
use super::output::{Lines, Output};
use super::target::named;
use super::waiting::Progress;

/// `vmrun exec`.
#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// VM name
    #[arg(value_parser = named)]
    name: VmName,
    #[command(flatten)]
    exec: ctl::Exec,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Runs a command in a VM's guest.
pub(super) fn exec(args: ExecArgs) -> Result<u8, Failure> {
    run_command(args.exec, Some(&args.name), Output { json: args.json })
}

/// `vmrun inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// VM names
    #[arg(required = true, value_name = "NAME", value_parser = named)]
    names: Vec<VmName>,
}

/// Prints the status of VMs as one JSON array.
pub(super) fn inspect(args: &InspectArgs) -> Result<u8, Failure> {
    let mut all = Vec::new();
    for name in &args.names {
        let (_, mut client) = connect(Some(name))?;
        let _progress = Progress::new(format!("waiting for the supervisor of VM '{name}'"));
        let verbs::StatusReply { status } = client.call(verbs::GetStatus {})?;
        all.push(status);
    }
    Output { json: true }.print(&all, Lines::default)
}
