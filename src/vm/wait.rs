//! Waits for conditions, driven by events. Every wait also ends with the VM, a panic, or its deadline.

use std::time::Duration;

use anstream::adapter::strip_str;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use regex_lite::Regex;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::spec::Condition;

use super::bus::{BusEvent, WatchedState};
use super::console::{From, Reader};
use super::error::{ChangeError, ErrorKind};
use super::handle::Handle;
use crate::vm::guest::boot_watch::NothingToBoot;
use crate::vm::guest::port_probe;
use crate::vm::state::outcome::{Ending, Outcome};
use crate::vm::state::run_state::RunState;

/// The longest piece of console output without a newline that is matched as a line, in bytes.
const MAX_LINE: usize = 64 << 10;
/// How long to wait for the rest of a line that matches already; a prompt has none.
const REST_OF_LINE: Duration = Duration::from_millis(100);
/// Console output from before a panic may arrive this much later than the panic's event.
const LAST_WORDS: Duration = Duration::from_millis(200);

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
        let wants_panic = wait.conditions.contains(&Condition::Event("GUEST_PANICKED".to_owned()));
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
                    return Err(ChangeError::new(
                        ErrorKind::TimedOut,
                        format!("{described} was not met within {waited}"),
                    ));
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
                Some(BusEvent::Record(record)) if record.name == name => {
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
        Condition::Agent | Condition::Port(_) => true,
        Condition::Console(_) => found == NothingToBoot::Halted,
        Condition::Running | Condition::Paused | Condition::Exit | Condition::Event(_) => false,
    };
    match wait.all {
        true => wait.conditions.iter().any(needs),
        false => wait.conditions.iter().all(needs),
    }
}

/// The first matching line. An unfinished line counts, too, since it may be a prompt; if its rest may still arrive, this waits for
/// it.
pub(super) async fn find_line(mut reader: Reader, regex: Regex) -> Option<Value> {
    let mut search = Search { regex, unfinished: None };
    loop {
        let is_ready = match &search.unfinished {
            Some((_, until)) => timeout_at(*until, reader.ready()).await.unwrap_or(false),
            None => reader.ready().await,
        };
        if !is_ready {
            return search.unfinished.map(|(found, _)| found);
        }
        let found;
        (reader, (search, found)) = reader
            .search(move |reader| {
                let found = search.next_of(reader);
                (search, found)
            })
            .await?;
        if found.is_some() {
            return found;
        }
    }
}

/// The search for a line. Between two pieces of output it keeps no text: an unfinished line is read once more.
struct Search {
    regex: Regex,
    /// The unfinished line matches already; wait for its rest until then.
    unfinished: Option<(Value, Instant)>,
}

impl Search {
    /// Searches the next piece of output; returns the match, if it is final.
    fn next_of(&mut self, reader: &mut Reader) -> Option<Value> {
        let Self { regex, unfinished } = self;
        let text = reader.try_next()?.bytes;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            if line.ends_with(b"\n") || line.len() > MAX_LINE {
                let found = matching(line, regex, true).or_else(|| unfinished.take().map(|(found, _)| found));
                if found.is_some() {
                    return found;
                }
            } else {
                reader.read_again(line.len());
                if unfinished.is_none() {
                    *unfinished =
                        matching(line, regex, false).map(|found| (found, Instant::now() + REST_OF_LINE));
                }
            }
        }
        None
    }
}

/// A line is matched as it was printed, and as it appears on a terminal: without escape sequences, and without text that carriage
/// returns overwrote. Returns the text that matched.
fn matching(line: &[u8], regex: &Regex, ended: bool) -> Option<Value> {
    let printed = String::from_utf8_lossy(line);
    let printed = printed.trim_end_matches(['\r', '\n']);
    let report = |text: &str| {
        let captures = regex.captures(text)?;
        let groups: Vec<Option<&str>> =
            captures.iter().skip(1).map(|group| group.map(|group| group.as_str())).collect();
        Some(json!({ "line": text, "groups": groups, "ended": ended }))
    };
    report(printed).or_else(|| {
        if !printed.contains(['\x1b', '\r']) {
            return None;
        }
        let seen = strip_str(printed).to_string();
        report(&seen).or_else(|| seen.rsplit('\r').find_map(report))
    })
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

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::vm::console::Hub;

    async fn found(pieces: &[&str], pattern: &str) -> Option<Value> {
        let hub = Hub::default();
        let reader = hub.reader(From::Start);
        let regex = Regex::new(pattern).unwrap();
        let writing = async {
            for piece in pieces {
                hub.push(piece.as_bytes());
                // read by now: in paused time this sleep ends only when nothing else is left to do
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::join!(find_line(reader, regex), writing).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_whole_and_a_prompt_needs_no_end() {
        let whole = found(&["ip=10.0", ".2.15\r\n"], "ip=([0-9.]+)").await.unwrap();
        assert_eq!(whole, json!({ "line": "ip=10.0.2.15", "groups": ["10.0.2.15"], "ended": true }));
        let prompt = found(&["boot\r\nlog", "in: "], "login: $").await.unwrap();
        assert_eq!(prompt, json!({ "line": "login: ", "groups": [], "ended": false }));
        // a line that was printed matches, whatever follows it
        let echoed = found(&["login: ", "root\r\n"], "login: $").await.unwrap();
        assert_eq!(echoed["line"], "login: ");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_of_any_pieces_is_one_line() {
        let line = format!("begin {} end\r\n", "-".repeat(40 << 10));
        let pieces: Vec<&str> =
            line.as_bytes().chunks(5000).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
        assert!(found(&pieces, "^begin -* end$").await.is_some());
        assert!(found(&[&line], "^begin -* end$").await.is_some());
        // a line also ends at a carriage return or with the output
        let long = format!("begin {}", "-".repeat(MAX_LINE));
        let pieces = [long.as_str(), "-- end\n"];
        assert!(timeout(Duration::from_secs(60), found(&pieces, "^begin -* end$")).await.is_err());
    }

    /// 16 MiB that are searched with a hundred expressions do not block other tasks.
    #[tokio::test]
    async fn others_have_their_turn_while_much_output_is_searched() {
        let hub = Hub::default();
        for _ in 0..16 {
            hub.push(b"nothing of what is searched for\n".repeat(512).as_slice());
        }
        let searches: Vec<_> = (0..100)
            .map(|number| {
                // slow, and without a match
                let regex = Regex::new(&format!("(a?){{40}}(nothing|of|what)* x{number}$")).unwrap();
                tokio::spawn(find_line(hub.reader(From::Start), regex))
            })
            .collect();
        // each turn of the runtime gives this task one, too
        let (mut turns, began) = (0, std::time::Instant::now());
        while began.elapsed() < Duration::from_millis(500) {
            tokio::task::yield_now().await;
            turns += 1;
        }
        assert!(turns > 1000, "{turns} turns in {:?}", began.elapsed());
        searches.into_iter().for_each(|search| search.abort());
    }

    #[tokio::test(start_paused = true)]
    async fn colours_and_overwritten_text_hide_no_line() {
        let systemd = "\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mmulti-user.target\x1b[0m - x.\r\n";
        let line = found(&[systemd], "Reached target (multi-user)").await.unwrap();
        let seen = "  OK  ] Reached target multi-user.target - x.";
        assert_eq!(line, json!({ "line": seen, "groups": ["multi-user"], "ended": true }));
        // an expression for the escape sequences themselves still matches
        let raw = found(&[systemd], "\\x1b\\[0;1;39m(multi)").await.unwrap();
        assert_eq!(raw["groups"], json!(["multi"]));
        let title = "\x1b]0;user@host: ~\x07\x1b[01;32muser@host\x1b[00m:~$ ";
        assert_eq!(found(&[title], "^user@host:~\\$ $").await.unwrap()["line"], "user@host:~$ ");
        let progress = found(&["10%\r50%\rdone\n"], "^done$").await.unwrap();
        assert_eq!(progress["line"], "done");
        // split anywhere
        let pieces: Vec<&str> = systemd.split_inclusive('[').collect();
        assert_eq!(found(&pieces, "target multi-user").await.unwrap()["line"], seen);
    }
}
