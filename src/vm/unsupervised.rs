//! The state of a run directory without a supervisor: a running QEMU, or only files. Files of a VM that is certainly dead are
//! removed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use nix::unistd::Pid;
use serde_json::Value;

use crate::host::dirs::{
    DirError, Directory, RunClient, RunDir, StateDir, names, remove_ephemeral, remove_socket, warn_of,
};
use crate::host::sys;
use crate::spec::VmName;
use crate::vm::console;
use crate::vm::process::sockets::remove_screen;
use crate::vm::start_error::{StartError, system};
use crate::vm::state::journal::Pending;
use crate::vm::state::origin::Description;
use crate::vm::state::outcome::{OUTCOME_FILE, Outcome};
use crate::vm::state::record;
use crate::vm::state::templates::forget_templates;
use crate::vm::state::vm_file::{VmFile, ends_within};

/// How long a QEMU that never ran a guest may take to quit.
const QUIT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes that it can send until then.
const QUIT_WORDS: u64 = 64 << 10;
/// QEMU's run states before its guest has run for the first time (`RunState` in `qapi/run-state.json`).
const NEVER_STARTED: [&str; 2] = ["prelaunch", "inmigrate"];

/// What exists of the VM of a run directory without a supervisor.
pub(in crate::vm) enum Unsupervised {
    /// QEMU is running and can be taken over.
    Living(Box<VmFile>, OwnedFd),
    /// QEMU is running, but its process is not visible: it was started in another PID namespace.
    OtherNamespace,
    /// Only files exist.
    Dead(Box<VmFile>),
    /// A start was interrupted before there was a description; or nothing exists yet.
    NeverStarted,
    /// Its description cannot be read.
    Undescribed(String),
}

impl Unsupervised {
    pub(in crate::vm) fn of(directory: &Directory) -> Self {
        let file = match VmFile::load(directory) {
            Ok(Some(file)) => Box::new(file),
            Ok(None) => return Self::NeverStarted,
            Err(why) => return Self::Undescribed(why),
        };
        match file.process() {
            Some(process) => Self::Living(file, process),
            // only QEMU has this socket: the kernel closes it with the process, in any namespace
            None if directory.is_listened_on(names::QMP) => Self::OtherNamespace,
            None => Self::Dead(file),
        }
    }
}

/// Waits for the end of the QEMU of an unlocked run directory, for at most this time.
pub fn await_end(root: &Path, name: &VmName, within: Duration) {
    let directory = RunClient::open(root, name);
    let process = directory.ok().and_then(|directory| VmFile::read(&directory)?.process());
    if let Some(process) = process {
        ends_within(&process, u16::try_from(within.as_millis()).unwrap_or(u16::MAX));
    }
}

/// Whether an unlocked run directory has a running QEMU.
pub fn is_orphan(directory: &RunClient) -> bool {
    matches!(Unsupervised::of(directory), Unsupervised::Living(..) | Unsupervised::OtherNamespace)
}

/// Whether a VM's QEMU has ended, and its supervisor is about to.
pub(in crate::vm) fn has_ended(root: &Path, name: &VmName) -> bool {
    let file = RunClient::open(root, name).ok().and_then(|directory| VmFile::read(&directory));
    file.is_some_and(|file| {
        let process = sys::pidfd_open(Pid::from_raw(file.description.facts.qemu_pid));
        process.map_or(true, |process| ends_within(&process, 0))
    })
}

/// Ends a QEMU whose supervisor died before it started the guest; true if it was ended. Its open files were not checked yet, or its
/// saved state is incomplete: its guest must not run.
pub(in crate::vm) fn is_unfinished_gone(run: &RunDir, file: &VmFile) -> Result<bool, StartError> {
    if file.begun || !run.is_listened_on(names::QMP) {
        return Ok(false);
    }
    let quit = quit_if_never_started(run).map_err(system("a QEMU whose start was cut off"))?;
    if quit {
        log::info!("VM '{}' was just being started when its supervisor died: it has been ended", run.name());
    }
    Ok(quit)
}

/// Ends a QEMU that was started but not recorded yet, and waits for it; true if none is left. A QEMU that has run a guest is never
/// told to quit: its run state is queried first.
fn never_started_is_gone(run: &RunDir) -> bool {
    if !run.is_listened_on(names::QMP) {
        return true;
    }
    match quit_if_never_started(run) {
        Ok(true) => log::info!("a QEMU whose start was interrupted was told to quit"),
        Ok(false) => return false,
        Err(error) => log::warn!("a QEMU that was just being started does not quit: {error}"),
    }
    run.is_closed(names::QMP)
}

fn quit_if_never_started(run: &RunDir) -> io::Result<bool> {
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
    if !NEVER_STARTED.contains(&status.as_str()) {
        return Ok(false);
    }
    monitor.write_all(b"{\"execute\":\"quit\"}\n")?;
    // it closes the connection after it has closed its images
    match io::copy(&mut monitor.take(QUIT_WORDS), &mut io::sink()) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
        _ => Ok(true),
    }
}

/// Prepares a locked run directory for reuse, if its VM is dead; `None` if it is alive.
///
/// # Errors
/// Its state is unknown, and it stays as it is.
pub(in crate::vm) fn reuse(run: RunDir) -> Result<Option<RunDir>, StartError> {
    match Unsupervised::of(&run) {
        Unsupervised::Living(file, _) if is_unfinished_gone(&run, &file)? => clear_up(&run, &file),
        Unsupervised::Living(..) | Unsupervised::OtherNamespace => return Ok(None),
        Unsupervised::Dead(file) => clear_up(&run, &file),
        Unsupervised::NeverStarted if never_started_is_gone(&run) => {}
        Unsupervised::NeverStarted => return Ok(None),
        Unsupervised::Undescribed(why) => return Err(StartError::RunDirectory(undescribed(&run, why))),
    }
    Ok(Some(run))
}

fn undescribed(run: &RunDir, why: String) -> DirError {
    DirError::Undescribed { path: run.path().to_owned(), why }
}

/// Removes what is left of a VM, if it is certainly dead.
pub(in crate::vm) fn clean_up(run: RunDir, left: Unsupervised) {
    match left {
        Unsupervised::Living(..) | Unsupervised::OtherNamespace => {}
        Unsupervised::Dead(file) => {
            clear_up(&run, &file);
            run.discard();
        }
        Unsupervised::NeverStarted if never_started_is_gone(&run) => run.discard(),
        Unsupervised::NeverStarted => {
            warn_of(&undescribed(&run, format!("there is no {}, and a QEMU", names::VM)))
        }
        Unsupervised::Undescribed(why) => warn_of(&undescribed(&run, why)),
    }
}

/// Removes files of a dead VM that are outside the run directory.
fn clear_up(run: &RunDir, file: &VmFile) {
    log::info!("cleaning up after VM '{}', whose supervisor and QEMU are dead", run.name());
    if let Some(path) = &file.user_qmp {
        remove_socket(path);
    }
    let Description { origin, facts } = &file.description;
    if let Some(spec) = origin.spec() {
        remove_screen(&spec.display);
    }
    let outcome = Outcome::unknown("QEMU ended without a supervisor, which had died before");
    let state = StateDir::existing(&facts.state_directory);
    let console =
        state.as_ref().ok().and_then(Option::as_ref).and_then(|state| state.read(console::LOG).ok());
    let console = console.unwrap_or_default();
    // without a guest there is no outcome
    if file.begun {
        record::write(origin, facts, &outcome, None, &console);
        if let Some(folder) = &facts.keep_logs {
            record::keep_logs(folder, origin.name(), std::iter::once(console), &outcome);
        }
    }
    if let Ok(Some(state)) = state {
        state.remove_pid();
        if file.begun
            && let Ok(text) = serde_json::to_vec_pretty(&outcome)
        {
            let _ = state.write(OUTCOME_FILE, &text);
        }
        if facts.ephemeral {
            remove_ephemeral(&state);
        }
    }
    forget_templates(origin, facts);
    Pending::read(run).remove_made();
}

/// Cleans up after a dead VM. Does nothing to one that is alive, is being taken over by another process, or whose state is unknown.
pub fn clean(root: &Path, name: &VmName) {
    if let Ok(Some(run)) = RunDir::take(root, name) {
        let left = Unsupervised::of(&run);
        clean_up(run, left);
    }
}
