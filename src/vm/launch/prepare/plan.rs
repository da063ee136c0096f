//! Inspects the host for a request, and refuses what is impossible; makes nothing.

use std::path::{Path, PathBuf};

use crate::host::accel::{self, AccelChoice, Warning};
use crate::host::dirs::{RuntimeEnvironment, runtime_root};
use crate::host::files;
use crate::host::firmware::{self, FirmwareSources, FoundFirmware};
use crate::host::notices;
use crate::host::ports;
use crate::host::programs::{self, SearchPath};
use crate::host::raw_images::RawImages;
use crate::qemu::HostFacts;
use crate::spec::vm::ExtraDevice;
use crate::spec::{AccelList, Arch, Boot, Display, Request};

use super::kernel_image::KernelImage;
use super::nics::Cards;
use super::unpacked::Packed;
use super::{boot, devices, kernel_image, screen, state, store_environment, unpacked};
use crate::vm::process::shares;
use crate::vm::start_error::{StartError, system};
use crate::vm::state::port_holder;

/// The result of inspecting the host; nothing is made yet.
pub(super) struct Plan {
    /// An absolute path.
    pub(super) image: Option<PathBuf>,
    /// If the image is packed, it does not exist yet.
    pub(super) packed: Option<Packed>,
    pub(super) kernel: Option<KernelImage>,
    pub(super) boot: Boot,
    pub(super) arch: Arch,
    pub(super) host: HostFacts,
    pub(super) accel: AccelChoice,
    pub(super) qemu: PathBuf,
    pub(super) firmware: Option<FoundFirmware>,
    pub(super) state: PathBuf,
    pub(super) devices: Vec<ExtraDevice>,
    pub(super) display: Display,
    pub(super) cards: Cards,
}

impl Plan {
    /// The same with the image unpacked to this path.
    pub(super) fn with_image(self, path: PathBuf) -> Self {
        let boot = match self.boot {
            Boot::Iso { .. } => Boot::Iso { path: path.clone() },
            boot => boot,
        };
        Self { image: Some(path), boot, ..self }
    }

    /// The same with the parts of a kernel image in this folder.
    pub(super) fn with_parts_in(self, folder: &Path) -> Self {
        let Some(kernel) = &self.kernel else { return self };
        Self { boot: kernel.boot_from(folder, self.boot), ..self }
    }

    pub(super) fn look(request: &Request) -> Result<Self, StartError> {
        let machine = accel::Machine::here().ok_or(StartError::UnknownHost)?;
        let arch = request.arch.unwrap_or(machine.arch);
        let cards = Cards::of(request)?;
        check_forwards(request, cards.have_user_networking())?;
        let raw = RawImages::new(store_environment(request));
        let packed = unpacked::look(request, &raw)?;
        let kernel = kernel_image::look(request, &raw)?;
        let boot = boot::find(request, packed.as_ref(), kernel.as_ref())?;
        let image = request.image.as_ref().map(|image| files::absolute(image)).transpose();
        let image = image.map_err(system("the working directory"))?;
        let qemu = programs::qemu(arch, request.qemu.as_deref(), &SearchPath::from_env())?;
        let accel = accel::choose(requested_accel(request)?.as_ref(), arch, &machine)?;
        if let Some(Warning { message, .. }) = &accel.warning
            && notices::is_new(&store_environment(request), notices::ACCELERATION)
        {
            log::warn!("{message}");
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
pub(super) fn check_forwards(request: &Request, has_user_networking: bool) -> Result<(), StartError> {
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
        ports::check(forward).map_err(|error| {
            let root = runtime_root(&RuntimeEnvironment::from_env_or(request.runtime.as_deref()));
            port_holder::named(root.ok().as_deref(), error)
        })?;
    }
    Ok(())
}

fn find_firmware(request: &Request, arch: Arch, boot: &Boot) -> Result<Option<FoundFirmware>, StartError> {
    if let Some(path) = &request.firmware {
        let path = files::absolute(path).map_err(system("the working directory"))?;
        return Ok(Some(firmware::given(arch, &path)?));
    }
    let needed = arch.facts().needs_uefi && !matches!(boot, Boot::Kernel { .. } | Boot::Squashfs { .. });
    if !request.uefi && !needed {
        return Ok(None);
    }
    Ok(Some(firmware::find(arch, request.machine.as_deref(), &FirmwareSources::from_env())?))
}
