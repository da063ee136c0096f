//! Makes what a VM needs and is missing: its disks, its identity, its firmware variables, its sockets.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

use crate::host::dirs::{DirError, RunDir, StateDir};
use crate::host::firmware;
use crate::host::iso;
use crate::host::raw_images::RawImages;
use crate::qemu::{HostFacts, Machine};
use crate::spec::{Networking, Request, VmSpec};

use super::description::{SpecParts, spec};
use super::plan::Plan;
use super::{
    Made, MemoryFile, Prepared, RunOptions, addresses, disks, metadata_file, nics, screen, state,
    store_environment,
};
use crate::vm::process::shares::Shares;
use crate::vm::process::sockets::{self, ControlSockets};
use crate::vm::start_error::StartError;
use crate::vm::state::images::Images;
use crate::vm::state::inventory::Inventory;

/// All of [`Prepared`] except the run directory.
pub(super) struct MadeParts {
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
    pub(super) fn with(self, run: RunDir, options: RunOptions) -> Prepared {
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
            in_use: Vec::new(),
        }
    }
}

/// Makes what is missing.
pub(super) fn make(
    request: &Request,
    plan: Plan,
    run: &RunDir,
    made: &mut Made,
) -> Result<MadeParts, StartError> {
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
