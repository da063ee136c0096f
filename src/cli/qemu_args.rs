//! The flags of `vmrun qemu`: those of `linuxkit run qemu` under the same names, and more.

mod request;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args};
use uuid::Uuid;

use crate::spec::{
    AccelList, Arch, BootOrder, Condition, DeviceSpec, Display, Networking, NicSpec, OnPanic, ShareSpec,
    Size, VmName, duration,
};

use crate::qmp::Transcript;
use crate::vm::console::EscapeKey;

use super::as_typed::{TypedDisk, TypedForward, count};
use super::failure::Failure;
use super::limit::Limit;
use super::logger::{self, LogFormat};

/// Flags that conflict with `--restore`, since the saved VM's file decides.
const HARDWARE: [&str; 25] = [
    "boot",
    "image",
    "unpack",
    "kernel",
    "initrd",
    "append",
    "linuxkit",
    "iso",
    "squashfs",
    "uefi",
    "arch",
    "accel",
    "cpus",
    "mem",
    "cpu",
    "machine",
    "uuid",
    "disk",
    "data",
    "data_file",
    "usb",
    "hotplug_slots",
    // an ephemeral VM cannot be saved
    "ephemeral",
    "forkable",
    "warm",
];

/// `vmrun qemu`.
#[derive(Debug, Args)]
#[command(override_usage = "vmrun qemu [OPTIONS] [IMAGE] [-- EXTRA QEMU ARGS...]")]
pub(super) struct QemuArgs {
    #[command(flatten)]
    pub(super) vm: VmArgs,
    #[command(flatten, next_help_heading = "Run")]
    pub(super) run: RunArgs,

    /// Arguments passed to QEMU unchanged
    #[arg(last = true, value_name = "EXTRA QEMU ARGS")]
    extra: Vec<OsString>,
}

/// What VM to start, and how vmrun treats it.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("goes_on").args(["restore", "from"]))]
pub(super) struct VmArgs {
    /// Disk image[,OPTION...] as for --disk, *.iso, or the prefix of -kernel/-initrd.img/-cmdline or
    /// -kernel/-squashfs.img/-cmdline; without it the first disk boots, else the network
    image: Option<PathBuf>,
    /// Restore a VM that `ctl save` has saved to this file, instead of starting one
    #[arg(long, value_name = "FILE", conflicts_with_all = HARDWARE)]
    restore: Option<PathBuf>,
    /// Start as a fork of the template that `ctl freeze` has put into this folder: in a moment, with disks and memory of its own
    #[arg(long, value_name = "DIR", conflicts_with_all = HARDWARE, conflicts_with_all = ["restore", "state"])]
    from: Option<PathBuf>,

    #[command(flatten, next_help_heading = "Boot")]
    boot: BootArgs,
    #[command(flatten, next_help_heading = "Machine")]
    machine: MachineArgs,
    #[command(flatten, next_help_heading = "Disks and data")]
    storage: StorageArgs,
    #[command(flatten, next_help_heading = "Network")]
    network: NetworkArgs,
    #[command(flatten, next_help_heading = "Devices")]
    devices: DeviceArgs,
    #[command(flatten, next_help_heading = "Run")]
    pub(super) own: OwnArgs,
}

#[derive(Debug, Args)]
struct BootArgs {
    /// Without FILE: IMAGE is the prefix of a kernel, an initrd and a command line. =FILE (or, beside --initrd, FILE): boot this
    /// kernel; IMAGE, if given, is a disk
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "",
        value_parser = OsStringValueParser::new(), conflicts_with_all = ["iso", "squashfs"])]
    kernel: Option<OsString>,
    /// Initial RAM disk for --kernel=FILE
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Text to append to the kernel's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    append: Option<String>,
    /// IMAGE is a CD image
    #[arg(long, conflicts_with = "squashfs")]
    iso: bool,
    /// IMAGE is the prefix of a kernel, a squashfs root and a command line
    #[arg(long)]
    squashfs: bool,
    /// Boot with UEFI firmware; its variables are kept in the state directory
    #[arg(long)]
    uefi: bool,
    /// Firmware to use instead of the detected one
    #[arg(long, value_name = "PATH")]
    fw: Option<PathBuf>,
    /// Boot order of the firmware: net, disk, cdrom [default: an ISO, then the first disk; without IMAGE the disks, then the
    /// network]
    #[arg(long, value_name = "ORDER")]
    boot: Option<BootOrder>,
    /// Behave exactly like `linuxkit run qemu`: SATA disks (/dev/sda), qcow2 for new ones, its file names, --publish on all
    /// addresses
    #[arg(long)]
    linuxkit: bool,
}

#[derive(Debug, Args)]
struct MachineArgs {
    /// Guest architecture: x86_64, aarch64, s390x, riscv64 [default: this host's]
    #[arg(long)]
    arch: Option<Arch>,
    /// Accelerators in order of preference, e.g. kvm:tcg [default: those that work here]
    #[arg(long, value_name = "LIST")]
    accel: Option<AccelList>,
    /// Number of processors
    #[arg(long, short, value_name = "N", default_value = "1", value_parser = count::<u32>(1, 4096))]
    cpus: u32,
    /// Memory, e.g. 2G; a plain number is MB
    #[arg(long, short, value_name = "SIZE", default_value = "1G")]
    mem: Size,
    /// Processor model [default: host with KVM, max without]
    #[arg(long, value_name = "MODEL")]
    cpu: Option<String>,
    /// Machine type, e.g. q35, pc, microvm, virt
    #[arg(long, value_name = "TYPE")]
    machine: Option<String>,
    /// UUID of the machine, now and in later runs [default: generated in the first run]
    #[arg(long)]
    uuid: Option<Uuid>,
    /// QEMU program [default: qemu-system-<arch> from PATH]
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    #[command(flatten)]
    life: LifeArgs,
}

/// What the guest may do, and how it starts.
#[derive(Debug, Args)]
struct LifeArgs {
    /// Action when the guest's kernel panics: poweroff, pause or reset
    #[arg(long, value_name = "ACTION", default_value = "poweroff")]
    on_panic: OnPanic,
    /// End the VM when the guest resets
    #[arg(long)]
    no_reboot: bool,
    /// Start without running the guest; `vmrun ctl resume` runs it
    #[arg(long)]
    paused: bool,
    /// End the VM, with exit code 13, after more resets by the guest than this
    #[arg(long, value_name = "N", value_parser = count::<u32>(0, u32::MAX.into()))]
    max_resets: Option<u32>,
    /// Run QEMU without its seccomp sandbox
    #[arg(long)]
    no_sandbox: bool,
}

/// What is a fork's own, and not its template's.
#[derive(Debug, Args)]
pub(super) struct ForkArgs {
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    life: LifeArgs,
}

#[derive(Debug, Args)]
struct StorageArgs {
    /// [file=]PATH[,size=1G[,grow=on]][,format=qcow2][,bus=virtio|scsi|sata|usb|nvme][,readonly=on][,serial=S][,id=ID]
    /// [,cache=none|writeback|writethrough|directsync|unsafe][,aio=threads|native|io_uring][,discard=unmap|ignore]
    /// [,detect-zeroes=off|on|unmap][,logical-block-size=512|4096][,iothread=on][,boot=N]; a plain size is GB; without a path
    /// disk.img, disk1.img, ... in the state directory; repeatable
    #[arg(long, value_parser = OsStringValueParser::new().try_map(|text: OsString| TypedDisk::parse(&text)))]
    disk: Vec<TypedDisk>,
    /// Unpack a compressed IMAGE (.xz, .gz, .zst, .bz2, ...), or the first image of an archive (.ova, .tar, .zip), into the state
    /// directory; later runs use the unpacked image
    #[arg(long)]
    unpack: bool,
    /// File, or folder of files, that the images may refer to as backing or data files, besides their own folders; repeatable
    #[arg(long, value_name = "PATH")]
    allow_backing: Vec<PathBuf>,
    /// Metadata for the guest
    #[arg(long, value_name = "STRING", conflicts_with = "data_file")]
    data: Option<OsString>,
    /// File with metadata for the guest
    #[arg(long, value_name = "PATH")]
    data_file: Option<PathBuf>,
    /// Discard everything that is written when the VM ends
    #[arg(long)]
    ephemeral: bool,
    /// State directory [default: <image>-state]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct NetworkArgs {
    /// default, user[,net=10.0.3.0/24][,dns=ADDRESS][,hostname=NAME][,restrict=on], bridge,NAME, tap,NAME or none [default: default]
    #[arg(long, value_name = "MODE")]
    networking: Option<Networking>,
    /// Further network card: user[,net=...][,dns=...][,hostname=...][,restrict=on], tap,NAME or bridge,NAME, then
    /// [,mac=ADDRESS][,model=virtio|e1000|e1000e|rtl8139|vmxnet3][,id=ID]; repeatable
    #[arg(long, value_name = "SPEC")]
    nic: Vec<NicSpec>,
    /// Port forward [ADDR:]HOST:GUEST[/tcp|udp]; host port 0 takes any free one; repeatable
    #[arg(long, short, value_name = "FORWARD")]
    publish: Vec<TypedForward>,
}

#[derive(Debug, Args)]
struct DeviceArgs {
    /// Add a USB controller from the start
    #[arg(long)]
    usb: bool,
    /// Device DRIVER[,PROP=VALUE...] as for QEMU's -device; repeatable
    #[arg(long, value_name = "DEVICE")]
    device: Vec<DeviceSpec>,
    /// Shared folder: DIR[,tag=T]; repeatable
    #[arg(long, value_name = "DIR", value_parser = OsStringValueParser::new().try_map(|text: OsString| ShareSpec::parse(&text)))]
    virtiofs: Vec<ShareSpec>,
    /// virtiofsd program
    #[arg(long, value_name = "PATH")]
    virtiofsd: Option<PathBuf>,
    /// Open a window instead of the serial console; its close button does nothing, its menu has Power Down
    #[arg(long, conflicts_with = "display")]
    gui: bool,
    /// none, gui, gtk or sdl[,OPTION=VALUE...] as for QEMU, vnc=unix:PATH or vnc=[ADDR]:DISPLAY, spice=unix:PATH or
    /// spice=[ADDR]:PORT (ADDR on this host only), or headless: a video device without a window
    #[arg(long, value_name = "KIND")]
    display: Option<Display>,
    /// Number of spare slots for devices that are plugged while the VM runs
    #[arg(long, value_name = "N", default_value = "8", value_parser = count::<u8>(0, 64))]
    hotplug_slots: u8,
}

/// Options of vmrun itself.
#[derive(Debug, Args)]
pub(super) struct OwnArgs {
    /// VM name [default: from the image's name]
    #[arg(long, short)]
    pub(super) name: Option<VmName>,
    /// Start as a fork of a VM that has met this condition (as for ctl wait), in a moment: the first start boots and freezes
    /// it into the cache. Implies --ephemeral
    #[arg(long, value_name = "CONDITION")]
    pub(super) warm: Option<Condition>,
    /// The VM can be frozen into a template and forked: its memory is a file
    #[arg(long)]
    forkable: bool,
    /// Leave the guest's clock as it was when the VM was saved
    #[arg(long, requires = "goes_on")]
    pub(super) no_time_sync: bool,
    /// How long to ask the guest on a signal before QEMU quits
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "30s")]
    stop_timeout: Duration,
    /// Maximum size of the console's log on disk [default: 16M]
    #[arg(long, value_name = "SIZE")]
    log_size: Option<Size>,
    /// Keep the console's log and the outcome in DIR/NAME (NAME.1, …) when the VM ends
    #[arg(long, value_name = "DIR")]
    keep_logs: Option<PathBuf>,
    /// Path of a second, separate QMP socket for your own tools
    #[arg(long, value_name = "PATH")]
    qmp: Option<PathBuf>,
    /// Write all QMP messages to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub(super) qmp_log: Option<PathBuf>,
    /// Log what vmrun does; twice: all QMP messages, too
    #[arg(short, long, action = ArgAction::Count)]
    pub(super) verbose: u8,
    /// Print errors only
    #[arg(short, long, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Format of vmrun's own messages
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(super) log_format: LogFormat,
}

impl OwnArgs {
    /// The logger that these flags ask for.
    pub(super) fn install_logger(&self) {
        let verbosity = if self.quiet { -1 } else { i8::try_from(self.verbose).unwrap_or(2) };
        logger::install(verbosity, self.log_format);
    }

    /// Where QMP's messages are written to, if anywhere.
    pub(super) fn transcript(&self) -> Result<Option<Transcript>, Failure> {
        match &self.qmp_log {
            Some(path) => Transcript::file(path)
                .map(Some)
                .map_err(|error| Failure::other(format!("--qmp-log {}: {error}", path.display()))),
            None => Ok((self.verbose >= 2).then(Transcript::log)),
        }
    }
}

/// How `vmrun qemu` runs: in the foreground, with the console, or in the background.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Run in the background
    #[arg(long, short)]
    pub(super) detached: bool,
    /// With --detached: return when this condition is met (as for ctl wait); a service manager is notified then, too
    #[arg(long, value_name = "CONDITION")]
    pub(super) wait: Option<Condition>,
    /// How long --wait may take, or none [default: 5m with --detached; none for exit]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, requires = "wait")]
    pub(super) wait_timeout: Option<Limit>,
    /// With --detached: leave the VM running even if --wait fails, or the caller has gone
    #[arg(long, requires = "detached")]
    pub(super) keep: bool,
    /// Shut the VM down when it has run for this time
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse)]
    max_lifetime: Option<Duration>,
    /// Shut the VM down when the process that started vmrun has ended
    #[arg(long, conflicts_with = "detached")]
    pub(super) die_with_parent: bool,
    /// Escape key of the console: ctrl-a to ctrl-z, ctrl-], or none
    #[arg(long, value_name = "KEY", default_value = "ctrl-a")]
    pub(super) escape: EscapeKey,
    /// Print the QEMU command line, quoted for a shell, and exit
    #[arg(long, conflicts_with_all = ["restore", "from"])]
    pub(super) dry_run: bool,
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    /// Every flag is either allowed or refused beside `--restore`: an ignored one would mislead.
    #[test]
    fn every_flag_is_for_a_restore_or_against_it() {
        /// The flags that a file does not decide; a dry run says itself that it starts nothing.
        const HOST: [&str; 38] = [
            "max_lifetime",
            "die_with_parent",
            "nic",
            "from",
            "restore",
            "fw",
            "qemu",
            "on_panic",
            "no_reboot",
            "paused",
            "max_resets",
            "no_sandbox",
            "allow_backing",
            "state",
            "networking",
            "publish",
            "device",
            "virtiofs",
            "virtiofsd",
            "gui",
            "display",
            "name",
            "detached",
            "keep",
            "wait",
            "wait_timeout",
            "no_time_sync",
            "escape",
            "stop_timeout",
            "log_size",
            "keep_logs",
            "qmp",
            "qmp_log",
            "verbose",
            "quiet",
            "log_format",
            "extra",
            "dry_run",
        ];
        let command = QemuArgs::augment_args(Command::new("qemu"));
        for argument in command.get_arguments() {
            let id = argument.get_id().as_str();
            assert_ne!(HOST.contains(&id), HARDWARE.contains(&id), "{id}");
        }
    }
}
