//! VMs of the user's own QEMU command lines: `vmrun wrap` executes QEMU in its own process, and leaves a supervisor beside it.
//!
//! ```text
//!   caller ── vmrun wrap ──exec──► QEMU, with a monitor more       the caller's child from beginning to end
//!                 └─fork─► supervisor ──────► that monitor         ends when QEMU has ended, harms nothing when it fails
//! ```
//! So QEMU's streams, descriptors, signals, exit status and job control are the caller's: vmrun is not in between. What vmrun
//! cannot know of such a VM it asks QEMU for, each time that it is needed.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::unistd::Pid;

use crate::host::accel;
use crate::host::dirs::{
    DirError, EphemeralEnvironment, Liveness, RunDir, RuntimeEnvironment, StateDir, ephemeral_path, names,
    open_ephemeral, remove_ephemeral, runtime_root,
};
use crate::host::sys;
use crate::qemu::HostFacts;
use crate::qmp::session::Greeting;
use crate::qmp::{Connected, Options, Session};
use crate::spec::{Accel, Target, VmName};

use super::take_over::{TakeOver, started};
use super::unfinished;
use crate::vm::console::Console;
use crate::vm::guest::agent::AgentLink;
use crate::vm::look::{self, Seen, Whose};
use crate::vm::parts::{Home, Qemu};
use crate::vm::process::qemu::Process;
use crate::vm::process::sockets::{ControlSockets, connect_to};
use crate::vm::running::Running;
use crate::vm::signals::Signals;
use crate::vm::start_error::{StartError, system};
use crate::vm::state::facts::Facts;
use crate::vm::state::journal::Pending;
use crate::vm::state::opened::Files;
use crate::vm::state::origin::{Description, Origin, Wrapped};
use crate::vm::state::outcome::Outcome;
use crate::vm::state::record;
use crate::vm::state::vm_file::VmFile;
use crate::vm::unsupervised;

/// QEMU may take long before its monitor answers for the first time: it allocates memory, opens images, waits for a migration.
const GREETING: Duration = Duration::from_secs(24 * 3600);
/// How long the supervisor of a VM of the same name that has just ended may take to release it.
const PREDECESSOR: Duration = Duration::from_secs(5);

/// How a VM is named.
#[derive(Debug, Clone)]
pub enum Naming {
    /// This name, or fail.
    Exactly(VmName),
    /// This name, with a number if it is taken.
    Like(VmName),
    /// This name with a number.
    Numbered(VmName),
}

/// A run directory for a VM whose QEMU this process will become.
pub struct Wrapping {
    run: RunDir,
    control: ControlSockets,
    monitor: OwnedFd,
    process: OwnedFd,
    wrapped: Wrapped,
    facts: Facts,
}

/// Takes a name, and binds the sockets. On failure nothing is left behind.
///
/// # Errors
/// The name is taken, or the folder of running VMs cannot be used.
pub fn wrap(naming: &Naming, qemu: &Path, sandbox: bool) -> Result<Wrapping, StartError> {
    let target = target_of(qemu)?;
    let root = runtime_root(&RuntimeEnvironment::from_env()).map_err(StartError::RunDirectory)?;
    let run = claim(&root, naming)?;
    let parts = || {
        run.clear().map_err(StartError::RunDirectory)?;
        let control = ControlSockets::open(&run)?;
        let listening = run.bind(names::QMP).map_err(system("a socket in the run directory"))?;
        let monitor = sys::out_of_the_way(&listening.into()).map_err(system("a descriptor for QEMU"))?;
        // of this process, which becomes QEMU
        let process = sys::pidfd_open(Pid::this()).map_err(system("a descriptor of this process"))?;
        let state = ephemeral_path(&EphemeralEnvironment::from_env(), run.name())?;
        let (wrapped, facts) = describe(&run, qemu, state, sandbox, target)?;
        // before QEMU exists: a takeover must not mistake it for an interrupted start
        let description = Description { origin: Origin::Wrapped(wrapped.clone()), facts: facts.clone() };
        VmFile::of_wrapped(description).write(&run)?;
        Ok((control, monitor, process, wrapped, facts))
    };
    match parts() {
        Ok((control, monitor, process, wrapped, facts)) => {
            Ok(Wrapping { run, control, monitor, process, wrapped, facts })
        }
        Err(error) => {
            run.discard();
            Err(error)
        }
    }
}

/// What QEMU's program is for, by its name: `qemu-system-x86_64`, or `qemu-system-x86_64-microvm` as Debian has it. What is named
/// otherwise is taken for the host's until it can be asked.
fn target_of(qemu: &Path) -> Result<Target, StartError> {
    let machine = accel::Machine::here().ok_or(StartError::UnknownHost)?;
    let named = qemu.file_name().and_then(|name| name.to_str()?.strip_prefix("qemu-system-"));
    match named.and_then(|named| named.split('-').next()) {
        Some(named) => named.parse().map_err(StartError::UnknownTarget),
        None => Ok(Target::of(machine.arch)),
    }
}

fn claim(root: &Path, naming: &Naming) -> Result<RunDir, StartError> {
    let numbered = |name: &VmName| name.numbered(std::process::id());
    let name = match naming {
        Naming::Exactly(name) => name.clone(),
        // trying a held lock costs a tenth of a second
        Naming::Like(name) if RunDir::probe(root, name) == Liveness::Alive => numbered(name),
        Naming::Like(name) => name.clone(),
        Naming::Numbered(name) => numbered(name),
    };
    match (claim_one(root, &name), naming) {
        (Err(StartError::NameTaken(_)), Naming::Like(name)) => claim_one(root, &numbered(name)),
        (other, _) => other,
    }
}

/// Takes a name. A VM whose QEMU has just ended still holds it for a moment.
fn claim_one(root: &Path, name: &VmName) -> Result<RunDir, StartError> {
    let began = std::time::Instant::now();
    loop {
        match RunDir::create(root, name) {
            // not reusable: it lost its supervisor, and is running
            Ok(run) => return unsupervised::reuse(run)?.ok_or_else(|| StartError::NameTaken(name.clone())),
            Err(DirError::Taken { .. })
                if began.elapsed() < PREDECESSOR && unsupervised::has_ended(root, name) => {}
            Err(DirError::Taken { .. }) => return Err(StartError::NameTaken(name.clone())),
            Err(error) => return Err(StartError::RunDirectory(error)),
        }
    }
}

/// What is known before QEMU is asked.
fn describe(
    run: &RunDir,
    qemu: &Path,
    state: PathBuf,
    sandbox: bool,
    target: Target,
) -> Result<(Wrapped, Facts), StartError> {
    let machine = accel::Machine::here().ok_or(StartError::UnknownHost)?;
    let pid = Pid::this();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let facts = Facts {
        host: HostFacts { arch: machine.arch, accel: Accel::Tcg },
        accel_reason: "as its command line says".to_owned(),
        qemu: qemu.to_owned(),
        qemu_version: String::new(),
        qemu_package: String::new(),
        qemu_pid: pid.as_raw(),
        qemu_start_time: sys::process_start_time("/proc".as_ref(), pid).map_err(system("/proc"))?,
        run_directory: run.path().to_owned(),
        state_directory: state,
        detached: false,
        template: None,
        ephemeral: true,
        max_resets: None,
        max_lifetime_ms: None,
        log_bytes: 0,
        keep_logs: None,
        stop_timeout_ms: 0,
        started_unix_ms: u64::try_from(now.as_millis()).unwrap_or(0),
        run: run.run_id(),
        state_home: None,
    };
    let wrapped = Wrapped { name: run.name().clone(), sandbox, target, from_start: Vec::new(), seen: None };
    Ok((wrapped, facts))
}

impl Wrapping {
    /// The socket for QEMU's additional monitor.
    pub fn monitor(&self) -> &OwnedFd {
        &self.monitor
    }

    /// Releases the name: QEMU could not be started.
    pub fn remove(self) {
        self.run.discard();
    }

    /// Becomes the supervisor, in a process of its own; `None` if QEMU ended before its monitor answered.
    ///
    /// # Errors
    /// Of the system; QEMU continues without a supervisor.
    pub async fn follow(self) -> Result<Option<Running>, StartError> {
        let Self { run, control, monitor, process, wrapped, facts } = self;
        // QEMU has the only listening end from now on: when it ends, a waiting connection is reset
        drop(monitor);
        take_over(Arc::new(run), control, wrapped, facts, process).await
    }

    /// A descriptor of the process that becomes QEMU: readable when it has ended.
    ///
    /// # Errors
    /// The limit of open files.
    pub fn process(&self) -> std::io::Result<OwnedFd> {
        self.process.try_clone()
    }
}

/// Supervises a VM that the user has put together; `None` if its QEMU has ended.
pub(in crate::vm) async fn take_over(
    run: Arc<RunDir>,
    control: ControlSockets,
    wrapped: Wrapped,
    facts: Facts,
    pidfd: OwnedFd,
) -> Result<Option<Running>, StartError> {
    let signals = Signals::ignored().map_err(system("signals"))?;
    let mut process = Process::adopt(facts.qemu_pid, pidfd).map_err(system("QEMU's process"))?;
    let environment = EphemeralEnvironment::from_env();
    let state = Arc::new(open_ephemeral(&environment, &facts.state_directory, run.path())?);
    let pending = Pending::read(&run);
    let spoken = tokio::select! { biased;
        _ = process.ended() => None,
        spoken = speak(&run, &wrapped, &facts, &pending) => match spoken {
            Ok(spoken) => Some(spoken),
            Err(why) => {
                // it may be ending, or not be QEMU at all; nothing can be done about it
                log::warn!("{why}");
                process.ended().await;
                None
            }
        }
    };
    let Some((Connected { session, events, greeting }, seen)) = spoken else {
        let outcome = Outcome::unknown("QEMU ended before it answered on its monitor");
        record::write(&Origin::Wrapped(wrapped), &facts, &outcome, None, &[]);
        remove(run, state);
        return Ok(None);
    };
    let mut seen = seen;
    let (description, is_new) = complete_description(&run, wrapped, facts, &greeting, &seen)?;
    if !is_new {
        unfinished::finish(&session, &pending, &mut seen, false).await;
    }
    let agent = AgentLink::absent().map_err(system("a socket pair"))?;
    let started = started(&description.facts);
    let taken = TakeOver {
        qemu: Qemu { process, session, events, agent, agent_open: false, started },
        home: Home { run, state, control: Some(control), user_qmp: None },
        description,
        console: Console::absent(),
        signals,
        seen,
        pending,
    };
    Ok(Some(taken.into_running()))
}

fn remove(run: Arc<RunDir>, state: Arc<StateDir>) {
    remove_ephemeral(&state);
    if let Some(run) = Arc::into_inner(run) {
        run.discard();
    }
}

async fn speak(
    run: &RunDir,
    wrapped: &Wrapped,
    facts: &Facts,
    pending: &Pending,
) -> Result<(Connected, Seen), String> {
    let stream = connect_to(run, names::QMP).map_err(|error| error.to_string())?;
    let options = Options { greeting_timeout: GREETING, ..Options::default() };
    let connected = Session::connect(stream, options).await.map_err(|error| error.to_string())?;
    let known = wrapped.seen.as_ref();
    let whose = Whose::Wrapped {
        target: wrapped.target,
        files: known.map(|seen| &seen.files),
        from_start: known.map(|_| wrapped.from_start.as_slice()),
        cards: Some(&pending.cards),
    };
    let seen = look::look(&connected.session, Files::of(facts.qemu_pid), whose).await;
    Ok((connected, seen.map_err(|error| error.to_string())?))
}

/// Adds the result of the first look to the description; also returns whether this was the first look, whose result is written
/// down.
fn complete_description(
    run: &RunDir,
    mut wrapped: Wrapped,
    mut facts: Facts,
    greeting: &Greeting,
    seen: &Seen,
) -> Result<(Description, bool), StartError> {
    facts.set_greeting(greeting);
    let is_new = wrapped.seen.is_none();
    if is_new {
        wrapped.from_start = seen.inventory.devices().map(|entry| entry.id.to_string()).collect();
    }
    seen.update(&mut wrapped, &mut facts);
    let description = Description { origin: Origin::Wrapped(wrapped), facts };
    if is_new {
        VmFile::of_wrapped(description.clone()).write(run)?;
    }
    Ok((description, is_new))
}
