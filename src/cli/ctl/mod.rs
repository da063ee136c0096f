//! `vmrun ctl`: each command is a method of the control protocol and a way to show its reply.

mod copy;
mod devices;
mod disks;
mod events;
mod exec;
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
use crate::control::methods;
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

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything that is known of the VM
    Status,
    /// What it uses: processor time, memory, what went through its disks and network cards
    Stats(Lazy<stats::Stats>),
    /// List the VM's USB devices, or with --host those of this machine
    UsbList(Lazy<usb::List>),
    /// Plug a USB device
    UsbAdd(Lazy<usb::Add>),
    /// Unplug a USB device
    UsbRemove(Lazy<usb::Remove>),
    /// List the port forwards
    PortList,
    /// Make a port forward: [ADDR:]HOST:GUEST[/tcp|udp]; host port 0 takes any free one
    PortAdd(Lazy<ports::Add>),
    /// End a port forward
    PortRemove(Lazy<ports::Remove>),
    /// List the network cards
    NicList,
    /// Plug a network card: user|tap,NAME|bridge,NAME[,mac=A][,model=M][,id=ID]
    NicAdd(Lazy<nics::Add>),
    /// Ask the guest to release a network card, and unplug it
    NicRemove(Lazy<devices::Remove>),
    /// Plug or pull a network card's cable
    Link(Lazy<nics::Link>),
    /// List the disks and CD-ROM drives
    DiskList,
    /// Plug a disk: [file=]PATH[,size=1G][,format=F][,bus=B][,readonly=on][,serial=S][,id=ID]
    DiskAdd(Lazy<disks::Add>),
    /// Ask the guest to release a disk, and unplug it
    DiskRemove(Lazy<devices::Remove>),
    /// Make a disk larger
    DiskResize(Lazy<disks::Resize>),
    /// Limit what a disk does per second
    DiskThrottle(Lazy<throttle::Throttle>),
    /// Put another image into a CD-ROM drive
    MediaChange(Lazy<disks::Change>),
    /// Take the medium out of a CD-ROM drive
    MediaEject(Lazy<disks::Eject>),
    /// Plug any device: DRIVER[,PROP=VALUE...]
    DeviceAdd(Lazy<devices::Add>),
    /// Unplug a device
    DeviceRemove(Lazy<devices::Remove>),
    /// Put the whole VM into a file, and end it; `vmrun qemu --restore FILE` goes on from there
    Save(Lazy<save::Save>),
    /// Put memory, devices and disks into a snapshot, in the VM's qcow2 images
    SnapshotSave(Lazy<snapshot::Save>),
    /// Go back to a snapshot
    SnapshotLoad(Lazy<snapshot::Named>),
    /// List the snapshots
    SnapshotList,
    /// Delete a snapshot
    SnapshotDelete(Lazy<snapshot::Named>),
    /// Stop the guest's processors
    Pause,
    /// Let the guest's processors run again
    Resume,
    /// Reset the machine without asking the guest
    Reset,
    /// Press the power button once
    Powerdown,
    /// Shut the VM down and wait until it is off: ask, ask again, quit, kill
    Shutdown(Lazy<power::Shutdown>),
    /// Wait until something has come true
    Wait(Lazy<wait::Wait>),
    /// Print events as they come, one JSON object a line, until the VM ends
    Events(Lazy<events::Events>),
    /// Run a command in the guest, through its agent; exits with the command's own code
    Exec(Lazy<exec::Exec>),
    /// Copy a file into the guest, through its agent
    CopyTo(Lazy<copy::CopyTo>),
    /// Copy a file out of the guest, through its agent
    CopyFrom(Lazy<copy::CopyFrom>),
    /// Take a picture of the guest's display, as a PNG file
    Screenshot(Lazy<screen::Screenshot>),
    /// Press keys
    SendKey(Lazy<screen::SendKey>),
    /// Type a text on a US keyboard
    Type(Lazy<screen::Type>),
    /// Run any QMP command, e.g. '{"execute": "query-block"}' or just query-block
    Qmp(Lazy<raw::Qmp>),
    /// Run a command of QEMU's human monitor
    Hmp(Lazy<raw::Hmp>),
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
        Command::UsbList(Lazy(list)) if list.host => return usb::list_host(output),
        Command::Qmp(Lazy(command)) => Command::Qmp(Lazy(command.checked()?)),
        command => command,
    };
    let (_, client) = super::connect(args.vm.as_ref())?;
    let mut context = Context { client, output };
    match command {
        Command::Status => status::show(&mut context),
        Command::Stats(Lazy(stats)) => stats.run(&mut context),
        Command::UsbList(_) => usb::list(&mut context),
        Command::UsbAdd(Lazy(add)) => add.run(&mut context),
        Command::UsbRemove(Lazy(remove)) => remove.run(&mut context),
        Command::PortList => ports::list(&mut context),
        Command::PortAdd(Lazy(add)) => add.run(&mut context),
        Command::PortRemove(Lazy(remove)) => remove.run(&mut context),
        Command::NicList => nics::list(&mut context),
        Command::NicAdd(Lazy(add)) => add.run(&mut context),
        Command::NicRemove(Lazy(remove)) => remove.run(&mut context, methods::RemoveNic, "network card"),
        Command::Link(Lazy(link)) => link.run(&mut context),
        Command::DiskList => disks::list(&mut context),
        Command::DiskAdd(Lazy(add)) => add.run(&mut context),
        Command::DiskRemove(Lazy(remove)) => remove.run(&mut context, methods::RemoveDisk, "disk"),
        Command::DiskResize(Lazy(resize)) => resize.run(&mut context),
        Command::DiskThrottle(Lazy(throttle)) => throttle.run(&mut context),
        Command::MediaChange(Lazy(change)) => change.run(&mut context),
        Command::MediaEject(Lazy(eject)) => eject.run(&mut context),
        Command::DeviceAdd(Lazy(add)) => add.run(&mut context),
        Command::DeviceRemove(Lazy(remove)) => remove.run(&mut context, methods::RemoveDevice, "device"),
        Command::Save(Lazy(save)) => save.run(&mut context),
        Command::SnapshotSave(Lazy(save)) => save.run(&mut context),
        Command::SnapshotLoad(Lazy(named)) => named.run(&mut context, methods::LoadSnapshot, "loaded"),
        Command::SnapshotList => snapshot::list(&mut context),
        Command::SnapshotDelete(Lazy(named)) => named.run(&mut context, methods::DeleteSnapshot, "deleted"),
        Command::Pause => power::plain(&mut context, methods::Pause, "paused"),
        Command::Resume => power::plain(&mut context, methods::Resume, "running"),
        Command::Reset => power::plain(&mut context, methods::Reset, "reset"),
        Command::Powerdown => power::plain(&mut context, methods::Powerdown, "the power button was pressed"),
        Command::Shutdown(Lazy(shutdown)) => shutdown.run(&mut context),
        Command::Wait(Lazy(wait)) => wait.run(&mut context),
        Command::Events(Lazy(events)) => events.run(&mut context),
        Command::Exec(Lazy(exec)) => exec.run(&mut context),
        Command::CopyTo(Lazy(copy)) => copy.run(&mut context),
        Command::CopyFrom(Lazy(copy)) => copy.run(&mut context),
        Command::Screenshot(Lazy(screenshot)) => screenshot.run(&mut context),
        Command::SendKey(Lazy(keys)) => keys.run(&mut context),
        Command::Type(Lazy(text)) => text.run(&mut context),
        Command::Qmp(Lazy(qmp)) => qmp.run(&mut context),
        Command::Hmp(Lazy(hmp)) => hmp.run(&mut context),
    }
}
