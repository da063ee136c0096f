//! Takes over a VM whose supervisor has died.
//!
//! Three facts identify its QEMU: the process has the recorded id *and* start time, is held by a pidfd from then on, and the
//! monitor reports the VM's UUID.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use qapi::qmp::query_uuid;

use crate::host::dirs::{EphemeralEnvironment, RunDir, StateDir, names, open_ephemeral};
use crate::qmp::{Agent, CommandError, Connected, Options, Session};
use crate::spec::{VmName, VmSpec};

use super::take_over::{TakeOver, started};
use super::{unfinished, wrap};
use crate::vm::changes::snapshots::take_back;
use crate::vm::console::{self, ConsoleLog};
use crate::vm::guest::agent::AgentLink;
use crate::vm::look::{self, Whose};
use crate::vm::parts::{Home, Qemu};
use crate::vm::process::qemu::Process;
use crate::vm::process::sockets::{ControlSockets, Serial, connect_to};
use crate::vm::running::Running;
use crate::vm::signals::Signals;
use crate::vm::start_error::{StartError, system};
use crate::vm::state::journal::Pending;
use crate::vm::state::opened::Files;
use crate::vm::state::origin::{Description, Origin};
use crate::vm::state::run_state::RunState;
use crate::vm::state::vm_file::VmFile;
use crate::vm::unsupervised::{Unsupervised, clean_up, is_unfinished_gone};

/// The run directory of a dead supervisor, locked by this process.
pub struct Adopted {
    run: RunDir,
    control: ControlSockets,
}

/// Takes the lock of a dead supervisor.
pub fn claim(root: &Path, name: &VmName) -> Result<Adopted, StartError> {
    let run = RunDir::create(root, name).map_err(StartError::RunDirectory)?;
    // from now on clients wait instead of failing
    let control = ControlSockets::open(&run)?;
    Ok(Adopted { run, control })
}

/// Takes the VM over; `None` if its QEMU is dead, too: then everything is cleaned up.
pub async fn adopt(adopted: Adopted) -> Result<Option<Running>, StartError> {
    let Adopted { run, control } = adopted;
    let (file, pidfd) = match Unsupervised::of(&run) {
        Unsupervised::Living(file, _) if is_unfinished_gone(&run, &file)? => {
            clean_up(run, Unsupervised::Dead(file));
            return Ok(None);
        }
        Unsupervised::Living(file, pidfd) => (*file, pidfd),
        Unsupervised::OtherNamespace => return Err(StartError::Elsewhere(run.name().clone())),
        left => {
            clean_up(run, left);
            return Ok(None);
        }
    };
    log::info!("taking over VM '{}', whose supervisor has died", run.name());
    let run = Arc::new(run);
    match &file.description.origin {
        Origin::Ours(spec) => {
            let spec = spec.clone();
            take_over(run, control, &spec, file, pidfd).await.map(Some)
        }
        Origin::Wrapped(wrapped) => {
            let wrapped = wrapped.clone();
            wrap::take_over(run, control, wrapped, file.description.facts, pidfd).await
        }
    }
}

/// Takes over a VM that vmrun started from this description.
async fn take_over(
    run: Arc<RunDir>,
    control: ControlSockets,
    spec: &VmSpec,
    mut file: VmFile,
    pidfd: OwnedFd,
) -> Result<Running, StartError> {
    let signals = Signals::new().map_err(system("signals"))?;
    let unusable = |why: String| StartError::Qemu { said: why };
    let failed = |error: CommandError| unusable(error.to_string());
    let connected = Session::connect(connect(&run, names::QMP)?, Options::default()).await;
    let Connected { session, events, greeting } = connected.map_err(|error| unusable(error.to_string()))?;
    let uuid = session.execute(query_uuid {}).await.map_err(failed)?;
    if uuid.UUID != spec.uuid.to_string() {
        return Err(unusable("what answers on the monitor's socket is another VM".to_owned()));
    }
    let facts = &mut file.description.facts;
    facts.set_greeting(&greeting);
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
    let whose = Whose::Ours { spec, pending: &pending };
    let mut seen = look::look(&session, Files::of(facts.qemu_pid), whose).await.map_err(failed)?;
    unfinished::finish(&session, &pending, &mut seen, true).await;
    if seen.inventory.run_state == RunState::Starting {
        // paused, and reset since
        seen.inventory.run_state = RunState::Paused;
    }
    if !file.begun {
        file.begun = true;
        file.write(&run)?;
    }
    let VmFile { description, user_qmp, .. } = file;
    let Description { facts, .. } = &description;
    let process = Process::adopt(facts.qemu_pid, pidfd).map_err(system("QEMU's process"))?;
    let (started, agent_open) = (started(facts), seen.agent_open);
    let taken = TakeOver {
        qemu: Qemu { process, session, events, agent, agent_open, started },
        home: Home { run, state, control: Some(control), user_qmp },
        description,
        console,
        signals,
        seen,
        pending,
    };
    Ok(taken.into_running())
}

fn connect(run: &RunDir, name: &str) -> Result<tokio::net::UnixStream, StartError> {
    connect_to(run, name).map_err(system("a socket to QEMU"))
}
