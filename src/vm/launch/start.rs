//! Starts QEMU for a prepared VM.

mod configure;
mod facts;
mod failure;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::unistd::Pid;
use tokio::time::Instant;

use crate::host::dirs::{nowhere, remove_socket};
use crate::host::oom::OomKills;
use crate::qemu::{Channels, GuestMemory, Machine, command_line, stream_port};
use crate::qmp::{Connected, Transcript};
use crate::spec::VmSpec;

use super::prepare::{Made, Prepared};
use crate::vm::guest::waiting_shell::WaitingShell;
use crate::vm::parts::{Assembly, Devices, Home, Qemu};
use crate::vm::process::qemu::Process;
use crate::vm::process::sockets::{Sockets, remove_screen};
use crate::vm::running::Running;
use crate::vm::signals::Signals;
use crate::vm::start_error::{StartError, system};
use crate::vm::state::image_holder::{self, ImageHolder};
use crate::vm::state::journal::Journal;
use crate::vm::state::plugged::Plugged;

use configure::{ConfiguredQemu, InitialDevices, configure};

/// How a VM is launched.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// It outlives the terminal and its supervisor's death.
    pub detached: bool,
    /// Where to record what is sent to QEMU.
    pub transcript: Option<Transcript>,
    /// What this process is for the VM.
    pub process: ProcessRole,
}

/// What a process is for the VM that it supervises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProcessRole {
    /// It exists for the VM: its signals request the VM's end, and its service manager gets the VM's state.
    Owner,
    /// It serves another process, with which the VM ends. That one gets the signals, which batch systems and service managers send to
    /// both; here they mean nothing.
    Helper,
    /// It is not vmrun's own: its signals are left alone.
    #[default]
    Foreign,
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
    waiting_shell: Option<WaitingShell>,
}

async fn start_qemu(prepared: &mut Prepared, launch: &Launch) -> Result<StartedQemu, StartError> {
    // from here on a signal is a request and does not end this process
    let mut signals = match launch.process {
        ProcessRole::Owner => Signals::new().map_err(system("signals"))?,
        ProcessRole::Helper => Signals::ignored().map_err(system("signals"))?,
        ProcessRole::Foreign => Signals::none(),
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
    let shell = prepared.restored.as_mut().and_then(|restored| restored.waiting_shell.take());
    let shell = shell.map(WaitingShell::of_fork).transpose().map_err(system("a socket"))?;
    let (their_ends, waiting_shell) = shell.unzip();
    let their_ends = their_ends.unwrap_or_default();
    if let Some(shell) = &waiting_shell {
        let machine = Machine::of(&prepared.spec);
        for (port, socket) in shell.facts().ports.iter().zip(&their_ends) {
            let (id, name) = (port.id.as_str(), port.name.as_str());
            arguments.extend(stream_port::arguments(&machine, id, name, port.nr, socket.as_raw_fd()));
        }
    }
    log::debug!(
        "{}",
        String::from_utf8_lossy(&crate::qemu::quote::shell(prepared.qemu.as_os_str(), &arguments))
    );
    let mut keep = vec![sockets.qmp, sockets.agent];
    keep.extend(user_socket);
    keep.extend(their_ends);
    keep.extend(shares);
    keep.extend(memory.map(|memory| OwnedFd::from(memory.file)));
    keep.extend(prepared.in_use.drain(..).map(OwnedFd::from));
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
        Ok(configured) => {
            Ok(StartedQemu { configured, process, signals, started, user_qmp: user_path, waiting_shell })
        }
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
    let Some(ImageHolder { path, holder, writes }) =
        image_holder::find(prepared.run.path().parent(), files, &said, own_qemu)
    else {
        return StartError::Qemu { said };
    };
    StartError::Locked { path, holder, writes, said }
}

impl StartedQemu {
    fn into_running(self, prepared: Prepared) -> Running {
        let Self { configured, process, signals, started, user_qmp, waiting_shell } = self;
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
            waiting_shell,
        })
    }
}
