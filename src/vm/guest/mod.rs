//! Operations inside the guest, through its agent: running commands, copying files.
//!
//! They do not need the owner, since they do not change the VM. All of them end with the VM, a panic, or the loss of the agent.

pub(in crate::vm) mod agent;
mod agent_file;
pub(in crate::vm) mod boot_watch;
pub mod clock;
pub mod console_size;
mod end_mark;
pub mod exec;
mod file_streams;
pub mod files;
mod freeze;
pub(in crate::vm) mod inputs;
mod mounts;
pub(super) mod panic_watch;
pub(in crate::vm) mod port_probe;
mod raw;
pub mod reboot;
pub(in crate::vm) mod resets;
pub(in crate::vm) mod screen;
mod shell_words;
mod sshd;
mod stream_ports;
mod stream_shell;
pub mod streams;
pub(in crate::vm) mod waiting_shell;

use std::time::Duration;

use qapi::qga::QgaCommand;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::host::log_context;
use crate::qemu::Command;
use crate::qemu::refusals::Refusal;
use crate::qmp::AgentError;
use crate::qmp::agent as qmp_agent;

use super::error::{ChangeError, ErrorChain, ErrorKind};
use super::handle::Handle;
use crate::vm::guest::agent::{Loss, Presence, Turn};
use crate::vm::state::run_state::RunState;

/// The hint where the agent does not offer a command.
const HINT_BLOCKED: &str = "the agent's settings in the guest decide what it allows (on Red Hat's systems /etc/sysconfig/qemu-ga: \
     BLOCK_RPCS, FILTER_RPC_ARGS)";

/// How long to wait for an agent that does not answer yet, unless the client says otherwise: after a boot, a reset or a loaded
/// snapshot it takes some seconds.
pub(super) const AGENT_TIMEOUT: Duration = Duration::from_secs(10);

impl Handle {
    /// Runs an operation inside the guest; refused while its file systems are frozen, or without an agent; see
    /// [`Handle::with_agent`].
    pub(super) async fn in_guest<T>(
        &self,
        agent_timeout: Duration,
        work: impl Future<Output = Result<T, ChangeError>>,
    ) -> Result<T, ChangeError> {
        self.refuse_frozen()?;
        self.with_agent(agent_timeout, work).await
    }

    /// Runs an operation that needs the agent, after waiting for the agent. It ends at once when the VM ends, panics, or the agent
    /// is lost.
    pub(super) async fn with_agent<T>(
        &self,
        agent_timeout: Duration,
        work: impl Future<Output = Result<T, ChangeError>>,
    ) -> Result<T, ChangeError> {
        self.guest_can_answer()?;
        let until = tokio::time::Instant::now() + agent_timeout;
        tokio::select! { biased;
            () = self.agent.answers() => {}
            ended = self.guest_ends() => return Err(ended),
            () = tokio::time::sleep_until(until) => {
                // the guest was paused meanwhile, for example
                self.guest_can_answer()?;
                return Err(no_agent(self.agent.presence(), agent_timeout));
            }
        }
        tokio::select! { biased;
            result = work => result,
            ended = self.guest_ends() => Err(ended),
            presence = self.agent.lost() => Err(no_agent(presence, Duration::ZERO)),
        }
    }

    /// Resolves when no operation inside the guest is possible any more.
    async fn guest_ends(&self) -> ChangeError {
        tokio::select! { biased;
            _ = self.ended() => ChangeError::not_running(),
            true = self.panicked() => ChangeError::new(ErrorKind::GuestPanicked, "the guest's kernel panicked"),
        }
    }

    /// Refuses to wait for a guest that cannot answer.
    fn guest_can_answer(&self) -> Result<(), ChangeError> {
        let state = self.watched.borrow().run_state;
        if matches!(state, RunState::Off) || self.watched.has_changed().is_err() {
            return Err(ChangeError::not_running());
        }
        if !matches!(state, RunState::Running | RunState::Starting) {
            let kind = ErrorKind::NotNow { state: state.to_string() };
            let message = format!("the guest does not run (it is {state}), so its agent cannot answer");
            return Err(ChangeError::new(kind, message).hint("`resume` first"));
        }
        self.agent.check()
    }

    /// Runs one command of the agent.
    pub(super) async fn ask_agent(&self, execute: &str, arguments: Value) -> Result<Value, ChangeError> {
        self.agent.run(&Command::new(execute, arguments)).await.map_err(in_words)
    }

    /// Runs one command of the agent, with the answer in `qapi`'s type.
    pub(super) async fn call_agent<C: QgaCommand>(&self, command: C) -> Result<C::Ok, ChangeError> {
        let answer = self.agent.run(&Command::of(&command)).await;
        answer.and_then(|answer| qmp_agent::decoded(C::NAME, answer)).map_err(in_words)
    }

    /// Runs one command of the agent that makes something in the guest (a process, an open file). Once it was sent, the answer is
    /// awaited even if the client has gone: `made` gets it, and dropping its result undoes it.
    pub(super) async fn make_in_guest<C: QgaCommand, T: Send + 'static>(
        &self,
        command: C,
        made: impl FnOnce(Handle, C::Ok) -> T + Send + 'static,
    ) -> Result<T, ChangeError> {
        let (vm, command) = (self.clone(), Command::of(&command));
        let (mut tell, told) = oneshot::channel();
        log_context::spawn(async move {
            let turn: Turn = tokio::select! { biased;
                () = tell.closed() => return,
                turn = vm.agent.turn() => turn,
            };
            let answer = turn.run(&command).await;
            let answer =
                answer.and_then(|answer| qmp_agent::decoded::<C::Ok>(C::NAME, answer)).map_err(in_words);
            // the client may have gone: dropping the result undoes it
            let _ = tell.send(answer.map(|answer| made(vm, answer)));
        });
        told.await.unwrap_or_else(|_| Err(ChangeError::not_running()))
    }
}

fn no_agent(presence: Presence, waited: Duration) -> ChangeError {
    let waited = match waited {
        Duration::ZERO => String::new(),
        waited => format!(" (waited {})", crate::spec::duration::format(waited)),
    };
    let Presence::Lost(loss) = presence else {
        let message = format!("no guest agent has answered in this VM yet{waited}");
        return ChangeError::new(ErrorKind::NoGuestAgent, message).hint(
            "install and start qemu-guest-agent in the guest; `vmrun ctl wait agent` waits for one that is about to start",
        );
    };
    let why = match loss {
        Loss::Closed => "the guest agent has ended, and does not answer since",
        Loss::Reset => "the guest agent does not answer since the VM was reset",
        Loss::Panicked => "the guest agent does not answer since the guest's kernel panicked",
        Loss::Loaded => "the guest agent does not answer since a snapshot was loaded",
        Loss::Unplugged => "the guest agent cannot be reached: its port was unplugged",
    };
    ChangeError::new(ErrorKind::NoGuestAgent, format!("{why}{waited}")).hint(
        "`vmrun ctl wait agent` waits until it answers again; it is the service qemu-guest-agent in the guest",
    )
}

/// The most bytes of an agent's own text that go into a message: an answer may have 48 MiB.
const MOST_WORDS: usize = 2 << 10;

/// Text from the guest, cut to what fits into a message.
fn shortened(text: &str) -> String {
    if text.len() <= MOST_WORDS {
        return text.to_owned();
    }
    let end = (0..MOST_WORDS).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}… ({} bytes)", &text[..end], text.len())
}

fn in_words(error: AgentError) -> ChangeError {
    let message = shortened(&error.with_causes());
    match error {
        // frozen by other means than `freeze-fs`
        AgentError::Refused { desc, .. } if Refusal::AgentFrozen.is_in(&desc) => freeze::frozen(message),
        AgentError::Refused { class, desc, command } => {
            let blocked = class == "CommandNotFound" || Refusal::AgentForbids.is_in(&desc);
            match blocked {
                true => ChangeError::unsupported(message).hint(HINT_BLOCKED),
                false => ChangeError::new(ErrorKind::RefusedByGuest { id: command }, message),
            }
        }
        AgentError::Timeout { .. } => ChangeError::new(ErrorKind::TimedOut, message),
        AgentError::Disconnected => ChangeError::not_running(),
        _ => ChangeError::new(ErrorKind::RefusedByGuest { id: "agent".to_owned() }, message),
    }
}

/// The interval between two polls of something in the guest that sends no event: short at first for quick commands, longer later,
/// so that polling does not slow down long ones.
struct Looks(Duration);

impl Looks {
    const FIRST: Duration = Duration::from_millis(5);
    const LAST: Duration = Duration::from_millis(100);

    fn new() -> Self {
        Self(Self::FIRST)
    }

    async fn pause(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 3 / 2).min(Self::LAST);
    }
}
