//! What a person (or program) asked for, before this machine was looked at.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use super::{
    AccelList, Arch, BootMode, BootOrder, Condition, DeviceSpec, DiskSpec, Display, Forward, Networking,
    NicSpec, OnPanic, ShareSpec, Size, VmName,
};

/// Memory unless `--mem` says otherwise.
pub const DEFAULT_MEMORY: Size = Size(1024 << 20);
/// Spare slots unless `--hotplug-slots` says otherwise.
pub const DEFAULT_HOTPLUG_SLOTS: u8 = 8;
/// Budget of the ladder on a signal unless `--stop-timeout` says otherwise.
pub const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The request for a VM: every choice of the `vmrun qemu` command line, syntax checked, nothing resolved.
#[derive(Debug, Clone)]
pub struct Request {
    /// Disk image, ISO or prefix.
    pub image: Option<PathBuf>,
    /// What else is said of it, where it is a disk image; its `file` does not count.
    pub image_options: DiskSpec,
    /// The image may be compressed, or in an archive: then it is unpacked into the state directory.
    pub unpack: bool,
    /// Which boot mode was forced.
    pub boot: BootMode,
    /// A kernel that QEMU loads, instead of one of a prefix; the image, if there is one, then is a disk.
    pub kernel: Option<PathBuf>,
    /// The initial RAM disk of `kernel`.
    pub initrd: Option<PathBuf>,
    /// What is added to the kernel's command line; all of it, where `kernel` is given.
    pub append: Option<String>,
    /// Everything as `linuxkit run qemu` does it: SATA disks, qcow2 for what is made, its names of files.
    pub linuxkit: bool,
    /// Boot with UEFI firmware.
    pub uefi: bool,
    /// `--fw`: firmware given by path.
    pub firmware: Option<PathBuf>,
    /// What to show.
    pub display: Display,
    /// Extra disks.
    pub disks: Vec<DiskSpec>,
    /// Files and folders outside the images' own that these may lead to, as backing or data files.
    pub allow_backing: Vec<PathBuf>,
    /// Metadata for the guest.
    pub data: Option<Vec<u8>>,
    /// Accelerators asked for.
    pub accel: Option<AccelList>,
    /// Guest architecture; none = the host's.
    pub arch: Option<Arch>,
    /// Number of virtual processors, at least 1.
    pub cpus: u32,
    /// Memory.
    pub memory: Size,
    /// `-cpu` model; none = the best default.
    pub cpu: Option<String>,
    /// `-machine` type; none = the architecture's default.
    pub machine: Option<String>,
    /// QEMU's program; none = found in `PATH`.
    pub qemu: Option<PathBuf>,
    /// Networking mode; none = the default, or what a saved VM had.
    pub networking: Option<Networking>,
    /// More network cards.
    pub nics: Vec<NicSpec>,
    /// What the firmware tries, in this order; empty = as usual.
    pub boot_order: BootOrder,
    /// Forwards.
    pub publish: Vec<Forward>,
    /// Whether a USB controller is there from the start.
    pub usb: bool,
    /// Extra devices.
    pub devices: Vec<DeviceSpec>,
    /// Shared folders.
    pub shares: Vec<ShareSpec>,
    /// virtiofsd's program; none = found.
    pub virtiofsd: Option<PathBuf>,
    /// The file of a saved VM, which goes on: the guest's hardware and the names of its images are the file's. All that is of the
    /// host is still decided here: programs, folders, addresses, the sandbox, raw arguments, what is done about a panic or resets.
    pub restore: Option<PathBuf>,
    /// The folder of a template, of which the VM is a fork: all that is said of `restore` holds, but for the disks, which get
    /// overlays that are thrown away with it, and its name, which is its own.
    pub from: Option<PathBuf>,
    /// The VM is a fork of a template in the cache, which is made of the VM when it meets this for the first time. It implies
    /// `ephemeral`. Only for those that start VMs by a request: [`crate::Machine::launch`], `vmrun qemu`.
    pub warm: Option<Condition>,
    /// The VM can be frozen into a template: its memory is a file.
    pub forkable: bool,
    /// State directory; none = from the image's name.
    pub state: Option<PathBuf>,
    /// Runtime directory, instead of `$VMRUN_RUNTIME_DIR`; none = the one that the environment names.
    pub runtime: Option<PathBuf>,
    /// Folder of the user's store, instead of `$XDG_STATE_HOME`; none = the one that the environment names.
    pub state_home: Option<PathBuf>,
    /// The VM's name; none = from the image's name, made unique.
    pub name: Option<VmName>,
    /// The machine's UUID from now on; none = as in earlier runs, made up in the first.
    pub uuid: Option<Uuid>,
    /// Spare slots.
    pub hotplug_slots: u8,
    /// Budget of the ladder on a signal.
    pub stop_timeout: Duration,
    /// Writes go to overlays that are thrown away, and so does everything else of the state directory.
    pub ephemeral: bool,
    /// What happens when the guest's kernel panics.
    pub on_panic: OnPanic,
    /// A reset by the guest ends the VM.
    pub no_reboot: bool,
    /// The guest does not run until `resume`.
    pub paused: bool,
    /// More resets by the guest than this end the VM.
    pub max_resets: Option<u32>,
    /// The VM is shut down when it has run for this time.
    pub max_lifetime: Option<Duration>,
    /// The console's log has at most this many bytes; none = the default.
    pub log_size: Option<Size>,
    /// The folder in which the console's log and the outcome are kept when the VM ends.
    pub keep_logs: Option<PathBuf>,
    /// A QMP socket for the user's own tools.
    pub qmp: Option<PathBuf>,
    /// QEMU's seccomp sandbox.
    pub sandbox: bool,
    /// Arguments for QEMU, unchanged.
    pub extra: Vec<OsString>,
}

impl Request {
    /// The request for a VM that boots an image, or a kernel by its prefix, with everything else as usual.
    pub fn of(image: impl Into<PathBuf>) -> Self {
        Self { image: Some(image.into()), ..Self::default() }
    }
}

impl Default for Request {
    fn default() -> Self {
        Self {
            image: None,
            image_options: DiskSpec::default(),
            unpack: false,
            boot: BootMode::Auto,
            kernel: None,
            initrd: None,
            append: None,
            linuxkit: false,
            uefi: false,
            firmware: None,
            display: Display::None,
            disks: Vec::new(),
            allow_backing: Vec::new(),
            data: None,
            accel: None,
            arch: None,
            cpus: 1,
            memory: DEFAULT_MEMORY,
            cpu: None,
            machine: None,
            qemu: None,
            networking: None,
            nics: Vec::new(),
            boot_order: BootOrder::default(),
            publish: Vec::new(),
            usb: false,
            devices: Vec::new(),
            shares: Vec::new(),
            virtiofsd: None,
            restore: None,
            from: None,
            warm: None,
            forkable: false,
            state: None,
            runtime: None,
            state_home: None,
            name: None,
            uuid: None,
            hotplug_slots: DEFAULT_HOTPLUG_SLOTS,
            stop_timeout: DEFAULT_STOP_TIMEOUT,
            ephemeral: false,
            on_panic: OnPanic::default(),
            no_reboot: false,
            paused: false,
            max_resets: None,
            max_lifetime: None,
            log_size: None,
            keep_logs: None,
            qmp: None,
            sandbox: true,
            extra: Vec::new(),
        }
    }
}
