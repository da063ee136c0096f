//! A VM with its control socket and, in the foreground, its console: what a supervisor process does.

use tokio::net::UnixListener;
use tokio::sync::mpsc;

use crate::vm::console::{Attached, EscapeKey, attach};
use crate::vm::{Handle, Launch, Outcome, Prepared, Running, ShutdownOptions, StartError, start};

use super::service;

/// How a supervisor behaves.
pub struct Supervision {
    /// How the VM is launched.
    pub launch: Launch,
    /// The escape key of the console on our own standard streams; none = no console there.
    pub console: Option<EscapeKey>,
    /// Budget of the ladder when the escape key asks for a shutdown.
    pub stop_timeout: std::time::Duration,
}

/// Starts a prepared VM, calls `up` once it runs, serves it, and returns how it ended.
pub async fn supervise(
    prepared: Prepared,
    supervision: Supervision,
    up: impl FnOnce(&Running),
) -> Result<Outcome, StartError> {
    let running = start(prepared, supervision.launch).await?;
    let listener = running.bind_control()?;
    let system = |error| StartError::System { what: "the control socket", error };
    listener.set_nonblocking(true).map_err(system)?;
    let listener = UnixListener::from_std(listener).map_err(system)?;
    up(&running);
    let handle = running.handle.clone();
    let watched = handle.clone();
    let service = service::serve(listener, handle.clone(), async move {
        watched.ended().await;
    });
    let console = supervision.console.map(|escape| {
        let (ask, asked) = mpsc::channel(4);
        tokio::spawn(obey(asked, handle.clone(), supervision.stop_timeout));
        tokio::spawn(attach(handle.console.clone(), escape, ask))
    });
    let (outcome, ()) = tokio::join!(running.run(), service);
    if let Some(console) = console {
        // the console ends by itself once everything is shown, unless nobody reads it
        let _ = tokio::time::timeout(LAST_OUTPUT, console).await;
    }
    Ok(outcome)
}

/// How long the last output may take to be read by whoever reads our standard output.
const LAST_OUTPUT: std::time::Duration = std::time::Duration::from_secs(1);

/// Does what the person at the console asks for.
async fn obey(mut asked: mpsc::Receiver<Attached>, vm: Handle, timeout: std::time::Duration) {
    let mut asked_before = false;
    while let Some(request) = asked.recv().await {
        match request {
            Attached::Shutdown => {
                let options = ShutdownOptions { timeout, force: asked_before, no_repeat: false };
                asked_before = true;
                let vm = vm.clone();
                tokio::spawn(async move { vm.shutdown(options).await });
            }
            Attached::Detach => log::warn!(
                "this VM ends with its terminal; start it with `--detached` to leave it running. Ctrl-a x shuts it down"
            ),
            Attached::Status => {
                if let Ok(status) = vm.status().await {
                    let uptime = status.uptime.as_secs();
                    log::warn!("{}: {}, up {uptime} s", status.spec.name, status.run_state);
                }
            }
        }
    }
}
