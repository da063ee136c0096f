//! Takes over a VM whose supervisor has died, or cleans up what is left of it.
//!
//! Whose QEMU it is, is proved by three things: the process has the id *and* the start time that were written down, is held by a
//! pidfd from then on, and what answers on the monitor's socket has the VM's UUID.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::host::dirs::{
    DirError, Directory, EphemeralEnvironment, RunClient, RunDir, StateDir, names, open_ephemeral,
    remove_ephemeral, remove_socket, warn_of,
};
use crate::host::sys;
use crate::qemu::Command;
use crate::qmp::{Agent, Connected, Options, Session};
use crate::spec::{VmName, VmSpec};

use super::take_over::TakeOver;
use super::unfinished;
use crate::vm::changes::snapshots::take_back;
use crate::vm::console::{self, ConsoleLog};
use crate::vm::guest::agent::AgentLink;
use crate::vm::launch::prepare::{Doors, Serial, remove_screen};
use crate::vm::launch::process::Process;
use crate::vm::launch::start::connect_to;
use crate::vm::launch::start_error::{StartError, system};
use crate::vm::look::{self, Whose};
use crate::vm::running::{OUTCOME_FILE, Running};
use crate::vm::signals::Signals;
use crate::vm::state::facts::Facts;
use crate::vm::state::journal::Pending;
use crate::vm::state::opened::Files;
use crate::vm::state::outcome::Outcome;
use crate::vm::state::record;
use crate::vm::state::run_state::RunState;

/// How long a QEMU that was never given a guest may take to quit.
const QUIT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most that it can have to say until then.
const QUIT_WORDS: u64 = 64 << 10;
/// QEMU's run states before its guest has run for the first time (`RunState` in `qapi/run-state.json`).
const UNBORN: [&str; 2] = ["prelaunch", "inmigrate"];
/// How long a QEMU of the foreground, which dies with its supervisor, may take to be gone, in milliseconds.
const DYING: u16 = 2000;

/// What `vm.json` holds: all that a new supervisor must know and cannot ask QEMU.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::vm) struct VmFile {
    pub(in crate::vm) spec: VmSpec,
    pub(in crate::vm) facts: Facts,
    /// The socket of `--qmp`, which goes with the VM.
    #[serde(with = "crate::spec::fields::optional_path", default)]
    pub(in crate::vm) user_qmp: Option<PathBuf>,
    /// The guest has been let run, or is to stay as it was saved. QEMU cannot tell: a paused VM that is reset is as new.
    #[serde(default)]
    pub(in crate::vm) begun: bool,
}

impl VmFile {
    fn read(directory: &Directory) -> Option<Self> {
        Self::load(directory).ok().flatten()
    }

    /// None if there is no such file; else why it cannot be read.
    fn load(directory: &Directory) -> Result<Option<Self>, String> {
        match directory.read(names::VM) {
            Ok(text) => {
                serde_json::from_slice(&text).map(Some).map_err(|error| format!("{}: {error}", names::VM))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", names::VM)),
        }
    }

    /// Writes it to a run directory.
    pub(in crate::vm) fn write(&self, run: &RunDir) -> Result<(), StartError> {
        serde_json::to_vec(self)
            .map_err(io::Error::other)
            .and_then(|text| run.write(names::VM, &text))
            .map_err(system("the VM's description in the run directory"))
    }

    /// The process that was written down, if it still is that one and lives.
    fn process(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.facts.qemu_pid);
        let pidfd = sys::pidfd_open(pid).ok()?;
        // looked at after the pidfd was opened: what has this start time now is what the pidfd holds
        let started = sys::process_start_time("/proc".as_ref(), pid).ok()?;
        // one that has ended and that nobody has reaped is there, too
        let dies_with_it = !self.facts.detached && self.facts.wrapped.is_none();
        let patience = if dies_with_it { DYING } else { 0 };
        (started == self.facts.qemu_start_time && !ends_within(&pidfd, patience)).then_some(pidfd)
    }
}

fn ends_within(process: &OwnedFd, patience_ms: u16) -> bool {
    // readable = ended; where it cannot be told, it counts as alive
    poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::from(patience_ms))
        .is_ok_and(|ready| ready > 0)
}

/// Whether a VM's QEMU has ended, and its supervisor is about to.
pub(in crate::vm) fn has_ended(root: &Path, name: &VmName) -> bool {
    let file = RunClient::open(root, name).ok().and_then(|directory| VmFile::read(&directory));
    file.is_some_and(|file| {
        let process = sys::pidfd_open(Pid::from_raw(file.facts.qemu_pid));
        process.map_or(true, |process| ends_within(&process, 0))
    })
}

/// What there is of the VM of a run directory that has no supervisor.
enum Left {
    /// QEMU lives, and can be taken over.
    Living(Box<VmFile>, OwnedFd),
    /// QEMU lives, but its process cannot be seen from here: it was started in another PID namespace.
    Elsewhere,
    /// Files only.
    Dead(Box<VmFile>),
    /// A start that was cut off before there was a description; or nothing at all yet.
    Unborn,
    /// What it says of itself cannot be read.
    Undescribed(String),
}

impl Left {
    fn of(directory: &Directory) -> Self {
        let file = match VmFile::load(directory) {
            Ok(Some(file)) => Box::new(file),
            Ok(None) => return Self::Unborn,
            Err(why) => return Self::Undescribed(why),
        };
        match file.process() {
            Some(process) => Self::Living(file, process),
            // only QEMU has this socket: the kernel closes it with the process, wherever that is
            None if directory.is_listened_on(names::QMP) => Self::Elsewhere,
            None => Self::Dead(file),
        }
    }
}

/// The VM that a QEMU belongs to, and whether its writes are thrown away.
pub(in crate::vm) fn vm_of(root: &Path, qemu_pid: i32) -> Option<(VmName, bool)> {
    let mut names = RunDir::list(root).ok()?.into_iter();
    names.find_map(|name| {
        let directory = RunClient::open(root, &name).ok()?;
        let file = VmFile::read(&directory)?;
        (file.facts.qemu_pid == qemu_pid).then_some((name, file.facts.ephemeral))
    })
}

/// The VM that has this state directory.
pub(in crate::vm) fn vm_with_state(root: &Path, state: &Path) -> Option<VmName> {
    let has_it = |name: &VmName| {
        let directory = RunClient::open(root, name).ok()?;
        VmFile::read(&directory).map(|file| file.facts.state_directory == state)
    };
    RunDir::list(root).ok()?.into_iter().find(|name| has_it(name) == Some(true))
}

/// Waits for the end of the QEMU behind a run directory that nobody holds, so long at most.
pub fn await_end(root: &Path, name: &VmName, within: Duration) {
    let directory = RunClient::open(root, name);
    let process = directory.ok().and_then(|directory| VmFile::read(&directory)?.process());
    if let Some(process) = process {
        ends_within(&process, u16::try_from(within.as_millis()).unwrap_or(u16::MAX));
    }
}

/// Whether there is a living QEMU behind a run directory that nobody holds.
pub fn is_orphan(directory: &RunClient) -> bool {
    matches!(Left::of(directory), Left::Living(..) | Left::Elsewhere)
}

/// A run directory whose supervisor is dead, now ours.
pub struct Adopted {
    run: RunDir,
    control: Doors,
}

/// Takes the lock of a dead supervisor.
pub fn claim(root: &Path, name: &VmName) -> Result<Adopted, StartError> {
    let run = RunDir::create(root, name).map_err(StartError::RunDirectory)?;
    // from now on clients wait rather than fail
    let control = Doors::open(&run)?;
    Ok(Adopted { run, control })
}

/// Takes the VM over; none if its QEMU is dead, too: then everything is cleaned up.
pub async fn adopt(adopted: Adopted) -> Result<Option<Running>, StartError> {
    let Adopted { run, control } = adopted;
    let (file, pidfd) = match Left::of(&run) {
        Left::Living(file, _) if is_unfinished_gone(&run, &file)? => {
            clean_up(run, Left::Dead(file));
            return Ok(None);
        }
        Left::Living(file, pidfd) => (*file, pidfd),
        Left::Elsewhere => return Err(StartError::Elsewhere(run.name().clone())),
        left => {
            clean_up(run, left);
            return Ok(None);
        }
    };
    log::info!("taking over VM '{}', whose supervisor has died", run.name());
    let run = Arc::new(run);
    if file.facts.wrapped.is_some() {
        return super::wrap::take_over(run, control, file, pidfd).await;
    }
    take_over(run, control, file, pidfd).await.map(Some)
}

async fn take_over(
    run: Arc<RunDir>,
    control: Doors,
    mut file: VmFile,
    pidfd: OwnedFd,
) -> Result<Running, StartError> {
    let signals = Signals::new().map_err(system("signals"))?;
    let unusable = |why: String| StartError::Qemu { said: why };
    let Connected { session, events, greeting } =
        Session::connect(connect(&run, names::QMP)?, Options::default())
            .await
            .map_err(|error| unusable(error.to_string()))?;
    let failed = |error: crate::qmp::CommandError| unusable(error.to_string());
    let uuid = session.run(&Command::new("query-uuid", Value::Null)).await.map_err(failed)?;
    if uuid["UUID"] != json!(file.spec.uuid.to_string()) {
        return Err(unusable("what answers on the monitor's socket is another VM".to_owned()));
    }
    let facts = &mut file.facts;
    let (major, minor, micro) = greeting.version;
    facts.qemu_version = format!("{major}.{minor}.{micro}");
    facts.qemu_package = greeting.package;
    let state = Arc::new(match facts.ephemeral {
        true => open_ephemeral(&EphemeralEnvironment::from_env(), &facts.state_directory, run.path())?,
        false => StateDir::open(&facts.state_directory)?,
    });
    let log =
        ConsoleLog::go_on(Arc::clone(&state), facts.log_bytes, &run).map_err(system("the console's log"))?;
    let console = Serial::open(&run)
        .and_then(|serial| console::connect(serial, Some(log)))
        .map_err(system("the pipes of the console"))?;
    let agent = AgentLink::new(Agent::new(connect(&run, names::AGENT)?)).of_a_former_life();
    let pending = Pending::read(&run);
    if let Some(job) = &pending.job {
        take_back(&session, job).await.map_err(failed)?;
    }
    let files = Files::of(file.facts.qemu_pid);
    let whose = Whose::Ours { spec: &file.spec, pending: &pending };
    let mut seen = look::look(&session, files, whose).await.map_err(failed)?;
    unfinished::finish(&session, &pending, &mut seen, true).await;
    if seen.inventory.run_state == RunState::Starting {
        // paused, and reset since
        seen.inventory.run_state = RunState::Paused;
    }
    if !file.begun {
        file.begun = true;
        file.write(&run)?;
    }
    let process = Process::adopt(file.facts.qemu_pid, pidfd).map_err(system("QEMU's process"))?;
    let taken = TakeOver {
        run,
        control,
        file,
        process,
        signals,
        state,
        session,
        events,
        machine: None,
        inventory: seen.inventory,
        pending,
        agent,
        agent_open: seen.agent_open,
        console,
    };
    Ok(taken.into_running())
}

fn connect(run: &RunDir, name: &str) -> Result<tokio::net::UnixStream, StartError> {
    connect_to(run, name).map_err(system("a socket to QEMU"))
}

/// Ends a QEMU whose supervisor died before it let the guest run; whether there was one, which is gone now. Nobody has looked yet at what
/// it has opened, or has given it the rest of a saved state: its guest must not run.
fn is_unfinished_gone(run: &RunDir, file: &VmFile) -> Result<bool, StartError> {
    if file.begun || !run.is_listened_on(names::QMP) {
        return Ok(false);
    }
    let quit = quit_unborn(run).map_err(system("a QEMU whose start was cut off"))?;
    if quit {
        log::info!("VM '{}' was just being started when its supervisor died: it has been ended", run.name());
    }
    Ok(quit)
}

/// Ends a QEMU that was started and not yet written down, and waits for it; whether there is none now. What has run a guest is
/// never told to quit: QEMU is asked.
fn is_unborn_gone(run: &RunDir) -> bool {
    if !run.is_listened_on(names::QMP) {
        return true;
    }
    match quit_unborn(run) {
        Ok(true) => log::info!("a QEMU that was just being started has been told to quit"),
        Ok(false) => return false,
        Err(error) => log::warn!("a QEMU that was just being started does not quit: {error}"),
    }
    !run.is_listened_on(names::QMP)
}

fn quit_unborn(run: &RunDir) -> io::Result<bool> {
    let mut monitor = run.connect(names::QMP)?;
    monitor.set_read_timeout(Some(QUIT_TIMEOUT))?;
    monitor.write_all(b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-status\"}\n")?;
    let mut lines = BufReader::new(monitor.try_clone()?.take(QUIT_WORDS)).lines();
    let status = loop {
        let Some(line) = lines.next() else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        let said: Value = serde_json::from_str(&line?)?;
        if let Some(status) = said["return"]["status"].as_str() {
            break status.to_owned();
        }
    };
    if !UNBORN.contains(&status.as_str()) {
        return Ok(false);
    }
    monitor.write_all(b"{\"execute\":\"quit\"}\n")?;
    // it hangs up after it has closed its images
    match io::copy(&mut monitor.take(QUIT_WORDS), &mut io::sink()) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
        _ => Ok(true),
    }
}

/// Makes a run directory that was taken ready to be used again, if its VM is dead; none if it lives.
///
/// # Errors
/// It cannot be told what there is of it, and it stays as it is.
pub(in crate::vm) fn reuse(run: RunDir) -> Result<Option<RunDir>, StartError> {
    match Left::of(&run) {
        Left::Living(file, _) if is_unfinished_gone(&run, &file)? => clear_up(&run, &file),
        Left::Living(..) | Left::Elsewhere => return Ok(None),
        Left::Dead(file) => clear_up(&run, &file),
        Left::Unborn if is_unborn_gone(&run) => {}
        Left::Unborn => return Ok(None),
        Left::Undescribed(why) => return Err(StartError::RunDirectory(undescribed(&run, why))),
    }
    Ok(Some(run))
}

fn undescribed(run: &RunDir, why: String) -> DirError {
    DirError::Undescribed { path: run.path().to_owned(), why }
}

/// Removes what is left of a VM, if it is certain that it is dead.
fn clean_up(run: RunDir, left: Left) {
    match left {
        Left::Living(..) | Left::Elsewhere => {}
        Left::Dead(file) => {
            clear_up(&run, &file);
            run.discard();
        }
        Left::Unborn if is_unborn_gone(&run) => run.discard(),
        Left::Unborn => warn_of(&undescribed(&run, format!("there is no {}, and a QEMU", names::VM))),
        Left::Undescribed(why) => warn_of(&undescribed(&run, why)),
    }
}

/// Takes away what a dead VM left elsewhere.
fn clear_up(run: &RunDir, file: &VmFile) {
    log::info!("cleaning up after VM '{}', whose supervisor and QEMU are dead", run.name());
    if let Some(path) = &file.user_qmp {
        remove_socket(path);
    }
    remove_screen(&file.spec.display);
    let outcome = Outcome::unknown("QEMU ended while nobody watched: its supervisor had died");
    let state = StateDir::existing(&file.facts.state_directory);
    let console =
        state.as_ref().ok().and_then(Option::as_ref).and_then(|state| state.read(console::LOG).ok());
    // where no guest has run nothing has ended
    if file.begun {
        record::write(&file.spec, &file.facts, &outcome, None, &console.unwrap_or_default());
    }
    if let Ok(Some(state)) = state {
        state.remove_pid();
        if file.begun
            && let Ok(text) = serde_json::to_vec_pretty(&outcome)
        {
            let _ = state.write(OUTCOME_FILE, &text);
        }
        if file.facts.ephemeral {
            remove_ephemeral(&state);
        }
    }
    Pending::read(run).remove_made();
}

/// Cleans up after a VM that is dead; nothing happens to one that lives, or that somebody else is just taking over, or of which
/// it is not known.
pub fn clean(root: &Path, name: &VmName) {
    if let Ok(Some(run)) = RunDir::take(root, name) {
        let left = Left::of(&run);
        clean_up(run, left);
    }
}
