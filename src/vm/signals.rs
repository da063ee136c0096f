//! Signals to the supervisor that ask for the VM's end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
#[cfg(test)]
use tokio::sync::mpsc;

/// SIGTERM, SIGINT and SIGHUP as a stream; once made, they no longer end the process.
#[derive(Debug)]
pub struct Signals(Source);

#[derive(Debug)]
enum Source {
    Process {
        term: Signal,
        int: Signal,
        hup: Signal,
    },
    /// Somebody else's process: its signals are not for us.
    None,
    /// Nobody's business.
    Ignored {
        _signals: [Signal; 3],
    },
    /// A test's own, since real signals would reach every test of the process.
    #[cfg(test)]
    Test(mpsc::Receiver<&'static str>),
}

impl Signals {
    /// Takes the signals over. Needs a running runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Source::Process {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        }))
    }

    /// No signals.
    pub(super) fn none() -> Self {
        Self(Source::None)
    }

    /// Takes them over, too, but nothing comes of them: this process has nothing to end.
    pub(super) fn ignored() -> io::Result<Self> {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let [term, int, hup] = kinds.map(signal);
        Ok(Self(Source::Ignored { _signals: [term?, int?, hup?] }))
    }

    /// Signals that a test sends by their names.
    #[cfg(test)]
    pub(super) fn of_test() -> (mpsc::Sender<&'static str>, Self) {
        let (send, receive) = mpsc::channel(4);
        (send, Self(Source::Test(receive)))
    }

    /// Waits for the next one and tells its name. Cancellation-safe.
    pub async fn next(&mut self) -> &'static str {
        match &mut self.0 {
            Source::Process { term, int, hup } => tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
                _ = hup.recv() => "SIGHUP",
            },
            Source::None => std::future::pending().await,
            Source::Ignored { .. } => std::future::pending().await,
            #[cfg(test)]
            Source::Test(names) => match names.recv().await {
                Some(name) => name,
                None => std::future::pending().await,
            },
        }
    }
}
