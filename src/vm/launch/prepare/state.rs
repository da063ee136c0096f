//! The state directory of a VM at its start: beside the image; in the user's store for a VM without an image; or temporary.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use crate::host::dirs::{
    DirError, EphemeralEnvironment, RunDir, RuntimeEnvironment, StateBefore, StateDir, StoreError,
    ephemeral_path, linuxkit_state_path, open_ephemeral, runtime_root, state_path_in, store_path, user_store,
};
use crate::spec::{Boot, MacAddress, Request, VmName};

use super::{Made, Plan, naming, store_environment};
use crate::vm::start_error::{StartError, system};
use crate::vm::state::vm_file::vm_with_state;

/// The folder of the user's store for VMs that have neither an image nor a disk with a path.
const MACHINES: &str = "machines";

/// Where the state is: beside the image, or beside the first disk that has a path, or in the user's store.
pub(super) fn path(request: &Request) -> Result<PathBuf, StartError> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(system("the working directory"));
    if let Some(state) = &request.state {
        return absolute(state);
    }
    let first_disk = || request.disks.iter().find_map(|disk| disk.file.as_deref());
    match request.image.as_deref().or_else(first_disk) {
        Some(image) if request.linuxkit => absolute(image).map(|image| linuxkit_state_path(&image)),
        Some(image) => Ok(state_path_in(std::env::var_os("STATE_DIRECTORY"), &absolute(image)?)),
        None => without_image(request, &naming::wanted(request)),
    }
}

/// The same for a VM of this name without a file beside which the state could be.
pub(super) fn without_image(request: &Request, name: &VmName) -> Result<PathBuf, StartError> {
    let store = store_path(&store_environment(request)).map_err(|error| match error {
        StoreError::Unusable(error) => StartError::StateDirectory(error),
        error @ StoreError::NoHome => {
            system("the state directory")(std::io::Error::other(format!("{error}; nor is there `--state`")))
        }
    })?;
    Ok(state_path_in(std::env::var_os("STATE_DIRECTORY"), &store.join(MACHINES).join(name.as_str())))
}

/// Makes the parent folders of the state directory, if they are in the user's store.
pub(super) fn make_room(request: &Request, state: &Path) -> Result<(), DirError> {
    let environment = store_environment(request);
    let is_in_store = |store: PathBuf| state.parent() == Some(store.join(MACHINES).as_path());
    if !store_path(&environment).is_ok_and(is_in_store) {
        return Ok(());
    }
    let made = user_store(&environment).and_then(|store| Ok(store.subdirectory(MACHINES)?));
    match made {
        Ok(_) => Ok(()),
        Err(StoreError::Unusable(error)) => Err(error),
        Err(StoreError::NoHome) => Err(DirError::Missing { path: state.to_owned() }),
    }
}

/// An opened state directory, which belongs to this VM from now on.
pub(super) struct Opened {
    pub(super) state: Arc<StateDir>,
    /// It is removed after the run.
    pub(super) ephemeral: bool,
    /// UUID and addresses of the image's own state directory, where this is another one.
    pub(super) identity: Identity,
}

/// What identifies the machine to its guest. A guest that was configured for one address has no network with another.
#[derive(Debug, Default)]
pub(super) struct Identity {
    pub(super) uuid: Option<Uuid>,
    pub(super) mac: Option<MacAddress>,
    /// The state directory with the addresses of the further cards.
    pub(super) folder: Option<PathBuf>,
}

/// Opens (or makes) it.
pub(super) fn open(
    request: &Request,
    plan: &Plan,
    run: &RunDir,
    made: &mut Made,
) -> Result<Opened, StartError> {
    if request.ephemeral {
        let identity = Identity {
            uuid: StateDir::uuid_at(&plan.state),
            mac: StateDir::mac_at(&plan.state),
            folder: Some(plan.state.clone()),
        };
        return Ok(Opened { state: ephemeral(run, made)?, ephemeral: true, identity });
    }
    let before = StateBefore::look(&plan.state);
    let opened = make_room(request, &plan.state).and_then(|()| StateDir::open(&plan.state));
    let state = match opened {
        Err(error) if is_for_another(&error) && nothing_to_keep(request, plan) => {
            log::info!("this run has a state directory of its own, which goes with it: {error}");
            let identity = Identity::default();
            return Ok(Opened { state: ephemeral(run, made)?, ephemeral: true, identity });
        }
        Err(DirError::InUse { path }) => return Err(taken(request, path)),
        other => other?,
    };
    made.state(before.of(&state).map_err(system("the state directory"))?);
    Ok(Opened { state: Arc::new(state), ephemeral: false, identity: Identity::default() })
}

/// Adds which VM has it to the error.
fn taken(request: &Request, path: PathBuf) -> StartError {
    let root = runtime_root(&RuntimeEnvironment::from_env_or(request.runtime.as_deref()));
    match root.ok().and_then(|root| vm_with_state(&root, &path)) {
        Some(vm) => StartError::StateTaken { path, vm },
        None => StartError::StateDirectory(DirError::InUse { path }),
    }
}

pub(super) fn ephemeral(run: &RunDir, made: &mut Made) -> Result<Arc<StateDir>, DirError> {
    let environment = EphemeralEnvironment::from_env();
    let path = ephemeral_path(&environment, run.name())?;
    let state = open_ephemeral(&environment, &path, run.path())?;
    made.ephemeral(&state);
    Ok(Arc::new(state))
}

/// Another VM of the same image has it, or the image is in a read-only folder.
fn is_for_another(error: &DirError) -> bool {
    match error {
        DirError::InUse { .. } | DirError::NotWritable { .. } | DirError::Foreign { .. } => true,
        DirError::Io { source, .. } => {
            matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
        }
        _ => false,
    }
}

/// Its boot medium is read-only, and it has no own disk: it may run many times at once.
fn nothing_to_keep(request: &Request, plan: &Plan) -> bool {
    let boots_unchanged = !matches!(plan.boot, Boot::Disk);
    boots_unchanged && request.state.is_none() && request.disks.iter().all(|disk| disk.file.is_some())
}
