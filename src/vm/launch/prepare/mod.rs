//! From a request to everything that QEMU needs: first inspects the host and refuses what is impossible, then makes what is
//! missing. What was made is removed if the start fails.

mod addresses;
mod boot;
mod devices;
mod disk_names;
mod disks;
mod kernel_image;
mod made;
mod naming;
mod nics;
mod restored;
mod screen;
mod state;
mod unpacked;

use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit};
use uuid::Uuid;

use crate::host::HINTED;
use crate::host::accel::{self, AccelChoice, Warning};
use crate::host::dirs::{DirError, RunDir, StateDir, StoreEnvironment};
use crate::host::firmware::{self, FirmwareSources, FoundFirmware};
use crate::host::programs::{self, SearchPath};
use crate::host::raw_images::RawImages;
use crate::host::{files, iso, ports, template};
use crate::qemu::{self, Channels, GuestMemory, HostFacts, Machine, models, wrapped};
use crate::spec::vm::ExtraDevice;
use crate::spec::{
    AccelList, Arch, Boot, Display, Layout, MacAddress, Networking, Nic, Request, VmName, VmSpec,
};

use crate::vm::process::shares::{self, Shares};
use crate::vm::process::sockets::{self, ControlSockets};
use crate::vm::start_error::{StartError, system};
use crate::vm::state::facts::DEFAULT_LOG_CAP;
use crate::vm::state::images::Images;
use crate::vm::state::inventory::Inventory;
use kernel_image::KernelImage;
pub(in crate::vm) use made::Made;
use nics::Cards;
pub(in crate::vm) use restored::Restored;
#[cfg(any(test, fuzzing))]
pub(in crate::vm) use restored::fuzz_restored;
pub use restored::{check_template, template_source};
use unpacked::Packed;

/// A VM that is ready to start: named, locked, its files made, its sockets bound.
#[derive(Debug)]
pub struct Prepared {
    pub(in crate::vm) spec: VmSpec,
    pub(in crate::vm) host: HostFacts,
    pub(in crate::vm) accel_reason: String,
    pub(in crate::vm) qemu: PathBuf,
    pub(in crate::vm) run: Arc<RunDir>,
    /// Accepts connections from now on: clients wait instead of failing while QEMU starts.
    pub(in crate::vm) control: ControlSockets,
    pub(in crate::vm) state: Arc<StateDir>,
    pub(in crate::vm) images: Images,
    pub(in crate::vm) inventory: Inventory,
    pub(in crate::vm) shares: Shares,
    pub(in crate::vm) user_qmp: Option<(PathBuf, UnixListener)>,
    pub(in crate::vm) made: Made,
    pub(in crate::vm) options: RunOptions,
    /// Set for a VM that is restored from a file.
    pub(in crate::vm) restored: Option<Restored>,
    /// The guest's memory, where that is a file.
    pub(in crate::vm) memory: Option<MemoryFile>,
}

/// A file that is the guest's memory.
#[derive(Debug)]
pub(in crate::vm) struct MemoryFile {
    pub(in crate::vm) file: File,
    /// The guest's writes go into it; otherwise it stays as it is.
    pub(in crate::vm) shared: bool,
}

impl MemoryFile {
    /// A new one, if the VM is to have one.
    fn of(spec: &VmSpec) -> Result<Option<Self>, StartError> {
        let new = || template::new_memory().map_err(system("the guest's memory"));
        spec.forkable.then(|| Ok(Self { file: new()?, shared: true })).transpose()
    }
}

/// The part of a request that is for the supervisor, not for QEMU.
#[derive(Debug, Clone)]
pub(in crate::vm) struct RunOptions {
    pub(in crate::vm) stop_timeout: std::time::Duration,
    pub(in crate::vm) ephemeral: bool,
    pub(in crate::vm) paused: bool,
    pub(in crate::vm) max_resets: Option<u32>,
    pub(in crate::vm) log_bytes: u64,
    pub(in crate::vm) state_home: Option<PathBuf>,
}

impl Prepared {
    /// The VM's name.
    pub fn name(&self) -> &VmName {
        &self.spec.name
    }
}

/// The result of inspecting the host; nothing is made yet.
struct Plan {
    /// An absolute path.
    image: Option<PathBuf>,
    /// If the image is packed, it does not exist yet.
    packed: Option<Packed>,
    kernel: Option<KernelImage>,
    boot: Boot,
    arch: Arch,
    host: HostFacts,
    accel: AccelChoice,
    qemu: PathBuf,
    firmware: Option<FoundFirmware>,
    state: PathBuf,
    devices: Vec<ExtraDevice>,
    display: Display,
    cards: Cards,
}

/// The fewest descriptors that a supervisor needs: with a lower limit it would fail half-way.
const FEWEST_DESCRIPTORS: u64 = 64;

fn check_limits() -> Result<(), StartError> {
    let (allowed, _) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|error| system("the limit of open files")(error.into()))?;
    if allowed < FEWEST_DESCRIPTORS {
        let why = format!("{allowed} (`ulimit -n`) are too few, {FEWEST_DESCRIPTORS} are needed");
        return Err(system("the limit of open files")(std::io::Error::other(why)));
    }
    Ok(())
}

/// Inspects the host and makes what is missing. On failure nothing is left behind.
pub fn prepare(request: &Request) -> Result<Prepared, StartError> {
    check_limits()?;
    if wrapped::stands_still(&request.extra) {
        return Err(StartError::Usage {
            message: "`-S` behind `--` would be undone: vmrun lets the guest run once it listens".to_owned(),
            hint: Some("`--paused` starts the VM without running its guest".to_owned()),
        });
    }
    if let Some(file) = &request.restore {
        return restored::prepare(request, file);
    }
    if let Some(folder) = &request.from {
        return restored::prepare(request, &folder.join(template::MACHINE));
    }
    let plan = Plan::look(request)?;
    let run = naming::claim(request)?;
    let mut made = Made::default();
    let options = RunOptions {
        stop_timeout: request.stop_timeout,
        ephemeral: request.ephemeral,
        paused: request.paused,
        max_resets: request.max_resets,
        log_bytes: request.log_size.map_or(DEFAULT_LOG_CAP, crate::spec::Size::bytes),
        state_home: request.state_home.clone(),
    };
    match make(request, plan, &run, &mut made) {
        Ok(parts) => Ok(Prepared { made, ..parts.with(run, options) }),
        Err(error) => {
            made.undo();
            run.discard();
            Err(error)
        }
    }
}

/// The QEMU command line for a request, quoted for a shell; makes nothing.
pub fn dry_run(request: &Request) -> Result<Vec<u8>, StartError> {
    let plan = Plan::look(request)?;
    let plan = match plan.packed.as_ref().map(|packed| packed.existing(&plan.state)).transpose()? {
        Some(Some(image)) => plan.with_image(image),
        Some(None) => {
            return Err(StartError::usage("the image is not unpacked yet, and a dry run makes nothing"));
        }
        None => plan,
    };
    let folder = plan.state.clone();
    let plan = plan.with_parts_in(&folder);
    let name = naming::wanted(request);
    let images = Images::dry(RawImages::new(store_environment(request)));
    let mac = files::open(&plan.state.join("mac-addr")).ok().and_then(|(file, _)| {
        let text = std::io::read_to_string(file.take(64)).ok()?;
        text.trim().parse().ok()
    });
    let mut scratch = Made::default();
    let disks = disks::all(request, &plan, &images, &mut scratch)?;
    let firmware = plan.firmware.clone().map(|found| found.in_folder(&plan.state));
    let metadata = request.data.as_ref().map(|_| plan.state.join(metadata_file(request)));
    let uuid = request.uuid.or_else(|| StateDir::uuid_at(&plan.state)).unwrap_or_else(Uuid::new_v4);
    let mac = mac.unwrap_or_else(random_mac);
    let nics = plan.cards.dry(&plan.state);
    let parts = SpecParts { name, uuid, mac, nics, disks: disks.disks, firmware, metadata };
    let spec = spec(request, &plan, parts)?;
    let shares = (0..spec.shares.len()).map(|number| 20 + i32::try_from(number).unwrap_or(0)).collect();
    let user_qmp = request.qmp.as_ref().map(|_| 13);
    let memory = spec.forkable.then_some(GuestMemory { file: 12, shared: true });
    let channels = Channels { qmp: 10, agent: 11, user_qmp, shares, memory };
    Ok(qemu::quote::shell(plan.qemu.as_os_str(), &qemu::command_line(&spec, &plan.host, &channels)))
}

impl Plan {
    /// The same with the image unpacked to this path.
    fn with_image(self, path: PathBuf) -> Self {
        let boot = match self.boot {
            Boot::Iso { .. } => Boot::Iso { path: path.clone() },
            boot => boot,
        };
        Self { image: Some(path), boot, ..self }
    }

    /// The same with the parts of a kernel image in this folder.
    fn with_parts_in(self, folder: &Path) -> Self {
        let Some(kernel) = &self.kernel else { return self };
        Self { boot: kernel.boot_from(folder, self.boot), ..self }
    }

    fn look(request: &Request) -> Result<Self, StartError> {
        let machine = accel::Machine::here().ok_or(StartError::UnknownHost)?;
        let arch = request.arch.unwrap_or(machine.arch);
        let cards = Cards::of(request)?;
        check_forwards(request, cards.have_user_networking())?;
        let raw = RawImages::new(store_environment(request));
        let packed = unpacked::look(request, &raw)?;
        let kernel = kernel_image::look(request, &raw)?;
        let boot = boot::find(request, packed.as_ref(), kernel.as_ref())?;
        let image = request.image.as_ref().map(std::path::absolute).transpose();
        let image = image.map_err(system("the working directory"))?;
        let qemu = programs::qemu(arch, request.qemu.as_deref(), &SearchPath::from_env())?;
        let accel = accel::choose(requested_accel(request)?.as_ref(), arch, &machine)?;
        if let Some(Warning { message, hint }) = &accel.warning {
            log::warn!(target: HINTED, "{message}\nhint: {hint}");
        }
        log::info!("accelerator {}: {}", accel.accel, accel.reason);
        let firmware = find_firmware(request, arch, &boot)?;
        let state = state::path(request)?;
        shares::check(request)?;
        let display = screen::resolve(&request.display)?;
        let devices = devices::extra(&request.devices, &qemu)?;
        let host = HostFacts { arch: machine.arch, accel: accel.accel };
        Ok(Self {
            image,
            packed,
            kernel,
            boot,
            arch,
            host,
            accel,
            qemu,
            firmware,
            state,
            devices,
            display,
            cards,
        })
    }
}

/// The metadata CD, in the state directory.
fn metadata_file(request: &Request) -> &'static str {
    if request.linuxkit { "data.iso" } else { "metadata.iso" }
}

fn requested_accel(request: &Request) -> Result<Option<AccelList>, StartError> {
    if request.accel.is_some() {
        return Ok(request.accel.clone());
    }
    let text = accel::override_from(|name| std::env::var(name).ok());
    let parse = |text: String| {
        text.parse()
            .map_err(|error| StartError::usage(format!("VMRUN_ACCEL or LINUXKIT_QEMU_ACCEL: {error}")))
    };
    text.map(parse).transpose()
}

/// `has_user_networking`: of a card from the start.
fn check_forwards(request: &Request, has_user_networking: bool) -> Result<(), StartError> {
    let networking = request.networking.clone().unwrap_or_default();
    if !request.publish.is_empty() && !has_user_networking {
        return Err(StartError::Usage {
            message: format!("ports can only be published with user networking, not with '{networking}'"),
            hint: Some("leave out --publish, or --networking".to_owned()),
        });
    }
    for (position, forward) in request.publish.iter().enumerate() {
        if let Some(other) = request.publish[..position].iter().find(|other| other.conflicts(forward)) {
            return Err(StartError::usage(format!("--publish {forward} collides with --publish {other}")));
        }
        ports::check(forward)?;
    }
    Ok(())
}

fn find_firmware(request: &Request, arch: Arch, boot: &Boot) -> Result<Option<FoundFirmware>, StartError> {
    if let Some(path) = &request.firmware {
        let path = std::path::absolute(path).map_err(system("the working directory"))?;
        return Ok(Some(firmware::given(arch, &path)?));
    }
    let needed = arch.facts().needs_uefi && !matches!(boot, Boot::Kernel { .. } | Boot::Squashfs { .. });
    if !request.uefi && !needed {
        return Ok(None);
    }
    Ok(Some(firmware::find(arch, request.machine.as_deref(), &FirmwareSources::from_env())?))
}

/// All of [`Prepared`] except the run directory.
struct MadeParts {
    spec: VmSpec,
    host: HostFacts,
    accel_reason: String,
    qemu: PathBuf,
    control: ControlSockets,
    state: Arc<StateDir>,
    /// The state is removed after the run.
    ephemeral: bool,
    images: Images,
    inventory: Inventory,
    shares: Shares,
    user_qmp: Option<(PathBuf, UnixListener)>,
    memory: Option<MemoryFile>,
}

impl MadeParts {
    fn with(self, run: RunDir, options: RunOptions) -> Prepared {
        Prepared {
            spec: self.spec,
            host: self.host,
            accel_reason: self.accel_reason,
            qemu: self.qemu,
            run: Arc::new(run),
            control: self.control,
            state: self.state,
            images: self.images,
            inventory: self.inventory,
            shares: self.shares,
            user_qmp: self.user_qmp,
            made: Made::default(),
            options: RunOptions { ephemeral: self.ephemeral, ..options },
            restored: None,
            memory: self.memory,
        }
    }
}

/// Makes what is missing.
fn make(request: &Request, plan: Plan, run: &RunDir, made: &mut Made) -> Result<MadeParts, StartError> {
    // removes files of a killed supervisor
    run.clear().map_err(StartError::RunDirectory)?;
    screen::check(&plan.display)?;
    let control = ControlSockets::open(run)?;
    let state::Opened { state, ephemeral, identity: base } = state::open(request, &plan, run, made)?;
    state.hold();
    let plan = match &plan.packed {
        Some(packed) => {
            let existing = if ephemeral { packed.existing(&plan.state)? } else { None };
            let image = existing.map_or_else(|| packed.unpacked(&state), Ok)?;
            plan.with_image(image)
        }
        None => plan,
    };
    if let Some(kernel) = &plan.kernel {
        kernel.take_apart(&state)?;
    }
    let plan = Plan { state: state.path().to_owned(), ..plan.with_parts_in(state.path()) };
    let raw = RawImages::new(store_environment(request));
    let images = Images::new(Arc::clone(&state), !request.ephemeral, run.path(), raw);
    images.hold();
    let disks = disks::all(request, &plan, &images, made)?;
    let firmware = plan.firmware.clone().map(|found| firmware::prepare(found, &state)).transpose()?;
    let name = run.name().clone();
    let uuid = identity(request, base.uuid, &state)?;
    let metadata = match &request.data {
        Some(data) => Some(iso::metadata_iso(&state, metadata_file(request), data, uuid, name.as_str())?),
        None => None,
    };
    let mac = addresses::choose(run, &plan.cards.networking, base.mac, || state.mac())?;
    let nics = plan.cards.with_addresses(run, &state, base.folder.as_deref())?;
    nics::check_addresses((plan.cards.networking != Networking::None).then_some(mac), &nics)?;
    let parts = SpecParts { name, uuid, mac, nics, disks: disks.disks.clone(), firmware, metadata };
    let spec = spec(request, &plan, parts)?;
    let inventory = disks::inventory(&Machine::of(&spec), &spec, &disks);
    let shares = Shares::bind(&spec, request.virtiofsd.as_deref(), run)?;
    let user_qmp = request.qmp.as_deref().map(sockets::user_monitor).transpose()?;
    let memory = MemoryFile::of(&spec)?;
    Ok(MadeParts {
        spec,
        host: plan.host,
        accel_reason: plan.accel.reason,
        qemu: plan.qemu,
        control,
        state,
        ephemeral,
        images,
        inventory,
        shares,
        user_qmp,
        memory,
    })
}

/// The machine's UUID: the requested one, or that of the state directory; an ephemeral run uses that of the image's own VM, if
/// there is one.
fn identity(request: &Request, base: Option<Uuid>, state: &StateDir) -> Result<Uuid, DirError> {
    match request.uuid.or(base) {
        Some(uuid) => state.set_uuid(uuid).map(|()| uuid),
        None => state.uuid(),
    }
}

fn store_environment(request: &Request) -> StoreEnvironment {
    StoreEnvironment::from_env_or(request.state_home.as_deref())
}

struct SpecParts {
    name: VmName,
    uuid: Uuid,
    mac: MacAddress,
    nics: Vec<Nic>,
    disks: Vec<crate::spec::Disk>,
    firmware: Option<crate::spec::Firmware>,
    metadata: Option<PathBuf>,
}

fn spec(request: &Request, plan: &Plan, parts: SpecParts) -> Result<VmSpec, StartError> {
    let usb_driver = |device: &ExtraDevice| {
        device.driver.starts_with(models::USB) && !device.properties.contains_key("bus")
    };
    let spec = VmSpec {
        name: parts.name,
        uuid: parts.uuid,
        layout: Layout::Fixed,
        arch: plan.arch,
        machine: request.machine.clone(),
        cpu: request.cpu.clone(),
        cpus: request.cpus,
        memory: request.memory,
        boot: plan.boot.clone(),
        firmware: parts.firmware,
        display: plan.display.clone(),
        disks: parts.disks,
        metadata: parts.metadata,
        networking: plan.cards.networking.clone(),
        mac: parts.mac,
        nics: parts.nics,
        boot_order: request.boot_order.clone(),
        publish: request.publish.clone(),
        usb: request.usb || plan.devices.iter().any(usb_driver),
        devices: plan.devices.clone(),
        shares: shares::resolve(request)?,
        hotplug_slots: request.hotplug_slots,
        forkable: request.forkable,
        on_panic: request.on_panic,
        no_reboot: request.no_reboot,
        sandbox: request.sandbox,
        extra: request.extra.clone(),
    };
    // QEMU's bridge helper gains no privileges under any filter (see the command line): `status` must report what is in force
    let spec = VmSpec { sandbox: spec.sandbox && !spec.uses_bridge(), ..spec };
    qemu::check(&spec)?;
    Ok(spec)
}

fn random_mac() -> MacAddress {
    MacAddress::from_random(rand::random())
}
