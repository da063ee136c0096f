//! Signals to the supervisor that ask for the VM's end, and which of them are requests of their own.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
#[cfg(test)]
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::host::sys;

/// Signals that come within this time of one that was a request belong to it. One request often arrives as two signals:
/// `timeout` signals its child, then the group; a terminal that closes sends SIGHUP from the shell and from the kernel;
/// systemd sends SIGHUP after SIGTERM where `SendSIGHUP=yes`.
const ONE_REQUEST: Duration = Duration::from_secs(1);

/// A signal that asks for the VM's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndSignal {
    name: &'static str,
    typed: bool,
}

impl EndSignal {
    /// One that another process sent.
    pub(super) const fn sent(name: &'static str) -> Self {
        Self { name, typed: false }
    }

    /// A key on the terminal: only a person sends two of these within a second and means it.
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

/// What has been asked by signals so far.
#[derive(Debug, Default)]
pub(super) struct Requests {
    last: Option<(Instant, EndSignal)>,
}

/// What a signal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The first request.
    First,
    /// Another way in which the last request arrived.
    Same,
    /// One more request.
    Again,
}

impl Requests {
    /// Takes note of a signal.
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

/// SIGTERM, SIGINT and SIGHUP as a stream; once made, they no longer end the process.
#[derive(Debug)]
pub struct Signals(Source);

#[derive(Debug)]
enum Source {
    Process {
        term: Signal,
        int: Signal,
        /// None: it was ignored when we came, as by `nohup`, and stays so.
        hup: Option<Signal>,
        /// How many interrupts the terminal had sent when the last SIGINT was told.
        typed: u32,
    },
    /// Somebody else's process: its signals are not for us.
    None,
    /// Nobody's business.
    Ignored { _signals: [Signal; 3] },
    /// A test's own, since real signals would reach every test of the process.
    #[cfg(test)]
    Test(mpsc::Receiver<EndSignal>),
}

impl Signals {
    /// Takes the signals over. Needs a running runtime.
    pub fn new() -> io::Result<Self> {
        sys::count_typed_interrupts()?;
        Ok(Self(Source::Process {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            // of the others nobody takes notice: a shell starts what is put in the background with SIGINT ignored
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

    /// Takes them over, too, but nothing comes of them: this process has nothing to end.
    pub(super) fn ignored() -> io::Result<Self> {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let [term, int, hup] = kinds.map(signal);
        Ok(Self(Source::Ignored { _signals: [term?, int?, hup?] }))
    }

    /// Signals that a test sends by their names.
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
        // the second counts from the request, not from what belonged to it
        assert_eq!(meanings(&[(0, term), (900, term), (1000, term)]), [First, Same, Again]);
        assert_eq!(
            meanings(&[(0, hup), (1500, term), (1600, term), (2600, int)]),
            [First, Again, Same, Again]
        );
        assert_eq!(meanings(&[(0, key), (100, key), (200, key)]), [First, Again, Again]);
        // a key beside a signal from elsewhere: `timeout` in the foreground
        assert_eq!(meanings(&[(0, key), (100, int), (200, term)]), [First, Same, Same]);
    }
}
