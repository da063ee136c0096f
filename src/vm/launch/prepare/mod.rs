//! From a request to everything that QEMU needs: first inspects the host and refuses what is impossible, then makes what is
//! missing. What was made is removed if the start fails.

mod addresses;
mod boot;
mod description;
mod devices;
mod disk_names;
mod disks;
mod dry_run;
mod kernel_image;
mod made;
mod making;
mod naming;
mod nics;
mod plan;
mod restored;
mod screen;
mod state;
mod unpacked;

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit};

use crate::host::dirs::{RunDir, StateDir, StoreEnvironment};
use crate::host::kept_logs;
use crate::host::template;
use crate::qemu::{HostFacts, wrapped};
use crate::spec::{Request, VmName, VmSpec};

use crate::vm::process::shares::{self, Shares};
use crate::vm::process::sockets::{self, ControlSockets};
use crate::vm::start_error::{StartError, system};
use crate::vm::state::facts::DEFAULT_LOG_CAP;
use crate::vm::state::images::Images;
use crate::vm::state::inventory::Inventory;
pub use dry_run::dry_run;
pub(in crate::vm) use made::Made;
use making::make;
use plan::{Plan, check_forwards};
pub(in crate::vm) use restored::Restored;
#[cfg(any(test, fuzzing))]
pub(in crate::vm) use restored::fuzz_restored;
pub use restored::{check_template, template_source};

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
    /// Templates are in use as long as QEMU has these open.
    pub(in crate::vm) in_use: Vec<File>,
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
    /// The folder of the template that it is a fork of.
    pub(in crate::vm) template: Option<PathBuf>,
    pub(in crate::vm) paused: bool,
    pub(in crate::vm) max_resets: Option<u32>,
    pub(in crate::vm) max_lifetime: Option<std::time::Duration>,
    pub(in crate::vm) log_bytes: u64,
    pub(in crate::vm) keep_logs: Option<PathBuf>,
    pub(in crate::vm) state_home: Option<PathBuf>,
}

impl Prepared {
    /// The VM's name.
    pub fn name(&self) -> &VmName {
        &self.spec.name
    }
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
    if let Some(folder) = &request.keep_logs {
        kept_logs::check(folder).map_err(|error| StartError::File {
            what: "the folder of `--keep-logs`",
            path: folder.clone(),
            why: error.to_string(),
            hint: None,
        })?;
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
        template: None,
        paused: request.paused,
        max_resets: request.max_resets,
        max_lifetime: request.max_lifetime,
        log_bytes: request.log_size.map_or(DEFAULT_LOG_CAP, crate::spec::Size::bytes),
        keep_logs: keep_logs(request),
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

/// The folder for the logs, for a supervisor with another working directory; it was checked before.
fn keep_logs(request: &Request) -> Option<PathBuf> {
    request.keep_logs.as_deref().and_then(|folder| std::path::absolute(folder).ok())
}

fn store_environment(request: &Request) -> StoreEnvironment {
    StoreEnvironment::from_env_or(request.state_home.as_deref())
}

/// The metadata CD, in the state directory.
fn metadata_file(request: &Request) -> &'static str {
    if request.linuxkit { "data.iso" } else { "metadata.iso" }
}
