//! `vmrun ctl`, one file for each command.
//!
//! A file has everything about its command on this side of the socket: its arguments, its help, which method of the protocol it
//! calls, and how the reply is shown. [`Command`] is the only list of them.

mod agent;
mod agent_args;
mod copy_from;
mod copy_progress;
mod copy_to;
mod device_add;
mod device_remove;
mod device_state;
mod disk_add;
mod disk_list;
mod disk_remove;
mod disk_resize;
mod disk_throttle;
mod event_names;
mod events;
mod exec;
mod fork;
mod freeze;
mod freeze_fs;
mod hmp;
mod link;
mod media_change;
mod media_eject;
mod nic_add;
mod nic_list;
mod nic_remove;
mod pause;
mod port_add;
mod port_list;
mod port_remove;
mod powerdown;
mod qmp;
mod reboot;
mod removal;
mod reset;
mod resume;
mod save;
mod screenshot;
mod send_key;
mod set_time;
mod shutdown;
mod snapshot_delete;
mod snapshot_list;
mod snapshot_load;
mod snapshot_save;
mod stats;
mod status;
mod thaw_fs;
mod type_text;
mod usb_add;
mod usb_list;
mod usb_remove;
mod verb;
mod wait;

use clap::{Args, Subcommand};

use crate::spec::VmName;

use super::failure::Failure;
use super::lazy::Lazy;
use super::output::Output;
use super::target;
pub(super) use agent_args::AgentArgs;
pub(super) use copy_from::CopyFrom;
pub(super) use copy_to::CopyTo;
pub(super) use exec::Exec;
pub(super) use shutdown::Shutdown;
use verb::Verb;
pub(super) use verb::run as run_command;

/// `vmrun ctl`.
#[derive(Debug, Args)]
pub(super) struct CtlArgs {
    /// VM name [default: $VMRUN_VM, else the only one that runs]
    #[arg(long, value_name = "NAME", global = true, value_parser = target::named)]
    vm: Option<VmName>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    command: Command,
}

macro_rules! commands {
    ($($file:ident::$command:ident;)*) => {
        /// Every command. Its name is that of its type with hyphens.
        #[derive(Debug, Subcommand)]
        enum Command {
            $(
                #[command(about = <$file::$command as Verb>::ABOUT)]
                $command(Lazy<$file::$command>),
            )*
        }

        /// Runs one command against its VM.
        pub(super) fn run(args: CtlArgs) -> Result<u8, Failure> {
            let output = Output { json: args.json };
            match args.command {
                $(Command::$command(Lazy(command)) => verb::run(command, args.vm.as_ref(), output),)*
            }
        }
    };
}

// in the order of the help page
commands! {
    status::Status;
    stats::Stats;
    usb_list::UsbList;
    usb_add::UsbAdd;
    usb_remove::UsbRemove;
    port_list::PortList;
    port_add::PortAdd;
    port_remove::PortRemove;
    nic_list::NicList;
    nic_add::NicAdd;
    nic_remove::NicRemove;
    link::Link;
    disk_list::DiskList;
    disk_add::DiskAdd;
    disk_remove::DiskRemove;
    disk_resize::DiskResize;
    disk_throttle::DiskThrottle;
    media_change::MediaChange;
    media_eject::MediaEject;
    device_add::DeviceAdd;
    device_remove::DeviceRemove;
    save::Save;
    freeze::Freeze;
    fork::Fork;
    snapshot_save::SnapshotSave;
    snapshot_load::SnapshotLoad;
    snapshot_list::SnapshotList;
    snapshot_delete::SnapshotDelete;
    pause::Pause;
    resume::Resume;
    reset::Reset;
    reboot::Reboot;
    powerdown::Powerdown;
    shutdown::Shutdown;
    wait::Wait;
    events::Events;
    exec::Exec;
    copy_to::CopyTo;
    copy_from::CopyFrom;
    set_time::SetTime;
    freeze_fs::FreezeFs;
    thaw_fs::ThawFs;
    agent::Agent;
    screenshot::Screenshot;
    send_key::SendKey;
    type_text::Type;
    qmp::Qmp;
    hmp::Hmp;
}
