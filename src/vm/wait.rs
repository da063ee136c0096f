//! Waits for conditions, driven by events. Every wait also ends with the VM, a panic, or its deadline.

mod console_line;

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use regex_lite::Regex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::spec::Condition;

use super::bus::{BusEvent, WatchedState};
use super::console::{From, LastLine, Reader};
use super::error::{ChangeError, ErrorKind};
use super::handle::Handle;
use crate::vm::guest::boot_watch::NothingToBoot;
use crate::vm::guest::panic_watch::last_panic;
use crate::vm::guest::port_probe;
use crate::vm::state::outcome::{Ending, Outcome};
use crate::vm::state::run_state::RunState;
pub(super) use console_line::find_line;

/// Console output from before a panic may arrive this much later than the panic's event.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// So many resets by the guest within this time are no installation or update that needs them.
const RESETS_IN_A_ROW: usize = 5;
const RESETS_WITHIN: Duration = Duration::from_secs(60);

/// The parameters of a wait.
#[derive(Debug, Clone)]
pub struct Wait {
    /// The conditions; at least one.
    pub conditions: Vec<Condition>,
    /// Wait for all of them, rather than any.
    pub all: bool,
    /// How long at most.
    pub timeout: Option<Duration>,
    /// `console=` ignores output from before the wait.
    pub from_now: bool,
}

/// A condition that is met.
#[derive(Debug, Clone, PartialEq)]
pub struct CameTrue {
    /// Which.
    pub condition: Condition,
    /// How long after the start of the wait.
    pub after: Duration,
    /// Details: the matching line, the event, the outcome.
    pub details: Value,
}

impl Handle {
    /// Waits for conditions; returns those that are met, in order.
    pub async fn wait(&self, wait: Wait) -> Result<Vec<CameTrue>, ChangeError> {
        let started = Instant::now();
        let mut pending = FuturesUnordered::new();
        // earlier output is read once for all expressions
        let from = if wait.from_now { From::Now } else { From::Start };
        let is_console = |condition: &Condition| matches!(condition, Condition::Console(_));
        let reader = wait.conditions.iter().any(is_console).then(|| self.console.hub.reader(from));
        for condition in &wait.conditions {
            pending.push(self.one(condition.clone(), reader.clone()));
        }
        drop(reader);
        let wants_exit = wait.conditions.contains(&Condition::Exit);
        let wants_panic = wait.conditions.iter().any(|condition| {
            matches!(condition, Condition::Event(name) if name.eq_ignore_ascii_case("GUEST_PANICKED"))
        });
        let deadline = async {
            match wait.timeout {
                Some(timeout) => tokio::time::sleep_until(started + timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(deadline);
        let mut came_true = Vec::new();
        let described = describe(&wait.conditions, wait.all);
        let panic = || {
            let message = format!("the guest's kernel panicked while {described} was waited for");
            ChangeError::new(ErrorKind::GuestPanicked, message)
        };
        let mut panicked = None;
        let mut not_booted = None;
        loop {
            let result = tokio::select! { biased;
                Some(result) = pending.next() => result,
                true = self.panicked(), if panicked.is_none() && !wants_panic && !wants_exit => {
                    panicked = Some(Instant::now() + LAST_WORDS);
                    continue;
                }
                () = tokio::time::sleep_until(panicked.unwrap_or(started)), if panicked.is_some() => {
                    return Err(panic());
                }
                (count, within) = self.resets_in_a_row(), if needs_guest(&wait, NothingToBoot::Halted) => {
                    return Err(self.keeps_resetting(&described, count, within));
                }
                () = self.stands_in_a_panic(), if needs_guest(&wait, NothingToBoot::Halted) => {
                    let reason = last_panic(&self.console.hub.recent()).unwrap_or_default();
                    let error = panic();
                    let message = format!("{}, as the console shows: {reason}", error.message);
                    return Err(ChangeError { message, ..error }.hint("`vmrun logs` shows what came before"));
                }
                () = self.finds_nothing_to_boot(&wait), if not_booted.is_none() => {
                    not_booted = Some(Instant::now() + LAST_WORDS);
                    continue;
                }
                () = tokio::time::sleep_until(not_booted.unwrap_or(started)), if not_booted.is_some() => {
                    not_booted = None;
                    // the machine may have been reset meanwhile
                    let Some(found) = self.watched.borrow().nothing_to_boot else { continue };
                    return Err(not_bootable(&described, found));
                }
                outcome = self.ended() => {
                    // all conditions that are met are known by now; but this task may have used up its turn in the runtime
                    tokio::task::yield_now().await;
                    match (pending.next().now_or_never().flatten(), outcome) {
                        (Some(result), _) => result,
                        (None, _) if panicked.is_some() => return Err(panic()),
                        (None, outcome) => return Err(too_early(&described, outcome)),
                    }
                }
                () = &mut deadline => {
                    let waited = crate::spec::duration::format(wait.timeout.unwrap_or_default());
                    let message = format!("{described} was not met within {waited}");
                    let error = ChangeError::new(ErrorKind::TimedOut, message);
                    return Err(match LastLine::of(&self.console.hub.recent()) {
                        Some(line) => error.hint(format!("the console's last line is: {line}")),
                        None => error,
                    });
                }
            };
            let (condition, details) = result?;
            came_true.push(CameTrue { condition, after: started.elapsed(), details });
            if !wait.all || pending.is_empty() {
                return Ok(came_true);
            }
        }
    }

    /// Resolves to true when the guest panics; to `false` once the VM has ended.
    pub(super) async fn panicked(&self) -> bool {
        let mut watched = self.watched.clone();
        let panicked = watched.wait_for(|watched| watched.panicked).await.is_ok();
        if !panicked {
            std::future::pending::<()>().await;
        }
        panicked
    }

    /// Resolves when the console shows that the guest's kernel has panicked.
    async fn stands_in_a_panic(&self) {
        let mut watched = self.watched.clone();
        if watched.wait_for(|watched| watched.console_panic).await.is_err() {
            // the VM has ended: another branch replies
            std::future::pending().await
        }
    }

    /// Resolves when the guest has reset the machine again and again: how often, and within what time.
    async fn resets_in_a_row(&self) -> (usize, Duration) {
        let mut watched = self.watched.clone();
        let mut seen = watched.borrow_and_update().guest_resets;
        let mut recent: VecDeque<Instant> = VecDeque::new();
        while watched.changed().await.is_ok() {
            let count = watched.borrow_and_update().guest_resets;
            let now = Instant::now();
            recent.extend((seen..count).map(|_| now));
            seen = count;
            recent.retain(|at| now.duration_since(*at) < RESETS_WITHIN);
            if let Some(first) = recent.front().filter(|_| recent.len() >= RESETS_IN_A_ROW) {
                return (recent.len(), now.duration_since(*first));
            }
        }
        // the VM has ended: another branch replies
        std::future::pending().await
    }

    fn keeps_resetting(&self, described: &str, count: usize, within: Duration) -> ChangeError {
        let panic = last_panic(&self.console.hub.recent());
        let kind = match panic {
            Some(_) => ErrorKind::GuestPanicked,
            None => ErrorKind::NotNow { state: "resetting".to_owned() },
        };
        let why = panic.map(|reason| format!(": its kernel panicked: {reason}")).unwrap_or_default();
        let seconds = within.as_secs();
        let message =
            format!("the guest has reset {count} times in {seconds} s while {described} was waited for{why}");
        ChangeError::new(kind, message)
            .hint("`vmrun logs` shows why; `--no-reboot` or `--max-resets N` end such a VM")
    }

    /// Resolves when the firmware has found nothing to boot, and a condition needs a running guest.
    async fn finds_nothing_to_boot(&self, wait: &Wait) {
        let mut watched = self.watched.clone();
        let found =
            |watched: &WatchedState| watched.nothing_to_boot.is_some_and(|found| needs_guest(wait, found));
        if watched.wait_for(found).await.is_err() {
            // the VM has ended: another branch replies
            std::future::pending().await
        }
    }

    async fn one(
        &self,
        condition: Condition,
        reader: Option<Reader>,
    ) -> Result<(Condition, Value), ChangeError> {
        let details = match &condition {
            Condition::Running => self.state(|watched| watched.run_state == RunState::Running).await,
            Condition::Paused => {
                let paused = |state| !matches!(state, RunState::Running | RunState::Starting | RunState::Off);
                self.state(move |watched| paused(watched.run_state)).await
            }
            Condition::Exit => match self.ended().await {
                Some(outcome) => json!({ "outcome": outcome }),
                None => return Err(ChangeError::not_running()),
            },
            Condition::Console(pattern) => self.console_line(pattern, reader).await?,
            Condition::Agent => {
                self.agent.check()?;
                self.agent.answers().await;
                json!({})
            }
            // boxed: a wait for anything else would be as large
            Condition::Ssh => Box::pin(self.sshd_greets()).await?,
            Condition::Port(port) => port_probe::accepts(self, *port).await?,
            Condition::Event(name) => self.event(name).await,
        };
        Ok((condition, details))
    }

    async fn state(&self, wanted: impl Fn(&WatchedState) -> bool) -> Value {
        let mut watched = self.watched.clone();
        let state = watched.wait_for(|watched| wanted(watched)).await.map(|watched| watched.run_state).ok();
        match state {
            Some(state) => json!({ "state": state }),
            // the VM has ended: another branch replies
            None => std::future::pending().await,
        }
    }

    async fn event(&self, name: &str) -> Value {
        let mut subscriber = self.bus.subscribe(None);
        loop {
            match subscriber.next().await {
                Some(BusEvent::Record(record)) if record.name.eq_ignore_ascii_case(name) => {
                    return json!({ "event": record.name, "data": record.data });
                }
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    async fn console_line(&self, pattern: &str, reader: Option<Reader>) -> Result<Value, ChangeError> {
        let regex = Regex::new(pattern).map_err(|error| ChangeError::invalid("conditions", error))?;
        self.console.check()?;
        let reader = reader.unwrap_or_else(|| self.console.hub.reader(From::Now));
        Ok(match find_line(reader, regex).await {
            Some(found) => found,
            None => std::future::pending().await,
        })
    }
}

fn not_bootable(described: &str, found: NothingToBoot) -> ChangeError {
    let kind = ErrorKind::NotNow { state: "nothing_to_boot".to_owned() };
    let error = ChangeError::new(kind, format!("{described} cannot be met: {}", found.message()));
    error.hint("is the image bootable, and by this firmware (BIOS, or UEFI with `--uefi`)?")
}

/// Whether none of the conditions can be met if nothing boots. The firmware's shell prints what is typed into it.
fn needs_guest(wait: &Wait, found: NothingToBoot) -> bool {
    let needs = |condition: &Condition| match condition {
        Condition::Agent | Condition::Ssh | Condition::Port(_) => true,
        Condition::Console(_) => found == NothingToBoot::Halted,
        Condition::Running | Condition::Paused | Condition::Exit | Condition::Event(_) => false,
    };
    match wait.all {
        true => wait.conditions.iter().any(needs),
        false => wait.conditions.iter().all(needs),
    }
}

/// A panic may end the VM before it was read.
fn too_early(described: &str, outcome: Option<Outcome>) -> ChangeError {
    let panicked = outcome.as_ref().is_some_and(|outcome| outcome.ending == Ending::Panicked);
    let kind = if panicked { ErrorKind::GuestPanicked } else { ErrorKind::NotRunning };
    let how = outcome.map_or_else(String::new, |outcome| format!(": {outcome}"));
    ChangeError::new(kind, format!("the VM ended before {described} was met{how}"))
}

fn describe(conditions: &[Condition], all: bool) -> String {
    let names: Vec<String> = conditions.iter().map(|condition| format!("'{condition}'")).collect();
    names.join(if all { " and " } else { " or " })
}
