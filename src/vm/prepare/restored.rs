//! From the file of a saved VM to everything that QEMU needs. Nothing is decided anew: the machine must be the same one.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::host::accel::{self, Machine as Host};
use crate::host::dirs::{RunDir, StateDir};
use crate::host::ports;
use crate::host::programs::{self, SearchPath};
use crate::host::saved::{self, SavedError};
use crate::qemu::{HostFacts, Machine, Slots};
use crate::spec::{AccelList, Forward, Request, VmSpec};

use super::super::error::Why;
use super::super::images::Images;
use super::super::inventory::Inventory;
use super::super::saving::{FileFacts, Saved};
use super::super::start_error::{StartError, system};
use super::{Doors, Made, Prepared, RunOptions, Shares, naming, sockets};

/// A saved VM that is about to go on.
#[derive(Debug)]
pub(in super::super) struct Restored {
    pub(in super::super) saved: Saved,
    /// At the beginning of what QEMU wrote.
    pub(in super::super) stream: File,
}

/// Looks and makes. On failure nothing is left.
pub(super) fn prepare(request: &Request, path: &Path) -> Result<Prepared, StartError> {
    let path = std::path::absolute(path).map_err(system("the working directory"))?;
    let (text, stream) = saved::open(&path)?;
    let saved: Saved = serde_json::from_slice(&text)
        .map_err(|error| SavedError::Description { path: path.clone(), why: error.to_string() })?;
    for file in &saved.files {
        check_unchanged(file)?;
    }
    let accel = accel(&saved)?;
    let there = saved.facts.qemu.exists().then_some(saved.facts.qemu.as_path());
    let qemu = programs::qemu(saved.spec.arch, request.qemu.as_deref().or(there), &SearchPath::from_env())?;
    let publish = forwards(&saved)?;
    let name = request.name.clone().unwrap_or_else(|| saved.spec.name.clone());
    let run = naming::claim(&Request { name: Some(name.clone()), ..Request::default() }, Path::new(""))?;
    let spec = VmSpec { name, publish, ..saved.spec.clone() };
    let made = Places::make(request, &saved, &run);
    let Places { control, state, user_qmp } = match made {
        Ok(places) => places,
        Err(error) => {
            let _ = run.remove_all();
            return Err(error);
        }
    };
    Ok(Prepared {
        host: HostFacts { accel: accel.accel, ..saved.facts.host },
        accel_reason: accel.reason,
        qemu,
        control,
        images: Images::new(Arc::clone(&state), run.path()),
        state,
        // QEMU is asked once it has its state
        inventory: Inventory::new(Slots::of(&Machine::of(&spec), &spec)),
        shares: Shares::default(),
        user_qmp,
        made: Made::default(),
        options: RunOptions {
            stop_timeout: request.stop_timeout,
            ephemeral: false,
            max_resets: saved.facts.max_resets,
            log_bytes: saved.facts.log_bytes,
        },
        spec,
        run: Arc::new(run),
        restored: Some(Restored { saved, stream }),
    })
}

struct Places {
    control: Doors,
    state: Arc<StateDir>,
    user_qmp: Option<(std::path::PathBuf, std::os::unix::net::UnixListener)>,
}

impl Places {
    fn make(request: &Request, saved: &Saved, run: &RunDir) -> Result<Self, StartError> {
        // what a killed supervisor left in it is nobody's
        run.clear().map_err(system("the run directory"))?;
        Ok(Self {
            control: Doors::open(run)?,
            state: Arc::new(StateDir::open(&saved.facts.state_directory)?),
            user_qmp: request.qmp.as_deref().map(sockets::user_monitor).transpose()?,
        })
    }
}

/// The guest knows what is on its disks: if that is not so any more, it would destroy them.
fn check_unchanged(then: &FileFacts) -> Result<(), StartError> {
    let why = match FileFacts::of(&then.path) {
        Ok(now) if now == *then => return Ok(()),
        Ok(_) => "it has been changed or replaced since the VM was saved".to_owned(),
        Err(error) => error.told(),
    };
    let hint = "the saved VM fits only the files that it was saved with; put them back, or start the VM anew from its image";
    Err(StartError::File { what: "file", path: then.path.clone(), why, hint: Some(hint.to_owned()) })
}

/// The accelerator that it was saved with: the guest's processor is not the same with another.
fn accel(saved: &Saved) -> Result<accel::AccelChoice, StartError> {
    let host = Host::here().ok_or(StartError::UnknownHost)?;
    let wanted: AccelList = saved
        .facts
        .host
        .accel
        .to_string()
        .parse()
        .map_err(|error| StartError::usage(format!("accelerator of the saved VM: {error}")))?;
    Ok(accel::choose(Some(&wanted), saved.spec.arch, &host)?)
}

/// The forwards of the last moment. A host port that QEMU had picked is taken again if it is free, else it picks another.
fn forwards(saved: &Saved) -> Result<Vec<Forward>, StartError> {
    let mut forwards = saved.spec.publish.clone();
    for forward in &mut forwards {
        match ports::check(forward) {
            Ok(()) => {}
            Err(_) if saved.any_port.contains(forward) => forward.host = 0,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(forwards)
}
