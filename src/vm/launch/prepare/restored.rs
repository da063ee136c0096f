//! From the file of a saved VM to everything that QEMU needs: the machine must be identical.
//!
//! The file is untrusted input, like an image. From it come the guest's hardware and the names of its images, each checked as at a
//! start. The command line decides what a VM does on the host: programs, the sandbox, raw arguments, folders, addresses.

mod cards;
mod devices;
mod hardware;
mod images;
mod kinds;
mod template;
mod words;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::host::HINTED;
use crate::host::accel::{self, AccelChoice, Machine as Host};
use crate::host::dirs::{RunDir, StateBefore, StateDir, state_path_in};
use crate::host::programs::{self, SearchPath};
use crate::host::raw_images::RawImages;
use crate::host::saved::{self, SavedError};
use crate::qemu::{self, HostFacts, Machine, Slots};
use crate::spec::{AccelList, Boot, Limits, Request, VmSpec};

pub use template::{check_template, template_source};

use super::{
    ControlSockets, Made, MemoryFile, Prepared, RunOptions, Shares, addresses, naming, screen, sockets,
    state, unpacked,
};
use crate::vm::changes::saving::Saved;
use crate::vm::error::ChangeError;
use crate::vm::start_error::{StartError, system};
use crate::vm::state::facts::DEFAULT_LOG_CAP;
use crate::vm::state::images::Images;
use crate::vm::state::inventory::Inventory;
use crate::vm::state::journal::Cards;
use crate::vm::state::opened::ImageNodes;
use crate::vm::state::plugged::Record;
use crate::vm::state::waiting_shell::WaitingShellFacts;

/// A saved VM that is about to be restored.
#[derive(Debug)]
pub(in crate::vm) struct Restored {
    /// The plugged devices, with commands that this process has made.
    pub(in crate::vm) record: Record,
    /// Their images.
    pub(in crate::vm) plugged: ImageNodes,
    pub(in crate::vm) cards: Cards,
    pub(in crate::vm) limits: BTreeMap<String, Limits>,
    /// The guest was running.
    pub(in crate::vm) running: bool,
    /// The version of the QEMU that saved it.
    pub(in crate::vm) qemu_version: String,
    /// Options of its start that are missing now: a possible reason for a state that does not fit.
    pub(in crate::vm) missing: Option<String>,
    /// Positioned at the start of QEMU's stream.
    pub(in crate::vm) stream: File,
    /// It is a fork of a template: QEMU must be of the very same version.
    pub(in crate::vm) is_fork: bool,
    /// The guest's memory is in a file of its own, and not in the stream.
    pub(in crate::vm) without_memory: bool,
    /// The shell that waits in the guest, of a fork.
    pub(in crate::vm) waiting_shell: Option<WaitingShellFacts>,
}

/// The description in a file, which then stands at the start of QEMU's stream.
fn read(path: &Path) -> Result<(Saved, File), StartError> {
    let (text, stream) = saved::open(path)?;
    let saved = serde_json::from_slice(&text)
        .map_err(|error| SavedError::Description { path: path.to_owned(), why: error.to_string() })?;
    Ok((saved, stream))
}

/// Inspects the host and makes what is missing. On failure nothing is left behind.
pub(super) fn prepare(request: &Request, path: &Path) -> Result<Prepared, StartError> {
    let path = std::path::absolute(path).map_err(system("the working directory"))?;
    let read = read(&path);
    let (saved, stream) = match &request.from {
        Some(folder) => read.map_err(|error| template::unreadable(folder, error))?,
        None => read?,
    };
    let saved = template::fitting(saved, request, &path)?;
    let is_fork = saved.template.is_some();
    let machine = Host::here().ok_or(StartError::UnknownHost)?;
    let accel = accel(&saved, &machine)?;
    // as at a start: the features of the command line are fixed before QEMU is asked
    let host = HostFacts { arch: machine.arch, accel: accel.accel };
    let qemu = programs::qemu(saved.spec.arch, request.qemu.as_deref(), &SearchPath::from_env())?;
    let spec = hardware::spec(&saved.spec, request)?;
    // of a fork QEMU is asked for its version, which says more, and takes no time
    if !is_fork {
        kinds::check(&qemu, &Machine::of(&spec), &saved.facts.qemu_version)?;
    }
    devices::check(&saved, &spec, request, &qemu)?;
    cards::check(&saved, &spec, request)?;
    images::check(&saved, &spec, request)?;
    let state = match &request.state {
        // a folder of its own, which goes with it
        _ if is_fork => PathBuf::new(),
        Some(state) => std::path::absolute(state).map_err(system("the working directory"))?,
        None => match image(&spec) {
            Some(image) => unpacked::state_with(&image)
                .unwrap_or_else(|| state_path_in(std::env::var_os("STATE_DIRECTORY"), &image)),
            None => state::without_image(request, &spec.name)?,
        },
    };
    let missing = match is_fork {
        true => None,
        false => words::missing(&saved, request, &state, &qemu),
    };
    if let Some(missing) = &missing {
        log::warn!(
            target: HINTED,
            "{} was saved from a VM that was started with more than a file decides\nhint: to have it again, add: {missing}",
            qemu::quote::word(path.as_os_str())
        );
    }
    let runtime = request.runtime.clone();
    let claimed = match is_fork {
        // each fork has a name of its own, unless it is given: the image's with a number, or the template's
        true => Request {
            name: request.name.clone(),
            image: request.image.clone().or_else(|| Some(spec.name.as_str().into())),
            runtime,
            ..Request::default()
        },
        false => Request { name: Some(spec.name.clone()), runtime, ..Request::default() },
    };
    let run = naming::claim(&claimed)?;
    let spec = VmSpec { name: run.name().clone(), ..spec };
    let mut made = Made::default();
    let checked = Checked { saved, spec, state, made: &mut made };
    match checked.make(request, &run) {
        Ok(parts) => Ok(parts.with(Remaining { request, run, made, accel, host, qemu, stream, missing })),
        Err(error) => {
            made.undo();
            run.discard();
            Err(error)
        }
    }
}

/// Checks a description as far as that needs no access to the host.
#[cfg(any(test, fuzzing))]
pub(in crate::vm) fn fuzz_restored(saved: &Saved) {
    let request = Request::default();
    if let Ok(spec) = hardware::spec(&saved.spec, &request) {
        assert!(spec.extra.is_empty() && spec.publish.is_empty() && spec.sandbox);
        let _ = devices::read(&saved.record, &Machine::of(&spec));
    }
    if let Some(words) = words::missing(saved, &request, Path::new("/state"), Path::new("/qemu")) {
        assert!(!words.contains(char::is_control), "{words:?}");
    }
}

/// The file asks for something that no command line allows.
fn refused(message: String, hint: impl Into<String>) -> StartError {
    StartError::Restore(ChangeError::unsupported(message).hint(hint))
}

/// The description is invalid: vmrun did not write it.
fn nonsense(why: impl Display) -> StartError {
    StartError::Restore(ChangeError::unsupported(format!("the saved VM's description makes no sense: {why}")))
}

/// The file that the state directory is named after, as at a start.
fn image(spec: &VmSpec) -> Option<PathBuf> {
    let first_disk = || spec.disks.first().map(|disk| disk.image.file.clone());
    match &spec.boot {
        Boot::Disk | Boot::Firmware => first_disk(),
        Boot::Iso { path } => Some(path.clone()),
        Boot::Kernel { kernel, .. } | Boot::Squashfs { kernel, .. } => {
            match kernel.as_os_str().as_bytes().strip_suffix(b"-kernel") {
                Some(prefix) => Some(OsStr::from_bytes(prefix).into()),
                None => first_disk(),
            }
        }
    }
}

/// Inspected; nothing is made yet.
struct Checked<'a> {
    saved: Saved,
    spec: VmSpec,
    state: PathBuf,
    made: &'a mut Made,
}

/// The results of the second half, which makes things.
struct MadeParts {
    spec: VmSpec,
    record: Record,
    /// Images of the plugged devices.
    plugged: ImageNodes,
    saved: Saved,
    control: ControlSockets,
    state: Arc<StateDir>,
    images: Images,
    shares: Shares,
    user_qmp: Option<(PathBuf, UnixListener)>,
    memory: Option<MemoryFile>,
    in_use: Vec<File>,
}

impl Checked<'_> {
    fn make(self, request: &Request, run: &RunDir) -> Result<MadeParts, StartError> {
        let Self { saved, spec, state, made } = self;
        // removes files of a killed supervisor
        run.clear().map_err(StartError::RunDirectory)?;
        screen::check(&spec.display)?;
        let control = ControlSockets::open(run)?;
        let is_fork = saved.template.is_some();
        let state = match is_fork {
            true => state::ephemeral(run, made)?,
            false => {
                let before = StateBefore::look(&state);
                state::make_room(request, &state)?;
                let state = Arc::new(StateDir::open(&state)?);
                made.state(before.of(&state).map_err(system("the state directory"))?);
                state
            }
        };
        let firmware = hardware::firmware(&saved.spec, request, &state, is_fork)?;
        let memory = match template::memory(&saved)? {
            // a fork of a fork: its forks would not share it in any case
            None if !is_fork => MemoryFile::of(&spec)?,
            memory => memory,
        };
        let images = Images::new(
            Arc::clone(&state),
            !is_fork,
            run.path(),
            RawImages::new(super::store_environment(request)),
        );
        let mut opener = images::RestoredImages::new(&images, request);
        if is_fork {
            opener = opener.of_template(template::below(&saved));
        }
        let disks = spec.disks.iter().map(|disk| opener.disk(disk)).collect::<Result<_, _>>()?;
        let spec = VmSpec { disks, firmware, ..spec };
        let in_use = if is_fork { template::in_use(&saved, &spec, memory.is_some())? } else { Vec::new() };
        let (record, plugged) = devices::record(&saved.record, &Machine::of(&spec), &mut opener)?;
        qemu::check(&spec)?;
        let note = if is_fork { addresses::note_of_fork } else { addresses::note };
        note(run, &spec.networking, spec.mac)?;
        spec.nics.iter().try_for_each(|nic| note(run, &nic.network, nic.mac))?;
        Ok(MadeParts {
            control,
            images,
            shares: Shares::bind(&spec, request.virtiofsd.as_deref(), run)?,
            user_qmp: request.qmp.as_deref().map(sockets::user_monitor).transpose()?,
            state,
            record,
            plugged,
            saved,
            spec,
            memory,
            in_use,
        })
    }
}

struct Remaining<'a> {
    request: &'a Request,
    run: RunDir,
    made: Made,
    accel: AccelChoice,
    host: HostFacts,
    qemu: PathBuf,
    stream: File,
    missing: Option<String>,
}

impl MadeParts {
    fn with(self, remaining: Remaining<'_>) -> Prepared {
        let MadeParts {
            spec,
            record,
            plugged,
            saved,
            control,
            state,
            images,
            shares,
            user_qmp,
            memory,
            in_use,
        } = self;
        let is_fork = saved.template.is_some();
        let Remaining { request, run, made, accel, host, qemu, stream, missing } = remaining;
        let machine = Machine::of(&spec);
        Prepared {
            host,
            accel_reason: accel.reason,
            qemu,
            control,
            images,
            state,
            // QEMU is asked once it has loaded the state
            inventory: Inventory::new(&machine, Slots::of(&machine, &spec)),
            shares,
            user_qmp,
            made,
            options: RunOptions {
                stop_timeout: request.stop_timeout,
                ephemeral: is_fork,
                template: saved.template.as_ref().map(|template| template.folder.clone()),
                paused: request.paused,
                max_resets: request.max_resets,
                max_lifetime: request.max_lifetime,
                log_bytes: request.log_size.map_or(DEFAULT_LOG_CAP, crate::spec::Size::bytes),
                keep_logs: super::keep_logs(request),
                state_home: request.state_home.clone(),
            },
            restored: Some(Restored {
                cards: cards::cables(&saved.cards, &record, &spec),
                record,
                plugged,
                limits: saved.limits,
                running: saved.running,
                qemu_version: saved.facts.qemu_version,
                missing,
                stream,
                is_fork,
                without_memory: saved
                    .template
                    .as_ref()
                    .is_some_and(|template| template.memory_bytes.is_some()),
                waiting_shell: saved.template.and_then(|template| template.waiting_shell),
            }),
            in_use,
            memory,
            spec,
            run: Arc::new(run),
        }
    }
}

/// The accelerator with which it was saved: with another, the guest's processor differs.
fn accel(saved: &Saved, host: &Host) -> Result<AccelChoice, StartError> {
    let wanted: AccelList = saved
        .facts
        .host
        .accel
        .to_string()
        .parse()
        .map_err(|error| StartError::usage(format!("accelerator of the saved VM: {error}")))?;
    Ok(accel::choose(Some(&wanted), saved.spec.arch, host)?)
}
