//! The state directory of a VM that is started: the image's own, or one that goes with the run.

use std::io::ErrorKind;
use std::sync::Arc;

use uuid::Uuid;

use crate::host::dirs::{
    DirError, EphemeralEnvironment, RunDir, StateBefore, StateDir, ephemeral_path, open_ephemeral,
};
use crate::spec::{Boot, MacAddress, Request};

use super::super::start_error::{StartError, system};
use super::{Made, Plan};

/// A state directory that is the VM's from now on.
pub(super) struct Opened {
    pub(super) state: Arc<StateDir>,
    /// It goes with the run.
    pub(super) ephemeral: bool,
    /// Of the image's own state directory, where that is not the one.
    pub(super) identity: Identity,
}

/// By what a guest knows its machine. One that was set up for an address has no network with another.
#[derive(Debug, Default)]
pub(super) struct Identity {
    pub(super) uuid: Option<Uuid>,
    pub(super) mac: Option<MacAddress>,
}

/// Opens (or makes) it.
pub(super) fn open(
    request: &Request,
    plan: &Plan,
    run: &RunDir,
    made: &mut Made,
) -> Result<Opened, StartError> {
    if request.ephemeral {
        let identity = Identity { uuid: StateDir::uuid_at(&plan.state), mac: StateDir::mac_at(&plan.state) };
        return Ok(Opened { state: ephemeral(run, made)?, ephemeral: true, identity });
    }
    let before = StateBefore::look(&plan.state);
    let state = match StateDir::open(&plan.state) {
        Err(error) if is_for_another(&error) && nothing_to_keep(request, plan) => {
            log::info!("this run has a state directory of its own, which goes with it: {error}");
            let identity = Identity::default();
            return Ok(Opened { state: ephemeral(run, made)?, ephemeral: true, identity });
        }
        other => other?,
    };
    made.state(before.of(&state).map_err(system("the state directory"))?);
    Ok(Opened { state: Arc::new(state), ephemeral: false, identity: Identity::default() })
}

fn ephemeral(run: &RunDir, made: &mut Made) -> Result<Arc<StateDir>, DirError> {
    let environment = EphemeralEnvironment::from_env();
    let path = ephemeral_path(&environment, run.name())?;
    let state = open_ephemeral(&environment, &path, run.path())?;
    made.ephemeral(&state);
    Ok(Arc::new(state))
}

/// Another VM of the same image has it, or images are only read where this one lies.
fn is_for_another(error: &DirError) -> bool {
    match error {
        DirError::InUse { .. } | DirError::NotWritable { .. } | DirError::Foreign { .. } => true,
        DirError::Io { source, .. } => {
            matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
        }
        _ => false,
    }
}

/// What it boots from is only read, and nobody would miss a disk: it may run many times at once, and for anybody.
fn nothing_to_keep(request: &Request, plan: &Plan) -> bool {
    let boots_unchanged = !matches!(plan.boot, Boot::Disk);
    boots_unchanged && request.state.is_none() && request.disks.iter().all(|disk| disk.file.is_some())
}
