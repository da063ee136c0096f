//! Why the setup of a new QEMU failed: from its stderr, its exit status, and those of its helpers.

use std::time::Duration;

use crate::host::oom::OomKills;
use crate::qemu::refusals::Refusal;
use crate::qmp::SessionError;

use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::process::qemu::Process;
use crate::vm::process::shares::Shares;
use crate::vm::process::sockets::Serial;
use crate::vm::start_error::{Death, StartError};
use crate::vm::state::outcome::Exit;

/// How long a QEMU whose monitor has hung up may take to end.
const EXIT_GRACE: Duration = Duration::from_secs(5);

/// Why the setup of a new QEMU through its monitor failed.
pub(super) enum Failure {
    /// Its monitor hung up or sent nonsense: its stderr has the reason.
    Monitor(String),
    Start(StartError),
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        Self::Monitor(error.to_string())
    }
}

impl From<crate::qmp::CommandError> for Failure {
    fn from(error: crate::qmp::CommandError) -> Self {
        Self::Monitor(error.to_string())
    }
}

impl Failure {
    /// How long QEMU may take to end by itself; zero if it has no reason to end.
    fn grace(&self) -> Duration {
        match self {
            Self::Monitor(_) => EXIT_GRACE,
            // QEMU prints why it cannot load a state, and ends
            Self::Start(StartError::Restore(error)) if error.kind != ErrorKind::TimedOut => EXIT_GRACE,
            Self::Start(_) => Duration::ZERO,
        }
    }

    /// Ends QEMU and makes the error from its stderr. The console pipe has only QEMU's own output, since the guest has not run.
    pub(super) async fn into_error(
        self,
        process: &mut Process,
        serial: Serial,
        shares: &Shares,
        oom_kills: &OomKills,
    ) -> StartError {
        let ended = tokio::time::timeout(self.grace(), process.ended()).await;
        let by_itself = ended.is_ok();
        let exit = ended.ok().flatten();
        if !by_itself {
            process.kill();
            process.ended().await;
        }
        let words = serial.stderr_tail() + &process.stderr_tail().await;
        let why = match self {
            // the reason why a state does not fit is only on stderr
            Self::Start(StartError::Restore(error)) if !words.trim().is_empty() => {
                let message = format!("{}\n  {}", error.message, words.trim().replace('\n', "\n  "));
                return StartError::Restore(ChangeError { message, ..error });
            }
            Self::Start(error) => return error,
            Self::Monitor(why) => why,
        };
        if Refusal::VhostUser.is_in(&words)
            && let Some((directory, said)) = shares.failure().await
        {
            return StartError::Share { directory, said };
        }
        if let Some(Exit::Signal(signal)) = exit {
            return StartError::Killed { death: Death::of(process.pid(), signal, oom_kills), said: words };
        }
        let said = match (words.trim().is_empty(), by_itself) {
            (false, _) => words,
            (true, true) => "it ended without any output; is the program really QEMU?".to_owned(),
            (true, false) => why,
        };
        StartError::Qemu { said }
    }
}
