//! The state of the guest agent: whether it answers, and why not.
//!
//! No polling: QEMU sends VSERPORT_CHANGE when the guest opens the agent's port; only then is the agent called. What is known of it
//! is discarded when that guest's run ends: the port was closed, a reset, a panic, a loaded snapshot.

use std::sync::Arc;
use std::time::Duration;

use qapi::Enum;
use qapi::qga::GuestFsfreezeStatus;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::Instant;

use crate::qemu::Command;
use crate::qmp::{Agent, AgentError};

use crate::vm::error::ChangeError;

/// How long an agent that has opened its port may take to answer its first command.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// How long to wait for an error; on success there is no answer.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// What is known of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vm) enum Presence {
    /// It has not answered since the VM's start, or since this supervisor took it over.
    NeverHeard,
    /// It has answered, and has not been lost since.
    Answers,
    /// It has answered before a loss.
    Lost(Loss),
}

/// Why what is known of an agent is discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vm) enum Loss {
    /// The guest has closed the port.
    Closed,
    /// The machine was reset.
    Reset,
    /// The guest's kernel has panicked.
    Panicked,
    /// A snapshot was loaded.
    Loaded,
    /// The port was unplugged.
    Unplugged,
}

/// Whether the guest's file systems are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freeze {
    /// They are not, or vmrun has not done it.
    No,
    /// Frozen until they are thawed, or until this moment.
    Until(Instant),
    /// Thawed because the time of the freeze was over.
    Expired(Duration),
    /// Unknown: an earlier supervisor may have frozen them, or they were frozen when the guest was saved.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
struct State {
    presence: Presence,
    freeze: Freeze,
    /// The guest has the port open.
    open: bool,
    /// Counts the losses: an answer to an earlier question says nothing about the time after a loss.
    losses: u64,
}

/// The channel to the guest agent, shared by all users; one command at a time.
#[derive(Clone)]
pub(in crate::vm) struct AgentLink {
    agent: Arc<Mutex<Agent>>,
    state: watch::Sender<State>,
    /// Why there is no channel.
    absent: bool,
}

/// Exclusive use of the agent.
pub(in crate::vm) struct Turn(OwnedMutexGuard<Agent>);

impl AgentLink {
    pub(in crate::vm) fn new(agent: Agent) -> Self {
        let state = State { presence: Presence::NeverHeard, freeze: Freeze::No, open: false, losses: 0 };
        Self { agent: Arc::new(Mutex::new(agent)), state: watch::Sender::new(state), absent: false }
    }

    /// No channel: the VM's own command line has none for vmrun.
    pub(in crate::vm) fn absent() -> std::io::Result<Self> {
        let (agent, _) = UnixStream::pair()?;
        Ok(Self { absent: true, ..Self::new(Agent::new(agent)) })
    }

    /// For a guest that an earlier supervisor started, or that was restored.
    pub(in crate::vm) fn of_a_former_life(self) -> Self {
        self.set_freeze(Freeze::Unknown);
        self
    }

    /// Whether there is a channel to an agent.
    pub(in crate::vm) fn check(&self) -> Result<(), ChangeError> {
        match self.absent {
            false => Ok(()),
            true => Err(ChangeError::unsupported(
                "this VM was not started by `vmrun qemu`, so there is no channel to an agent in its guest",
            )),
        }
    }

    /// What is known of it now.
    pub(in crate::vm) fn presence(&self) -> Presence {
        self.state.borrow().presence
    }

    /// It has answered, and has not been lost since.
    pub(in crate::vm) fn is_alive(&self) -> bool {
        self.presence() == Presence::Answers
    }

    /// Whether the guest's file systems are frozen.
    pub(super) fn freeze(&self) -> Freeze {
        self.state.borrow().freeze
    }

    pub(super) fn set_freeze(&self, freeze: Freeze) {
        self.state.send_if_modified(|state| std::mem::replace(&mut state.freeze, freeze) != freeze);
    }

    /// Resolves when the freeze state changes.
    pub(super) async fn freeze_changes(&self) {
        let now = self.freeze();
        // we own the sender
        let _ = self.state.subscribe().wait_for(|state| state.freeze != now).await;
    }

    async fn not_frozen(&self) {
        // we own the sender
        let _ = self.state.subscribe().wait_for(|state| !matches!(state.freeze, Freeze::Until(_))).await;
    }

    /// Resolves when it answers. An agent that was too slow when it had opened its port is asked again.
    pub(in crate::vm) async fn answers(&self) {
        let mut watch = self.state.subscribe();
        loop {
            let State { presence, open, .. } = *watch.borrow_and_update();
            if presence == Presence::Answers {
                return;
            }
            tokio::select! { biased;
                // we own the sender: it lives as long as this waits
                _ = watch.changed() => {}
                asked = self.ask(), if open => match asked {
                    Ok(()) | Err(AgentError::Timeout { .. }) => {}
                    // without a channel nothing can be asked until the state changes
                    Err(_) => drop(watch.changed().await),
                }
            }
        }
    }

    /// Resolves when an agent that has answered is lost.
    pub(in crate::vm) async fn lost(&self) -> Presence {
        let mut watch = self.state.subscribe();
        let presence =
            watch.wait_for(|state| state.presence != Presence::Answers).await.map(|state| state.presence);
        match presence {
            Ok(presence) => presence,
            // we own the sender
            Err(_) => std::future::pending().await,
        }
    }

    /// The guest has opened the port: checks whether an agent answers.
    pub(in crate::vm) async fn opened(&self) -> Result<(), AgentError> {
        self.state.send_if_modified(|state| !std::mem::replace(&mut state.open, true));
        self.ask().await
    }

    async fn ask(&self) -> Result<(), AgentError> {
        let mut agent = self.agent.lock().await;
        let State { presence, losses, .. } = *self.state.borrow();
        if presence == Presence::Answers {
            return Ok(());
        }
        agent.sync(FIRST_ANSWER).await?;
        if self.freeze() == Freeze::Unknown {
            thaw_what_was_left(&mut agent).await?;
            self.set_freeze(Freeze::No);
        }
        self.state.send_if_modified(|state| {
            let holds = state.losses == losses;
            if holds {
                state.presence = Presence::Answers;
            }
            holds
        });
        Ok(())
    }

    /// Something has happened that an agent does not survive, or may not.
    pub(in crate::vm) fn lose(&self, loss: Loss) {
        self.state.send_modify(|state| {
            state.losses += 1;
            state.freeze = match loss {
                // it is another guest now
                Loss::Reset | Loss::Panicked => Freeze::No,
                Loss::Loaded => Freeze::Unknown,
                Loss::Closed | Loss::Unplugged => state.freeze,
            };
            state.open &= !matches!(loss, Loss::Closed | Loss::Unplugged);
            if state.presence != Presence::NeverHeard {
                state.presence = Presence::Lost(loss);
            }
        });
    }

    /// Waits for exclusive use of the agent while the guest's file systems are not frozen: the agent would refuse the command.
    pub(in crate::vm) async fn turn(&self) -> Turn {
        loop {
            self.not_frozen().await;
            let turn = self.turn_while_frozen().await;
            if !matches!(self.freeze(), Freeze::Until(_)) {
                return turn;
            }
        }
    }

    /// Waits for exclusive use of the agent.
    pub(super) async fn turn_while_frozen(&self) -> Turn {
        Turn(Arc::clone(&self.agent).lock_owned().await)
    }

    /// The same; `None` if the guest's file systems are not frozen any more.
    pub(super) async fn turn_if_frozen(&self) -> Option<Turn> {
        let turn = match self.freeze() {
            Freeze::Until(_) => self.turn_while_frozen().await,
            _ => return None,
        };
        matches!(self.freeze(), Freeze::Until(_)).then_some(turn)
    }

    /// Thaws the guest's file systems, whether or not they are frozen; `then` is the freeze state afterwards.
    pub(super) async fn thaw(&self, then: Freeze) -> Result<Value, AgentError> {
        self.thaw_in(self.turn_while_frozen().await, then).await
    }

    pub(super) async fn thaw_in(&self, mut turn: Turn, then: Freeze) -> Result<Value, AgentError> {
        let answer = turn.0.run(&super::freeze::thaw()).await?;
        // before others can use the agent
        self.set_freeze(then);
        Ok(answer)
    }

    /// Runs a command and returns its answer.
    pub(in crate::vm) async fn run(&self, command: &Command) -> Result<Value, AgentError> {
        self.turn().await.run(command).await
    }

    /// Asks the guest to shut down; on success there is no answer.
    pub(in crate::vm) async fn shut_down(&self) -> Result<(), AgentError> {
        // a guest whose file systems are frozen does not shut down
        if let Some(turn) = self.turn_if_frozen().await {
            self.thaw_in(turn, Freeze::No).await?;
        }
        self.tell(&Command::new("guest-shutdown", json!({ "mode": "powerdown" }))).await
    }

    /// Runs a command that has no answer on success.
    pub(in crate::vm) async fn tell(&self, command: &Command) -> Result<(), AgentError> {
        self.turn().await.0.tell(command, SHUTDOWN_GRACE).await
    }
}

/// Thaws the file systems of a guest whose freeze state is unknown.
async fn thaw_what_was_left(agent: &mut Agent) -> Result<(), AgentError> {
    match agent.run(&Command::new("guest-fsfreeze-status", Value::Null)).await {
        Ok(status) if status == GuestFsfreezeStatus::frozen.name() => {
            log::warn!("the guest's file systems are frozen without a known deadline: thawing them");
            agent.run(&super::freeze::thaw()).await.map(drop)
        }
        // an agent without the command has not frozen anything
        Ok(_) | Err(AgentError::Refused { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Turn {
    /// Like [`AgentLink::run`].
    pub(in crate::vm) async fn run(mut self, command: &Command) -> Result<Value, AgentError> {
        self.0.run(command).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

    use super::*;

    /// Answers the next `guest-sync-delimited`, after this.
    async fn answer(guest: &mut BufReader<UnixStream>, after: impl FnOnce()) {
        let mut line = Vec::new();
        guest.read_until(b'\n', &mut line).await.unwrap();
        let line: Value = serde_json::from_slice(line.strip_prefix(&[0xff]).unwrap_or(&line)).unwrap();
        after();
        let text = json!({ "return": line["arguments"]["id"] }).to_string();
        guest.write_all(&[&[0xff], text.as_bytes(), b"\n"].concat()).await.unwrap();
    }

    fn agent() -> (AgentLink, BufReader<UnixStream>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (AgentLink::new(Agent::new(ours)), BufReader::new(theirs))
    }

    #[tokio::test]
    async fn what_was_known_ends_with_each_loss() {
        let (link, mut guest) = agent();
        link.lose(Loss::Reset);
        assert_eq!(link.presence(), Presence::NeverHeard);
        let mut before = None;
        for loss in [Loss::Closed, Loss::Reset, Loss::Panicked, Loss::Loaded, Loss::Unplugged] {
            let answers = async {
                answer(&mut guest, || {}).await;
                // a restored guest may have frozen file systems
                if before == Some(Loss::Loaded) {
                    let mut line = String::new();
                    guest.read_line(&mut line).await.unwrap();
                    assert!(line.contains("guest-fsfreeze-status"), "{line}");
                    guest.write_all(b"{\"return\": \"thawed\"}\n").await.unwrap();
                }
            };
            let (opened, ()) = tokio::join!(link.opened(), answers);
            opened.unwrap();
            before = Some(loss);
            link.answers().await;
            link.lose(loss);
            assert_eq!((link.presence(), link.lost().await), (Presence::Lost(loss), Presence::Lost(loss)));
        }
    }

    #[tokio::test]
    async fn an_answer_from_before_a_loss_says_nothing() {
        let (link, mut guest) = agent();
        let reset = || link.lose(Loss::Reset);
        let (opened, ()) = tokio::join!(link.opened(), answer(&mut guest, reset));
        opened.unwrap();
        assert_eq!(link.presence(), Presence::NeverHeard);
    }

    /// After a takeover, a restore or a loaded snapshot no client would thaw them.
    #[tokio::test]
    async fn what_an_earlier_life_has_left_frozen_is_thawed_first() {
        for (status, thaws) in [("frozen", true), ("thawed", false)] {
            let (link, mut guest) = agent();
            let link = link.of_a_former_life();
            let said = async {
                answer(&mut guest, || {}).await;
                let mut commands = Vec::new();
                for reply in [json!(status), json!(1)].into_iter().take(1 + usize::from(thaws)) {
                    let mut line = String::new();
                    guest.read_line(&mut line).await.unwrap();
                    let command: Value = serde_json::from_str(&line).unwrap();
                    commands.push(command["execute"].as_str().unwrap().to_owned());
                    guest.write_all(format!("{}\n", json!({ "return": reply })).as_bytes()).await.unwrap();
                }
                commands
            };
            let (opened, commands) = tokio::join!(link.opened(), said);
            opened.unwrap();
            let expected = ["guest-fsfreeze-status", "guest-fsfreeze-thaw"];
            assert_eq!(commands, expected[..1 + usize::from(thaws)]);
            assert_eq!((link.presence(), link.freeze()), (Presence::Answers, Freeze::No));
        }
    }
}
