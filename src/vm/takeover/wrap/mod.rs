//! VMs that somebody else puts together: `vmrun wrap` lets QEMU take its own place, and leaves a supervisor beside it.
//!
//! ```text
//!   caller ── vmrun wrap ──exec──► QEMU, with a monitor more       the caller's child from beginning to end
//!                 └─fork─► supervisor ──────► that monitor         ends when QEMU has ended, harms nothing when it fails
//! ```
//! So the streams, descriptors, signals, exit status and job control of QEMU are not vmrun's business at all: nobody stands
//! between it and its caller. What vmrun cannot know of such a VM it finds out from QEMU, each time that it matters.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::unistd::Pid;
use uuid::Uuid;

use crate::host::accel;
use crate::host::dirs::{
    DirError, EphemeralEnvironment, Liveness, RunDir, RuntimeEnvironment, StateDir, ephemeral_path, names,
    open_ephemeral, remove_ephemeral, runtime_root,
};
use crate::host::sys;
use crate::qemu::HostFacts;
use crate::qmp::{Connected, Options, Session};
use crate::spec::{
    Accel, Arch, Boot, Display, Layout, MacAddress, Networking, OnPanic, VmName, VmSpec, request,
};

use super::adopt::{self, VmFile};
use super::take_over::TakeOver;
use super::unfinished;
use crate::vm::console::Console;
use crate::vm::guest::agent::AgentLink;
use crate::vm::launch::prepare::Doors;
use crate::vm::launch::process::Process;
use crate::vm::launch::start::connect_to;
use crate::vm::launch::start_error::{StartError, system};
use crate::vm::look::{self, Seen, Whose};
use crate::vm::running::Running;
use crate::vm::signals::Signals;
use crate::vm::state::facts::{Facts, Wrapped};
use crate::vm::state::journal::Pending;
use crate::vm::state::opened::Files;
use crate::vm::state::outcome::Outcome;
use crate::vm::state::record;

/// A QEMU may do much before it answers on its monitor for the first time: take memory, load images, wait for a migration.
const GREETING: Duration = Duration::from_secs(24 * 3600);
/// How long the supervisor of a VM of the same name that has just ended may take to go.
const PREDECESSOR: Duration = Duration::from_secs(5);

/// What a VM is to be called.
#[derive(Debug, Clone)]
pub enum Naming {
    /// So, or not at all.
    Exactly(VmName),
    /// So, or with a number.
    Like(VmName),
    /// So with a number.
    Numbered(VmName),
}

/// A run directory for a VM that is about to be started by this process, which will be its QEMU.
pub struct Wrapping {
    run: RunDir,
    control: Doors,
    monitor: OwnedFd,
    process: OwnedFd,
    file: VmFile,
}

/// Takes a name, and opens the sockets. On failure nothing is left.
///
/// # Errors
/// The name is taken, or the folder of running VMs cannot be used.
pub fn wrap(naming: &Naming, qemu: &Path, sandbox: bool) -> Result<Wrapping, StartError> {
    let root = runtime_root(&RuntimeEnvironment::from_env()).map_err(StartError::RunDirectory)?;
    let run = claim(&root, naming)?;
    let parts = || {
        run.clear().map_err(StartError::RunDirectory)?;
        let control = Doors::open(&run)?;
        let listening = run.bind(names::QMP).map_err(system("a socket in the run directory"))?;
        let monitor = sys::out_of_the_way(&listening.into()).map_err(system("a descriptor for QEMU"))?;
        // of this process, which will be QEMU
        let process = sys::pidfd_open(Pid::this()).map_err(system("a descriptor of this process"))?;
        let state = ephemeral_path(&EphemeralEnvironment::from_env(), run.name())?;
        let file = describe(&run, qemu, state, sandbox)?;
        // before QEMU is there: whoever takes over must not mistake it for one that was never let go
        file.write(&run)?;
        Ok((control, monitor, process, file))
    };
    match parts() {
        Ok((control, monitor, process, file)) => Ok(Wrapping { run, control, monitor, process, file }),
        Err(error) => {
            run.discard();
            Err(error)
        }
    }
}

fn claim(root: &Path, naming: &Naming) -> Result<RunDir, StartError> {
    let numbered = |name: &VmName| name.numbered(std::process::id());
    let name = match naming {
        Naming::Exactly(name) => name.clone(),
        // a held lock costs a tenth of a second to try
        Naming::Like(name) if RunDir::probe(root, name) == Liveness::Alive => numbered(name),
        Naming::Like(name) => name.clone(),
        Naming::Numbered(name) => numbered(name),
    };
    match (claim_one(root, &name), naming) {
        (Err(StartError::NameTaken(_)), Naming::Like(name)) => claim_one(root, &numbered(name)),
        (other, _) => other,
    }
}

/// Takes a name. A VM whose QEMU has just ended still has it for a moment.
fn claim_one(root: &Path, name: &VmName) -> Result<RunDir, StartError> {
    let began = std::time::Instant::now();
    loop {
        match RunDir::create(root, name) {
            // none: it lost its supervisor, and lives
            Ok(run) => return adopt::reuse(run)?.ok_or_else(|| StartError::NameTaken(name.clone())),
            Err(DirError::Taken { .. }) if began.elapsed() < PREDECESSOR && adopt::has_ended(root, name) => {}
            Err(DirError::Taken { .. }) => return Err(StartError::NameTaken(name.clone())),
            Err(error) => return Err(StartError::RunDirectory(error)),
        }
    }
}

/// What can be said before QEMU is asked.
fn describe(run: &RunDir, qemu: &Path, state: PathBuf, sandbox: bool) -> Result<VmFile, StartError> {
    let machine = accel::Machine::here().ok_or(StartError::UnknownHost)?;
    let target = qemu.file_name().and_then(|name| name.to_str()?.strip_prefix("qemu-system-"));
    let target = target.unwrap_or(machine.arch.qemu_name()).to_owned();
    // a guess by the program's name until QEMU has been asked
    let arch = Arch::of_target(&target).unwrap_or(machine.arch);
    let pid = Pid::this();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let facts = Facts {
        host: HostFacts { arch: machine.arch, accel: Accel::Tcg, qemu_version: None },
        accel_reason: "as its command line says".to_owned(),
        qemu: qemu.to_owned(),
        qemu_version: String::new(),
        qemu_package: String::new(),
        qemu_pid: pid.as_raw(),
        qemu_start_time: sys::process_start_time("/proc".as_ref(), pid).map_err(system("/proc"))?,
        run_directory: run.path().to_owned(),
        state_directory: state,
        detached: false,
        ephemeral: true,
        max_resets: None,
        log_bytes: 0,
        stop_timeout_ms: 0,
        started_unix_ms: u64::try_from(now.as_millis()).unwrap_or(0),
        run: run.run_id(),
        state_home: None,
        wrapped: Some(Wrapped {
            target: target.clone(),
            networking: "none".to_owned(),
            ..Wrapped::default()
        }),
    };
    Ok(VmFile { spec: spec(run.name(), arch, sandbox), facts, user_qmp: None, begun: true })
}

/// A description of a VM of which nothing is known yet but its name.
fn spec(name: &VmName, arch: Arch, sandbox: bool) -> VmSpec {
    VmSpec {
        name: name.clone(),
        uuid: Uuid::nil(),
        // nothing of it is vmrun's
        layout: Layout::default(),
        arch,
        machine: None,
        cpu: None,
        cpus: 0,
        memory: request::DEFAULT_MEMORY,
        boot: Boot::Disk,
        firmware: None,
        display: Display::None,
        disks: Vec::new(),
        metadata: None,
        networking: Networking::None,
        mac: MacAddress::from_random([0; 6]),
        publish: Vec::new(),
        usb: false,
        devices: Vec::new(),
        shares: Vec::new(),
        hotplug_slots: 0,
        on_panic: OnPanic::Poweroff,
        no_reboot: false,
        sandbox,
        extra: Vec::new(),
    }
}

impl Wrapping {
    /// The socket that QEMU's further monitor is to listen on.
    pub fn monitor(&self) -> &OwnedFd {
        &self.monitor
    }

    /// Gives the name back: QEMU could not be started.
    pub fn remove(self) {
        self.run.discard();
    }

    /// Becomes the supervisor, in a process of its own; none if QEMU ended before it had anything to say.
    ///
    /// # Errors
    /// Of the system; QEMU goes on without a supervisor.
    pub async fn follow(self) -> Result<Option<Running>, StartError> {
        let Self { run, control, monitor, process, file } = self;
        // QEMU has the only listening end from now on: when it ends, a connection that waits is reset
        drop(monitor);
        take_over(Arc::new(run), control, file, process).await
    }

    /// A descriptor of the process that is to be QEMU: readable when it has ended.
    ///
    /// # Errors
    /// The limit of open files.
    pub fn process(&self) -> std::io::Result<OwnedFd> {
        self.process.try_clone()
    }
}

/// Supervises a VM that somebody else has put together; none if its QEMU has ended.
pub(in crate::vm) async fn take_over(
    run: Arc<RunDir>,
    control: Doors,
    file: VmFile,
    pidfd: OwnedFd,
) -> Result<Option<Running>, StartError> {
    let signals = Signals::ignored().map_err(system("signals"))?;
    let mut process = Process::adopt(file.facts.qemu_pid, pidfd).map_err(system("QEMU's process"))?;
    let environment = EphemeralEnvironment::from_env();
    let state = Arc::new(open_ephemeral(&environment, &file.facts.state_directory, run.path())?);
    let spoken = tokio::select! { biased;
        _ = process.ended() => None,
        spoken = speak(&run, &file) => match spoken {
            Ok(spoken) => Some(spoken),
            Err(why) => {
                // it may be on its way out, or no QEMU at all; nothing that could be done about it
                log::warn!("{why}");
                process.ended().await;
                None
            }
        }
    };
    let Some((connected, seen)) = spoken else {
        let outcome = Outcome::unknown("QEMU ended before it answered on its monitor");
        record::write(&file.spec, &file.facts, &outcome, None, &[]);
        remove(run, state);
        return Ok(None);
    };
    assemble(Parts { run, control, file, process, signals, state }, connected, seen).await.map(Some)
}

fn remove(run: Arc<RunDir>, state: Arc<StateDir>) {
    remove_ephemeral(&state);
    if let Some(run) = Arc::into_inner(run) {
        run.discard();
    }
}

async fn speak(run: &RunDir, file: &VmFile) -> Result<(Connected, Seen), String> {
    let stream = connect_to(run, names::QMP).map_err(|error| error.to_string())?;
    let options = Options { greeting_timeout: GREETING, ..Options::default() };
    let connected = Session::connect(stream, options).await.map_err(|error| error.to_string())?;
    // a VM that was looked at before has processors
    let wrapped = file.facts.wrapped.as_ref();
    let from_start = wrapped.filter(|_| file.spec.cpus > 0).map(|wrapped| wrapped.from_start.as_slice());
    let (none, pending) = (BTreeMap::new(), Pending::read(run));
    let known = wrapped.map_or(&none, |wrapped| &wrapped.files);
    let whose = Whose::Wrapped { files: known, from_start, cards: &pending.cards };
    let files = Files::of(file.facts.qemu_pid);
    let seen = look::look(&connected.session, files, whose).await.map_err(|error| error.to_string())?;
    Ok((connected, seen))
}

struct Parts {
    run: Arc<RunDir>,
    control: Doors,
    file: VmFile,
    process: Process,
    signals: Signals,
    state: Arc<StateDir>,
}

async fn assemble(parts: Parts, connected: Connected, mut seen: Seen) -> Result<Running, StartError> {
    let Parts { run, control, mut file, process, signals, state } = parts;
    let Connected { session, events, greeting } = connected;
    let (major, minor, micro) = greeting.version;
    file.facts.qemu_version = format!("{major}.{minor}.{micro}");
    file.facts.qemu_package = greeting.package;
    let is_new = file.spec.cpus == 0;
    seen.system.tell(&seen.machine, &mut file.spec, &mut file.facts);
    let pending = Pending::read(&run);
    if is_new {
        if let Some(wrapped) = &mut file.facts.wrapped {
            wrapped.from_start = seen.inventory.devices().map(|entry| entry.id.to_string()).collect();
        }
        file.write(&run)?;
    } else {
        unfinished::finish(&session, &pending, &mut seen, false).await;
    }
    let taken = TakeOver {
        run,
        control,
        file,
        process,
        signals,
        state,
        session,
        events,
        machine: Some(seen.machine),
        inventory: seen.inventory,
        pending,
        agent: AgentLink::absent().map_err(system("a socket pair"))?,
        agent_open: false,
        console: Console::absent(),
    };
    Ok(taken.into_running())
}
