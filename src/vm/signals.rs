//! Signals to the supervisor that request the VM's end, and which of them count as separate requests.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
#[cfg(test)]
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::host::sys;

/// Signals within this time after a request belong to that request. One request often arrives as two signals: `timeout` signals its
/// child, then the group; a closed terminal causes SIGHUP from the shell and from the kernel; systemd sends SIGHUP after SIGTERM
/// where `SendSIGHUP=yes`.
pub const ONE_REQUEST: Duration = Duration::from_secs(1);

/// A signal that requests the VM's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndSignal {
    name: &'static str,
    typed: bool,
}

impl EndSignal {
    /// A signal from another process.
    pub(super) const fn sent(name: &'static str) -> Self {
        Self { name, typed: false }
    }

    /// An interrupt key on the terminal: two of these within a second are two requests.
    pub(super) const fn typed(name: &'static str) -> Self {
        Self { name, typed: true }
    }
}

/// Its name, such as `SIGTERM`.
impl fmt::Display for EndSignal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// The requests by signals so far.
#[derive(Debug, Default)]
pub(super) struct Requests {
    last: Option<(Instant, EndSignal)>,
}

/// The meaning of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The first request.
    First,
    /// A second signal of the last request.
    Same,
    /// A further request.
    Again,
}

impl Requests {
    /// Counts a signal.
    pub(super) fn note(&mut self, signal: EndSignal, now: Instant) -> Meaning {
        let meaning = match self.last {
            None => Meaning::First,
            Some((_, last)) if last.typed && signal.typed => Meaning::Again,
            Some((at, _)) if now.duration_since(at) < ONE_REQUEST => Meaning::Same,
            Some(_) => Meaning::Again,
        };
        if meaning != Meaning::Same {
            self.last = Some((now, signal));
        }
        meaning
    }
}

/// SIGTERM, SIGINT and SIGHUP as a stream; once made, they do not end the process any more.
#[derive(Debug)]
pub struct Signals(Source);

#[derive(Debug)]
enum Source {
    Process {
        term: Signal,
        int: Signal,
        /// `None`: it was ignored when this process started, as by `nohup`, and stays ignored.
        hup: Option<Signal>,
        /// How many interrupts the terminal had sent at the last SIGINT.
        typed: u32,
    },
    /// The process is not vmrun's own: its signals are ignored.
    None,
    /// No signals.
    Ignored { _signals: [Signal; 3] },
    /// Signals of a test, since real signals would reach every test of the process.
    #[cfg(test)]
    Test(mpsc::Receiver<EndSignal>),
}

impl Signals {
    /// Installs the handlers. Needs a running runtime.
    pub fn new() -> io::Result<Self> {
        sys::remember_end_actions();
        sys::count_typed_interrupts()?;
        Ok(Self(Source::Process {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            // the others stay ignored: a shell starts background jobs with SIGINT ignored
            hup: (!sys::is_ignored(nix::sys::signal::Signal::SIGHUP))
                .then(|| signal(SignalKind::hangup()))
                .transpose()?,
            typed: sys::typed_interrupts(),
        }))
    }

    /// No signals.
    pub(super) fn none() -> Self {
        Self(Source::None)
    }

    /// Installs handlers that do nothing: this process has nothing to end.
    pub(super) fn ignored() -> io::Result<Self> {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let [term, int, hup] = kinds.map(signal);
        Ok(Self(Source::Ignored { _signals: [term?, int?, hup?] }))
    }

    /// Signals that a test sends by name.
    #[cfg(test)]
    pub(super) fn of_test() -> (mpsc::Sender<EndSignal>, Self) {
        let (send, receive) = mpsc::channel(4);
        (send, Self(Source::Test(receive)))
    }

    /// Waits for the next one. Cancellation-safe.
    pub async fn next(&mut self) -> EndSignal {
        match &mut self.0 {
            Source::Process { term, int, hup, typed } => tokio::select! {
                _ = term.recv() => EndSignal::sent("SIGTERM"),
                _ = int.recv() => {
                    let before = std::mem::replace(typed, sys::typed_interrupts());
                    if *typed == before { EndSignal::sent("SIGINT") } else { EndSignal::typed("SIGINT") }
                }
                () = received(hup) => EndSignal::sent("SIGHUP"),
            },
            Source::None => std::future::pending().await,
            Source::Ignored { .. } => std::future::pending().await,
            #[cfg(test)]
            Source::Test(signals) => match signals.recv().await {
                Some(signal) => signal,
                None => std::future::pending().await,
            },
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_within_a_second_is_one_request() {
        let [term, hup, int] = ["SIGTERM", "SIGHUP", "SIGINT"].map(EndSignal::sent);
        let key = EndSignal::typed("SIGINT");
        let start = Instant::now();
        let meanings = |signals: &[(u64, EndSignal)]| {
            let mut requests = Requests::default();
            let note =
                |(ms, signal): &(u64, EndSignal)| requests.note(*signal, start + Duration::from_millis(*ms));
            signals.iter().map(note).collect::<Vec<_>>()
        };
        use Meaning::{Again, First, Same};
        assert_eq!(meanings(&[(0, term), (0, term), (999, hup)]), [First, Same, Same]);
        // the second counts from the request, not from a signal that belonged to it
        assert_eq!(meanings(&[(0, term), (900, term), (1000, term)]), [First, Same, Again]);
        assert_eq!(
            meanings(&[(0, hup), (1500, term), (1600, term), (2600, int)]),
            [First, Again, Same, Again]
        );
        assert_eq!(meanings(&[(0, key), (100, key), (200, key)]), [First, Again, Again]);
        // an interrupt key beside a signal from elsewhere: `timeout` in the foreground
        assert_eq!(meanings(&[(0, key), (100, int), (200, term)]), [First, Same, Same]);
    }
}
