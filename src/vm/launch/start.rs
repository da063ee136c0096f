//! Starts QEMU for a prepared VM and runs it to its end.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::unistd::Pid;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::host::dirs::{Records, RunDir, StoreEnvironment, names, nowhere, remove_socket};
use crate::host::oom::OomKills;
use crate::host::sys;
use crate::qemu::netdev::set_link;
use crate::qemu::query_block::drive_of;
use crate::qemu::refusals::Refusal;
use crate::qemu::{Channels, Command, GuestMemory, Machine, block, command_line, ids};
use crate::qmp::hmp::usernet;
use crate::qmp::{Agent, Connected, Options, Session, SessionError, Transcript};
use crate::spec::{DeviceId, Forward, Limits, VmSpec};

use super::prepare::{Made, Prepared, Restored};
use crate::vm::changes::saving;
use crate::vm::console::{self, Console, ConsoleLog};
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::guest::agent::AgentLink;
use crate::vm::look::{Whose, look};
use crate::vm::parts::{Assembly, Devices, Home, Qemu};
use crate::vm::process::qemu::Process;
use crate::vm::process::shares::Shares;
use crate::vm::process::sockets::{Serial, Sockets, connect_to, remove_screen};
use crate::vm::running::Running;
use crate::vm::signals::Signals;
use crate::vm::start_error::{Death, StartError, system};
use crate::vm::state::facts::Facts;
use crate::vm::state::image_holder;
use crate::vm::state::inventory::{Bound, Inventory};
use crate::vm::state::journal::{Cards, Journal, Pending};
use crate::vm::state::opened::{self, Files, ImageNodes};
use crate::vm::state::origin::{Description, Origin};
use crate::vm::state::outcome::Exit;
use crate::vm::state::plugged::{Plugged, Record, fill_options};
use crate::vm::state::run_state::RunState;
use crate::vm::state::vm_file::VmFile;

/// How long a QEMU whose monitor has hung up may take to end.
const EXIT_GRACE: Duration = Duration::from_secs(5);

/// How a VM is launched.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// It outlives the terminal and its supervisor's death.
    pub detached: bool,
    /// Where to record what is sent to QEMU.
    pub transcript: Option<Transcript>,
    /// This process exists for the VM: its signals request the VM's end, and its service manager gets the VM's state.
    pub owns_process: bool,
}

/// Starts a prepared VM: when this returns, QEMU and the guest's processors run. On failure nothing is left behind. Must be called
/// on the thread of a current-thread runtime that lives as long, for QEMU's death signal follows the thread.
pub async fn start(prepared: Prepared, launch: Launch) -> Result<Running, StartError> {
    let mut prepared = prepared;
    let made = std::mem::take(&mut prepared.made);
    match start_qemu(&mut prepared, &launch).await {
        Ok(qemu) => Ok(qemu.into_running(prepared)),
        Err(error) => {
            undo(prepared, made);
            Err(error)
        }
    }
}

fn undo(prepared: Prepared, made: Made) {
    let Prepared { spec, run, state, mut shares, user_qmp, images, .. } = prepared;
    shares.end();
    state.remove_pid();
    remove_screen(&spec.display);
    if let Some((path, listener)) = user_qmp {
        drop(listener);
        remove_socket(&path);
    }
    drop((state, images));
    made.undo();
    if let Some(run) = Arc::into_inner(run) {
        run.discard();
    }
}

/// Everything that exists once QEMU runs.
struct StartedQemu {
    configured: ConfiguredQemu,
    process: Process,
    signals: Signals,
    started: Instant,
    user_qmp: Option<PathBuf>,
}

async fn start_qemu(prepared: &mut Prepared, launch: &Launch) -> Result<StartedQemu, StartError> {
    // from here on a signal is a request and does not end this process
    let mut signals = match launch.owns_process {
        true => Signals::new().map_err(system("signals"))?,
        false => Signals::none(),
    };
    let (sockets, serial) = Sockets::make(&prepared.run)?;
    let shares = prepared.shares.start(!launch.detached)?;
    let (user_path, user_socket) = prepared.user_qmp.take().unzip();
    let user_socket: Option<OwnedFd> = user_socket.map(OwnedFd::from);
    // QEMU has it alone: a lock on it lasts as long as QEMU does
    let memory = prepared.memory.take();
    let channels = Channels {
        qmp: sockets.qmp.as_raw_fd(),
        agent: sockets.agent.as_raw_fd(),
        user_qmp: user_socket.as_ref().map(AsRawFd::as_raw_fd),
        shares: shares.iter().map(AsRawFd::as_raw_fd).collect(),
        memory: memory
            .as_ref()
            .map(|memory| GuestMemory { file: memory.file.as_raw_fd(), shared: memory.shared }),
    };
    let mut arguments = command_line(&prepared.spec, &prepared.host, &channels);
    if let Some(restored) = &prepared.restored {
        arguments.extend(restored.record.arguments());
    }
    log::debug!(
        "{}",
        String::from_utf8_lossy(&crate::qemu::quote::shell(prepared.qemu.as_os_str(), &arguments))
    );
    let mut keep = vec![sockets.qmp, sockets.agent];
    keep.extend(user_socket);
    keep.extend(shares);
    keep.extend(memory.map(|memory| OwnedFd::from(memory.file)));
    let folder = folder(prepared)?;
    let started = Instant::now();
    // QEMU will be in our own control group
    let oom_kills = OomKills::watch("/proc".as_ref(), "/sys/fs/cgroup".as_ref(), Pid::this().as_raw());
    let tied = !launch.detached;
    let process = Process::start(&prepared.qemu, &arguments, sockets.serial, keep, folder.as_ref(), tied);
    let mut process = process
        .map_err(|error| StartError::Helper { program: prepared.qemu.display().to_string(), error })?;
    let restored = prepared.restored.take();
    let restores = restored.is_some();
    let configuring = configure(prepared, restored, launch, &process, &serial, user_path.as_deref(), started);
    let configured = tokio::select! { biased;
        configured = configuring => configured,
        // loading gigabytes takes long, and the guest, which could be asked to shut down, does not run yet
        signal = signals.next(), if restores => Err(StartError::Signal(signal).into()),
    };
    match configured {
        Ok(configured) => Ok(StartedQemu { configured, process, signals, started, user_qmp: user_path }),
        Err(failure) => {
            let error = failure.into_error(&mut process, serial, &prepared.shares, &oom_kills).await;
            let error = name_the_holder(error, prepared, process.pid());
            if let Some(path) = user_path {
                remove_socket(&path);
            }
            Err(error)
        }
    }
}

/// QEMU's working directory: one in which relative names lead nowhere, unless the user passes arguments of his own to QEMU.
fn folder(prepared: &Prepared) -> Result<Option<OwnedFd>, StartError> {
    let VmSpec { extra, devices, .. } = &prepared.spec;
    if !extra.is_empty() || !devices.is_empty() {
        return Ok(None);
    }
    nowhere(&prepared.run).map(Some).map_err(system("an empty folder for QEMU"))
}

/// Adds which process holds an image, if QEMU reports a lock.
fn name_the_holder(error: StartError, prepared: &Prepared, own_qemu: i32) -> StartError {
    let StartError::Qemu { said } = error else { return error };
    let layers = prepared.spec.disks.iter().flat_map(|disk| disk.image.layers());
    let files = layers.map(|layer| layer.file.as_path());
    let Some((path, holder)) = image_holder::find(prepared.run.path().parent(), files, &said, own_qemu)
    else {
        return StartError::Qemu { said };
    };
    StartError::Locked { path, holder, said }
}

/// Why the setup of a new QEMU through its monitor failed.
enum Failure {
    /// Its monitor hung up or sent nonsense: its stderr has the reason.
    Monitor(String),
    Start(StartError),
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        Self::Monitor(error.to_string())
    }
}

impl From<crate::qmp::CommandError> for Failure {
    fn from(error: crate::qmp::CommandError) -> Self {
        Self::Monitor(error.to_string())
    }
}

impl Failure {
    /// How long QEMU may take to end by itself; zero if it has no reason to end.
    fn grace(&self) -> Duration {
        match self {
            Self::Monitor(_) => EXIT_GRACE,
            // QEMU prints why it cannot load a state, and ends
            Self::Start(StartError::Restore(error)) if error.kind != ErrorKind::TimedOut => EXIT_GRACE,
            Self::Start(_) => Duration::ZERO,
        }
    }

    /// Ends QEMU and makes the error from its stderr. The console pipe has only QEMU's own output, since the guest has not run.
    async fn into_error(
        self,
        process: &mut Process,
        serial: Serial,
        shares: &Shares,
        oom_kills: &OomKills,
    ) -> StartError {
        let ended = tokio::time::timeout(self.grace(), process.ended()).await;
        let by_itself = ended.is_ok();
        let exit = ended.ok().flatten();
        if !by_itself {
            process.kill();
            process.ended().await;
        }
        let words = serial.stderr_tail() + &process.stderr_tail().await;
        let why = match self {
            // the reason why a state does not fit is only on stderr
            Self::Start(StartError::Restore(error)) if !words.trim().is_empty() => {
                let message = format!("{}\n  {}", error.message, words.trim().replace('\n', "\n  "));
                return StartError::Restore(ChangeError { message, ..error });
            }
            Self::Start(error) => return error,
            Self::Monitor(why) => why,
        };
        if Refusal::VhostUser.is_in(&words)
            && let Some((directory, said)) = shares.failure().await
        {
            return StartError::Share { directory, said };
        }
        if let Some(Exit::Signal(signal)) = exit {
            return StartError::Killed { death: Death::of(process.pid(), signal, oom_kills), said: words };
        }
        let said = match (words.trim().is_empty(), by_itself) {
            (false, _) => words,
            (true, true) => "it ended without any output; is the program really QEMU?".to_owned(),
            (true, false) => why,
        };
        StartError::Qemu { said }
    }
}

/// The results of setting QEMU up through its monitor.
struct ConfiguredQemu {
    description: Description,
    connected: Connected,
    agent: AgentLink,
    console: Console,
    devices: InitialDevices,
}

/// The devices at the start.
struct InitialDevices {
    inventory: Inventory,
    /// The commands that made them.
    record: Record,
    /// What QEMU does not report of them.
    pending: Pending,
    /// The restored guest may have the agent's port open.
    agent_open: bool,
}

/// Connects to QEMU's sockets, checks and configures it, and starts the guest.
async fn configure(
    prepared: &Prepared,
    restored: Option<Restored>,
    launch: &Launch,
    process: &Process,
    serial: &Serial,
    user_qmp: Option<&Path>,
    started: Instant,
) -> Result<ConfiguredQemu, Failure> {
    let run = &prepared.run;
    // before the guest can change an image, and while QEMU initialises
    prepared.state.settle().map_err(StartError::from)?;
    prepared.state.write_pid(process.pid()).map_err(StartError::from)?;
    // written before the guest runs: a takeover needs it
    let facts = facts(prepared, launch, process);
    let mut spec = prepared.spec.clone();
    let description = Description { origin: Origin::Ours(Box::new(spec.clone())), facts };
    let mut file = VmFile { description, user_qmp: user_qmp.map(Path::to_owned), begun: false };
    file.write(run)?;
    let agent =
        AgentLink::new(Agent::new(connect(run, names::AGENT)?).with_transcript(launch.transcript.clone()));
    let agent = if restored.is_some() { agent.of_a_former_life() } else { agent };
    let options = Options { transcript: launch.transcript.clone(), ..Options::default() };
    let mut connected = Session::connect(connect(run, names::QMP)?, options).await?;
    log::info!("QEMU answers {} ms after its start", started.elapsed().as_millis());
    // QEMU has opened all its images, and the guest does not run yet
    prepared.images.settle().map_err(|error| StartError::Image { what: "image".to_owned(), error })?;
    let facts = &mut file.description.facts;
    facts.set_greeting(&connected.greeting);
    let log_bytes = facts.log_bytes;
    // before the guest runs: refuses if QEMU has opened something else than the VM's images
    let plugged = restored.as_ref().map(|restored| &restored.plugged);
    let files = Files::of(process.pid());
    let images = opened::images_of(&prepared.spec, plugged.unwrap_or(&ImageNodes::new()));
    opened::check(&connected.session, files, images).await.map_err(StartError::Opened)?;
    let (mut devices, runs) = match restored {
        None => (cold(prepared, &connected.session, files, &mut spec).await?, !prepared.options.paused),
        Some(restored) => {
            let runs = restored.running && !prepared.options.paused;
            (go_on(prepared, restored, &mut connected, files).await?, runs)
        }
    };
    devices.inventory.forwards = forwards(&prepared.spec, &connected.session).await?;
    file.description.origin = Origin::Ours(Box::new(spec));
    // late, since a failed start must not rotate the log of the run before away; the console is silent until the processors run
    let state = Arc::clone(&prepared.state);
    let log = ConsoleLog::start(state, log_bytes, run).map_err(system("the console's log"))?;
    let console = serial
        .try_clone()
        .and_then(|serial| console::connect(serial, Some(log)))
        .map_err(system("the pipes of the console"))?;
    if runs {
        connected.session.run(&Command::new("cont", Value::Null)).await?;
    }
    file.begun = true;
    file.write(run)?;
    make_records(&file.description.facts);
    Ok(ConfiguredQemu { description: file.description, connected, agent, console, devices })
}

/// The devices of a fresh VM: those of its description, and those of the user's own arguments, which may also change processors and
/// memory (`-smp`, `-m`).
async fn cold(
    prepared: &Prepared,
    session: &Session,
    files: Files,
    spec: &mut VmSpec,
) -> Result<InitialDevices, Failure> {
    let mut inventory = prepared.inventory.clone();
    inventory.run_state = if prepared.options.paused { RunState::Paused } else { RunState::Running };
    if !spec.extra.is_empty() {
        let pending = Pending::default();
        let seen = look(session, files, Whose::Ours { spec: &prepared.spec, pending: &pending }).await?;
        spec.cpus = seen.cpus.unwrap_or(spec.cpus);
        spec.memory = seen.memory.unwrap_or(spec.memory);
        // those of the devices that have no id are listed, and cannot be removed
        inventory.take_in(seen.inventory, false);
    }
    let record = Record::cold(&inventory);
    Ok(InitialDevices { inventory, record, pending: Pending::default(), agent_open: false })
}

/// Loads the state of a saved VM into QEMU, and asks QEMU what it has now.
async fn go_on(
    prepared: &Prepared,
    restored: Restored,
    connected: &mut Connected,
    files: Files,
) -> Result<InitialDevices, Failure> {
    let Restored { record, plugged, cards, limits, running, qemu_version, missing, stream, .. } = restored;
    let (is_fork, without_memory) = (restored.is_fork, restored.without_memory);
    let (major, minor, _) = connected.greeting.version;
    let mut then = qemu_version.split('.').map(|number| number.parse::<u64>().unwrap_or(0));
    let (then_major, then_minor) = (then.next(), then.next());
    if (major, minor) < (then_major.unwrap_or(0), then_minor.unwrap_or(0)) {
        let message = format!(
            "the VM was saved by QEMU {}, and this is {major}.{minor}",
            crate::qemu::quote::word(qemu_version.as_ref())
        );
        let error = ChangeError::unsupported(message);
        let hint = "an older QEMU cannot load what a newer one has saved; choose another with `--qemu`";
        return Err(StartError::Restore(error.hint(hint)).into());
    }
    if is_fork && (Some(major), Some(minor)) != (then_major, then_minor) {
        let message = format!(
            "the template was made with QEMU {}, and this is {major}.{minor}",
            crate::qemu::quote::word(qemu_version.as_ref())
        );
        let hint = "choose the one that it was made with with `--qemu`, or make a template with this one";
        return Err(StartError::Restore(ChangeError::unsupported(message).hint(hint)).into());
    }
    let loaded = saving::load(&connected.session, &mut connected.events, stream, without_memory).await;
    loaded.map_err(|error| {
        StartError::Restore(match missing {
            Some(missing) => error.hint(format!("the VM was saved with more than this: {missing}")),
            None => error,
        })
    })?;
    set_again(&connected.session, &cards, &limits).await?;
    let pending = Pending { cards, images: plugged, ..Pending::default() };
    // written before the guest runs: a takeover needs it
    pending.write(&prepared.run);
    let whose = Whose::Ours { spec: &prepared.spec, pending: &pending };
    let mut inventory = look(&connected.session, files, whose).await?.inventory;
    fill_options(&mut inventory, &Machine::of(&prepared.spec), Some(&prepared.spec), &record);
    let runs = running && !prepared.options.paused;
    inventory.run_state = if runs { RunState::Running } else { RunState::Paused };
    Ok(InitialDevices { inventory, record, pending, agent_open: true })
}

/// Restores what is not in the machine's state: in a new QEMU every cable is plugged and no disk has limits.
async fn set_again(
    session: &Session,
    cards: &Cards,
    limits: &BTreeMap<String, Limits>,
) -> Result<(), Failure> {
    for (id, _) in cards.iter().filter(|(_, card)| !card.link_up) {
        session.run(&set_link(id, false)).await?;
    }
    if limits.is_empty() {
        return Ok(());
    }
    let blocks = session.run(&Command::new("query-block", Value::Null)).await?;
    for (id, limits) in limits {
        // QEMU's name of the inner device that has the drive
        if let Some(drive) = drive_of(&blocks, id).and_then(|drive| drive["qdev"].as_str()) {
            session.run(&block::throttle(drive, limits)).await?;
        }
    }
    Ok(())
}

/// QEMU has the only listening end: a refused connection means that it has ended.
fn connect(run: &RunDir, name: &str) -> Result<UnixStream, Failure> {
    connect_to(run, name).map_err(|error| Failure::Monitor(error.to_string()))
}

fn facts(prepared: &Prepared, launch: &Launch, process: &Process) -> Facts {
    let start_time = sys::process_start_time("/proc".as_ref(), Pid::from_raw(process.pid())).unwrap_or(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Facts {
        host: prepared.host,
        accel_reason: prepared.accel_reason.clone(),
        qemu: prepared.qemu.clone(),
        // set once QEMU has answered
        qemu_version: String::new(),
        qemu_package: String::new(),
        qemu_pid: process.pid(),
        qemu_start_time: start_time,
        run_directory: prepared.run.path().to_owned(),
        state_directory: prepared.state.path().to_owned(),
        detached: launch.detached,
        ephemeral: prepared.options.ephemeral,
        max_resets: prepared.options.max_resets,
        log_bytes: prepared.options.log_bytes,
        stop_timeout_ms: u64::try_from(prepared.options.stop_timeout.as_millis()).unwrap_or(u64::MAX),
        started_unix_ms: u64::try_from(now.as_millis()).unwrap_or(0),
        run: prepared.run.run_id(),
        state_home: StoreEnvironment::from_env_or(prepared.options.state_home.as_deref())
            .xdg_state_home
            .map(PathBuf::from),
    }
}

/// Makes the folder for the record of the VM's end, once the VM runs, so that a failed start leaves nothing behind. An unusable
/// store does not prevent the start.
fn make_records(facts: &Facts) {
    let Some(run) = &facts.run else { return };
    let why = match Records::open(&StoreEnvironment::from_env_or(facts.state_home.as_deref())) {
        Ok(records) => match records.check(run) {
            Ok(()) => return,
            Err(error) => format!(
                "{}: {error} (make room there, or set XDG_STATE_HOME to another folder)",
                records.path().display()
            ),
        },
        Err(error) => match error.hint() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        },
    };
    log::warn!("how this VM ends will not be recorded: {why}");
}

/// The forwards from the start, with the ports that QEMU picked.
async fn forwards(spec: &VmSpec, session: &Session) -> Result<Vec<Bound>, Failure> {
    if spec.publish.iter().all(|forward| forward.host != 0) {
        let netdev = spec
            .forwarding_card()
            .map_or(ids::NETDEV.to_owned(), |id| ids::netdev(id.map_or(ids::NIC, DeviceId::as_str)));
        let bound = |forward: &Forward| Bound { forward: *forward, netdev: netdev.clone() };
        return Ok(spec.publish.iter().map(bound).collect());
    }
    Ok(usernet(&session.hmp("info usernet").await?).into_iter().map(Bound::from).collect())
}

impl StartedQemu {
    fn into_running(self, prepared: Prepared) -> Running {
        let Self { configured, process, signals, started, user_qmp } = self;
        let ConfiguredQemu { description, connected, agent, console, devices } = configured;
        let InitialDevices { inventory, record, pending, agent_open } = devices;
        let Prepared { spec, run, state, images, shares, control, .. } = prepared;
        let Connected { session, events, .. } = connected;
        let journal = Journal::new(Arc::clone(&run), pending);
        let plugged = Plugged::new(Arc::clone(&run), record);
        Running::assemble(Assembly {
            description,
            qemu: Qemu { process, session, events, agent, agent_open, started },
            home: Home { run, state, control: Some(control), user_qmp },
            devices: Devices { machine: Machine::of(&spec), inventory, journal, plugged, images },
            console,
            signals,
            shares,
        })
    }
}
