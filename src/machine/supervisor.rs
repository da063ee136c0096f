//! A supervisor in this process.

use std::thread::JoinHandle;

use nix::sys::signal::{SigSet, Signal};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::control::supervise::{Supervision, SyncClock, Up, supervise};
use crate::spec::{Request, VmName};
use crate::vm::{Handle, Launch, ShutdownOptions, StartError, prepare};

use super::Error;

/// A thread that supervises a VM until it ends; the VM is killed when this is dropped.
///
/// A thread and not a task: QEMU dies with the thread that started it, and no other work of this process delays the VM.
#[derive(Debug)]
pub(super) struct Supervisor {
    keep: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Starts the VM; returns its name when the guest runs.
    pub(super) async fn start(request: Request) -> Result<(Self, VmName), Error> {
        let (keep, kept) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("vmrun supervisor".to_owned())
            .spawn(move || run(&request, kept, tell))
            .map_err(|error| StartError::System { what: "the supervisor's thread", error })?;
        // if the caller has gone, the VM is killed as soon as it is up, by the drop of this
        let supervisor = Self { keep: Some(keep), thread: Some(thread) };
        let name =
            told.await.map_err(|_| Error::unclear("the supervisor's thread ended without a result"))??;
        Ok((supervisor, name))
    }

    /// Keeps the VM running.
    pub(super) fn keep(mut self) {
        if let Some(keep) = self.keep.take() {
            let _ = keep.send(());
        }
        self.thread = None;
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.keep = None;
        // nothing is left behind when this returns, which takes some milliseconds
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Told = oneshot::Sender<Result<VmName, StartError>>;

fn run(request: &Request, kept: oneshot::Receiver<()>, tell: Told) {
    // a console's log that must not grow (`ulimit -f`) must not kill the process: blocked, the signal makes the write fail
    let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = tell.send(Err(StartError::System { what: "the supervisor's runtime", error }));
            return;
        }
    };
    let mut tell = Some(tell);
    let result = prepare(request).and_then(|prepared| {
        let supervision = Supervision {
            sync_clock: request.from.is_some().then_some(SyncClock::Quiet),
            ..Supervision::new(Launch::default(), request.stop_timeout)
        };
        runtime.block_on(supervise(prepared, supervision, |up: Up| {
            tokio::spawn(kill_unless_kept(kept, up.handle));
            if let Some(tell) = tell.take() {
                let _ = tell.send(Ok(up.name));
            }
        }))
    });
    if let (Err(error), Some(tell)) = (result, tell) {
        let _ = tell.send(Err(error));
    }
}

async fn kill_unless_kept(kept: oneshot::Receiver<()>, vm: Handle) {
    if kept.await.is_err() {
        let options = ShutdownOptions { timeout: std::time::Duration::ZERO, force: true, no_repeat: true };
        // an error means that it has ended already
        let _ = vm.shutdown(options).await;
    }
}
