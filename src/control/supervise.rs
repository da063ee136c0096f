//! Runs a VM with its control socket and, in the foreground, its console: the work of a supervisor process.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::host::{PROGRESS, sys};
use crate::spec::{Condition, VmName};
use crate::vm::console::{ANSWER, EscapeKey, From, LastLine, OnSuspend, attach, progress};
use crate::vm::{
    Adopted, ChangeError, GuestClock, Handle, Launch, Outcome, Prepared, ProcessRole, Running,
    ShutdownOptions, StartError, Wait, Wrapping, adopt, start,
};

use super::notify::Notifier;
use super::permits::{Limits, Permits};
use super::{escape_key, service, shared_qmp};

/// How long the reader of our standard output may take to read the last output.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// How long to wait for the agent of a restored guest, to set its clock.
const RESTORED_AGENT: Duration = Duration::from_secs(30);

/// How long a wait may take before its progress is shown, and how often that is updated.
const QUIET: Duration = Duration::from_millis(500);
const SHOWN_AGAIN: Duration = Duration::from_millis(500);

/// Options of a supervisor.
pub struct Supervision {
    /// Sets the guest's clock, which stopped when the VM was saved, when its agent answers.
    pub sync_clock: Option<SyncClock>,
    /// How the VM is launched.
    pub launch: Launch,
    /// The escape key of the console on our own standard streams; `None` = no console there.
    pub console: Option<EscapeKey>,
    /// Budget of the shutdown that the escape key requests.
    pub stop_timeout: Duration,
    /// The condition for the VM to count as ready.
    pub ready: Option<Ready>,
    /// The VM is shut down when this process (a pidfd) has ended.
    pub parent: Option<OwnedFd>,
    /// Called when the VM runs and is served, before waiting for it to be ready.
    pub begun: Option<Begun>,
}

impl Supervision {
    /// Of a VM that is launched like this, without anything else.
    pub fn new(launch: Launch, stop_timeout: Duration) -> Self {
        Self { sync_clock: None, launch, console: None, stop_timeout, ready: None, parent: None, begun: None }
    }
}

/// What is said when the clock of a guest is set that goes on from where it once was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncClock {
    /// By how much it was behind.
    Told,
    /// Nothing by default: the clock of every fork is behind.
    Quiet,
}

/// Called when a VM has started.
pub type Begun = Box<dyn FnOnce(&VmName, &Handle)>;

/// When a VM counts as ready.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The condition.
    pub condition: Condition,
    /// How long to wait for it.
    pub timeout: Option<Duration>,
    /// Shows from half a second on what the console printed last: it is not on the terminal itself.
    pub shown: bool,
}

/// A VM that is ready, or will never be.
pub struct Up {
    /// Its name.
    pub name: VmName,
    /// The interface to it.
    pub handle: Handle,
    /// Why it did not become ready.
    pub ready: Result<(), ChangeError>,
}

/// Starts a prepared VM, calls `up` once it is ready (or will never be), serves it, and returns its outcome.
pub async fn supervise(
    prepared: Prepared,
    supervision: Supervision,
    up: impl FnOnce(Up),
) -> Result<Outcome, StartError> {
    let running = start(prepared, supervision.launch.clone()).await?;
    serve(running, supervision, Box::new(up)).await
}

/// Takes over a VM whose supervisor has died; see [`supervise`]. `None` if there is nothing to take over: QEMU is dead, too.
pub async fn resume(adopted: Adopted, up: impl FnOnce(Up)) -> Result<Option<Outcome>, StartError> {
    let Some(running) = adopt(adopted).await? else { return Ok(None) };
    let launch = Launch { detached: true, transcript: None, process: ProcessRole::Owner };
    let supervision = Supervision::new(launch, running.stop_timeout());
    serve(running, supervision, Box::new(up)).await.map(Some)
}

/// Supervises a QEMU under `vmrun wrap`, until it has ended.
pub async fn follow(wrapping: Wrapping) -> Result<Option<Outcome>, StartError> {
    let Some(running) = wrapping.follow().await? else { return Ok(None) };
    // a service manager waits for QEMU itself, which is unaware of vmrun
    let supervision = Supervision::new(Launch::default(), Duration::ZERO);
    serve(running, supervision, Box::new(|_| {})).await.map(Some)
}

/// `up` is boxed, so that the program contains this function once.
async fn serve(
    mut running: Running,
    supervision: Supervision,
    up: Box<dyn FnOnce(Up) + '_>,
) -> Result<Outcome, StartError> {
    let system = |error| StartError::System { what: "the control socket", error };
    let sockets = running.take_control_sockets().map_err(system)?;
    let control = UnixListener::from_std(sockets.control).map_err(system)?;
    let qmp = UnixListener::from_std(sockets.qmp).map_err(system)?;
    let name = running.name().clone();
    let handle = running.handle.clone();
    let permits = Permits::new(Limits::of_this_process());
    let service = service::serve(control, handle.clone(), permits.clone());
    let shared_qmp = shared_qmp::serve(qmp, handle.clone(), permits);
    let console = supervision.console.map(|escape| {
        let (ask, asked) = mpsc::channel(4);
        escape_key::tell_of_keys(&name, escape);
        tokio::spawn(escape_key::obey(asked, handle.clone(), supervision.stop_timeout, escape));
        let (lost, why) = oneshot::channel();
        tokio::spawn(tell_of_lost_output(why));
        tokio::spawn(attach(handle.console.clone(), escape, ask, lost, OnSuspend::Pause))
    });
    match supervision.sync_clock {
        Some(how) => drop(tokio::spawn(sync_clock(handle.clone(), how))),
        None => handle.leave_clock(),
    }
    if let Some(parent) = supervision.parent {
        let parent = sys::watch(parent, Interest::READABLE)
            .map_err(|error| StartError::System { what: "the process that started vmrun", error })?;
        tokio::spawn(end_with(parent, handle.clone(), supervision.stop_timeout));
    }
    let notifier = (supervision.launch.process == ProcessRole::Owner).then(Notifier::from_env).flatten();
    if let Some(begun) = supervision.begun {
        begun(&name, &handle);
    }
    let readiness = async {
        let ready = match supervision.ready {
            Some(Ready { condition, timeout, shown }) => {
                let what = format!("waiting for '{condition}'");
                let wait = Wait { conditions: vec![condition], all: false, timeout, from_now: false };
                let ready = tokio::select! { biased;
                    ready = handle.wait(wait) => ready.map(|_| ()),
                    () = show_progress(&handle, &what), if shown => Ok(()),
                };
                log::warn!(target: PROGRESS, "");
                ready
            }
            None => Ok(()),
        };
        if let (Some(notifier), Ok(())) = (&notifier, &ready) {
            notifier.ready(name.as_str());
        }
        up(Up { name, handle: handle.clone(), ready });
        if let Some(notifier) = &notifier {
            notifier.follow(&handle).await;
        }
    };
    let (outcome, (), (), ()) =
        tokio::join!(spawned(running.run()), spawned(service), spawned(shared_qmp), readiness);
    if let Some(console) = console {
        // the console ends by itself once everything was written, unless its reader has stopped
        let _ = tokio::time::timeout(LAST_OUTPUT, console).await;
    }
    Ok(outcome)
}

/// Shuts the VM down when a process has ended.
async fn end_with(process: AsyncFd<OwnedFd>, vm: Handle, timeout: Duration) {
    if process.readable().await.is_ok() {
        log::warn!("the process that started vmrun has ended: shutting the VM down");
        // an error means that it has ended already
        let _ = vm.shutdown(ShutdownOptions { timeout, force: false, no_repeat: false }).await;
    }
}

/// Logs, from half a second on, what the console printed last; does not end.
async fn show_progress(vm: &Handle, what: &str) {
    let began = Instant::now();
    tokio::time::sleep(QUIET).await;
    let mut last = LastLine::default();
    let mut reader = vm.console.hub.reader(From::Recent);
    loop {
        while let Some(chunk) = reader.try_next() {
            last.take(&chunk.bytes);
        }
        log::warn!(target: PROGRESS, "{}", progress(what, began.elapsed(), last.text().as_deref()));
        tokio::time::sleep(SHOWN_AGAIN).await;
    }
}

/// Runs a future as a task of its own. Waking a task puts it into the runtime's queue; waking the future of `block_on` takes a
/// write to an eventfd and a turn of epoll each time.
async fn spawned<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(future).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// If the reader of our standard output has gone, that is not logged.
async fn tell_of_lost_output(why: oneshot::Receiver<std::io::Error>) {
    if let Ok(error) = why.await
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        log::error!(
            "the console's output cannot be written to standard output any more: {error}; the VM keeps running, and `vmrun logs` has the output"
        );
    }
}

/// Sets the clock of a restored guest, and logs the result.
async fn sync_clock(vm: Handle, how: SyncClock) {
    match vm.set_time(Some(RESTORED_AGENT)).await {
        Ok(GuestClock { set: true, behind_ms }) => {
            let behind = crate::spec::duration::format(Duration::from_millis(behind_ms.unsigned_abs()));
            let direction = if behind_ms < 0 { "ahead" } else { "behind" };
            let level = if how == SyncClock::Told { log::Level::Warn } else { log::Level::Info };
            log::log!(target: ANSWER, level, "the guest's clock was {behind} {direction} and was set");
        }
        Ok(_) => {}
        Err(_) if vm.has_ended() => {}
        Err(error) => {
            log::warn!("the guest's clock stopped when the VM was saved, and could not be set: {error}")
        }
    }
}
