//! A shell in the guest that waits for its command.
//!
//! It is started before a VM is frozen, with its ports connected, so that it waits in every fork of the template: the first command of a
//! fork needs neither new ports nor the agent, which QEMU without KVM would have to translate anew in each fork. (Measured from the
//! start of a fork to the end of `true`: see docs/performance.md.)

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::qemu::stream_port;
use crate::vm::bus::{Bus, Subscriber};
use crate::vm::change::Port;
use crate::vm::error::ChangeError;
use crate::vm::handle::Handle;
use crate::vm::process::sockets::pair;
use crate::vm::state::waiting_shell::{WaitingPort, WaitingShellFacts};

use super::exec::{Exec, Executed, Limit, Process};
use super::stream_ports::Streams;
use super::stream_shell;
use super::streams::{Pieces, Running, closed};
use super::{AGENT_TIMEOUT, clock, no_agent};

/// The longest line for the shell, which reads it byte by byte.
const LONGEST_LINE: usize = 4096;
/// How long a guest may take to start the shell before it is frozen.
const START: Duration = Duration::from_secs(5);

/// A waiting shell with the host's ends of its ports.
#[derive(Debug)]
pub(in crate::vm) struct WaitingShell {
    facts: WaitingShellFacts,
    /// In the order of the ports.
    sockets: Vec<StdUnixStream>,
    /// The guest's clock is right, or must stay as it is.
    leaves_clock: bool,
}

impl WaitingShell {
    /// The ends of its ports for a new QEMU, and itself. The guest's clock is behind, since it was frozen.
    pub(in crate::vm) fn of_fork(facts: WaitingShellFacts) -> io::Result<(Vec<OwnedFd>, Self)> {
        let pairs: io::Result<Vec<_>> = facts.ports.iter().map(|_| pair()).collect();
        let (sockets, theirs) = pairs?.into_iter().unzip();
        Ok((theirs, Self { facts, sockets, leaves_clock: false }))
    }

    pub(in crate::vm) fn facts(&self) -> &WaitingShellFacts {
        &self.facts
    }
}

/// The waiting shell of a VM, if it has one.
#[derive(Clone, Default)]
pub(in crate::vm) struct WaitingShells(Arc<Mutex<Option<Watched>>>);

/// A waiting shell, with the events since it is there.
struct Watched {
    shell: WaitingShell,
    events: Subscriber,
}

impl Watched {
    /// Whether the guest still has its port open, as far as is known.
    fn is_there(&mut self) -> bool {
        let output = self.shell.facts.ports.first().map(|port| port.id.as_str()).unwrap_or_default();
        closed(&mut self.events, output).now_or_never().is_none()
    }
}

impl WaitingShells {
    pub(in crate::vm) fn put(&self, shell: WaitingShell, bus: &Bus) {
        self.put_back(Watched { shell, events: bus.subscribe(None) });
    }

    pub(in crate::vm) fn facts(&self) -> Option<WaitingShellFacts> {
        self.lock().as_ref().map(|watched| watched.shell.facts.clone())
    }

    fn take(&self) -> Option<Watched> {
        self.lock().take()
    }

    fn put_back(&self, watched: Watched) {
        *self.lock() = Some(watched);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    /// The first command leaves the guest's clock as it is.
    pub fn leave_clock(&self) {
        if let Some(watched) = &mut *self.waiting_shells.lock() {
            watched.shell.leaves_clock = true;
        }
    }

    /// Ends the waiting shell, if there is one: what it needs cannot be saved.
    pub(in crate::vm) async fn end_waiting_shell(&self) {
        if let Some(watched) = self.waiting_shells.take() {
            self.end(watched).await;
        }
    }

    /// Has a shell wait in the guest while `work` runs, which gets its facts, and afterwards. Without an agent or a shell in the guest
    /// there is none; that is no reason not to do the work.
    pub(in crate::vm) async fn with_waiting_shell<T>(
        &self,
        work: impl AsyncFnOnce(Option<WaitingShellFacts>) -> T,
    ) -> T {
        let mut watched = self.waiting_shells.take();
        if let Some(gone) = watched.take_if(|watched| !watched.is_there()) {
            self.end(gone).await;
        }
        if watched.is_none() && self.agent.is_alive() {
            watched = match tokio::time::timeout(START, self.start_waiting_shell()).await {
                Ok(Ok(watched)) => Some(watched),
                Ok(Err(error)) => {
                    log::debug!("no shell waits in the guest: {error}");
                    None
                }
                Err(_) => None,
            };
        }
        let done = work(watched.as_ref().map(|watched| watched.shell.facts.clone())).await;
        if let Some(watched) = watched {
            self.waiting_shells.put_back(watched);
        }
        done
    }

    async fn end(&self, watched: Watched) {
        self.close_streams(watched.shell.facts.number).await;
    }

    async fn start_waiting_shell(&self) -> Result<Watched, ChangeError> {
        let mut streams = Streams::open(self, true).await?;
        let events = self.bus.subscribe(None);
        let command = streams.shell("", &[]);
        let start = async { self.start(Exec { command, ..Exec::default() }, false).await };
        let mut process = self.in_guest(Duration::ZERO, start).await?;
        streams.output.socket.read_u8().await.map_err(ChangeError::host)?;
        let mut ports = Vec::new();
        for port in streams.all() {
            let nr = self.qmp(stream_port::number(&port.id)).await.map_err(ChangeError::from)?;
            let nr = nr.as_u64().ok_or_else(|| ChangeError::host("a port without a number"))?;
            ports.push(WaitingPort { id: port.id.clone(), name: port.name.clone(), nr });
        }
        process.unwanted = false;
        let pid = process.pid;
        let (number, sockets) = streams.into_parts()?;
        let facts = WaitingShellFacts { number, pid, ports };
        Ok(Watched { shell: WaitingShell { facts, sockets, leaves_clock: true }, events })
    }

    /// Runs a command in the waiting shell. `None`: there is none, or it takes no such command, which was not started.
    pub(super) async fn through_waiting_shell(
        &self,
        exec: &Exec,
        pieces: &Pieces,
    ) -> Result<Option<Executed>, ChangeError> {
        if !exec.env.is_empty() || self.guest_can_answer().is_err() {
            return Ok(None);
        }
        self.refuse_frozen()?;
        let Some(mut watched) = self.waiting_shells.take() else { return Ok(None) };
        let mark = super::end_mark::random();
        let line = line(exec, &mark, watched.shell.leaves_clock);
        let Some(line) = line.filter(|_| watched.is_there()) else {
            self.end(watched).await;
            return Ok(None);
        };
        let Watched { shell: WaitingShell { facts, sockets, .. }, mut events } = watched;
        let limit = Limit::of(exec);
        let ports = facts.ports.iter().zip(sockets);
        let ports = ports.map(|(port, socket)| Port { id: port.id.clone(), name: port.name.clone(), socket });
        let mut streams = Streams::connected(self, facts.number, ports)?;
        // dropped on a failure: the shell's command was not started, or must not go on
        let mut process = Process { vm: self.clone(), pid: facts.pid, unwanted: true };
        let output = streams.output.id.clone();
        // of a client that knows that the agent answers it is zero
        let patience = exec.agent_timeout.unwrap_or_default().max(AGENT_TIMEOUT);
        let started = async {
            let Some(input) = &mut streams.input else { return Ok(false) };
            if input.socket.write_all(line.as_bytes()).await.is_err() {
                return Ok(false);
            }
            // events that were lost are no end: the command would be started twice
            let gone = async { while !closed(&mut events, &output).await {} };
            tokio::select! { biased;
                begun = streams.output.socket.read_u8() => Ok(begun.is_ok()),
                () = gone => Ok(false),
                ended = self.guest_ends() => Err(ended),
                () = tokio::time::sleep(patience) => Err(no_agent(self.agent.presence(), patience)),
            }
        };
        if !limit.apply(&mut process, started).await? {
            process.unwanted = false;
            streams.close().await;
            return Ok(None);
        }
        process.unwanted = true;
        let mut closing = self.bus.subscribe(None);
        let running = Running::new(streams, events, &mark);
        // the agent is needed only if the shell was killed, to learn of what
        let lost = async {
            while !closed(&mut closing, &output).await {}
            let answers = tokio::time::timeout(AGENT_TIMEOUT, self.agent.answers()).await;
            if answers.is_ok() { self.agent.lost().await } else { self.agent.presence() }
        };
        tokio::select! { biased;
            done = self.follow(exec, limit, (process, running), pieces) => done.map(Some),
            ended = self.guest_ends() => Err(ended),
            presence = lost => Err(no_agent(presence, Duration::ZERO)),
        }
    }
}

/// The line for the shell; none for a command that it could not take.
fn line(exec: &Exec, mark: &str, leaves_clock: bool) -> Option<String> {
    let mut line = format!("vmrun_mark={mark}; ");
    if !leaves_clock {
        // whole seconds, to the nearest: what the guest's `date` takes
        let now = clock::since_1970() + Duration::from_millis(500);
        line.push_str(&format!("date -s @{} > /dev/null 2>&1; ", now.as_secs()));
    }
    if !(exec.input || exec.stdin.is_some()) {
        line.push_str("exec 5< /dev/null; ");
    }
    line.push_str("set --");
    for word in &exec.command {
        if word.contains('\0') {
            return None;
        }
        line.push(' ');
        line.push_str(&stream_shell::on_one_line(word));
    }
    line.push('\n');
    (line.len() <= LONGEST_LINE && !exec.command.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(command: &[&str]) -> Exec {
        Exec { command: command.iter().map(|word| (*word).to_owned()).collect(), ..Exec::default() }
    }

    /// What a shell makes of the line.
    #[test]
    fn a_shell_reads_the_words_of_the_line() {
        let words = ["printf", "%s|", "a b", "it's", "two\nlines\n", "$HOME `id` \\ \"", "", "grün", "-n"];
        let line = line(&exec(&words), "m", true).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "one line: {line:?}");
        for shell in ["dash", "bash"] {
            let script = format!("{}read -r l; eval \"$l\"; printf '%s\\037' \"$@\"", stream_shell::NEWLINE);
            let mut child = std::process::Command::new(shell)
                .args(["-c", &script])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            io::Write::write_all(&mut child.stdin.take().unwrap(), line.as_bytes()).unwrap();
            let printed = child.wait_with_output().unwrap().stdout;
            let printed = String::from_utf8(printed).unwrap();
            assert_eq!(printed.split_terminator('\u{1f}').collect::<Vec<_>>(), words);
        }
    }

    #[test]
    fn what_the_shell_could_not_take_is_no_line() {
        assert!(line(&exec(&["echo", &"x".repeat(LONGEST_LINE)]), "m", true).is_none());
        assert!(line(&exec(&["echo", "a\0b"]), "m", true).is_none());
        assert!(line(&exec(&[]), "m", true).is_none());
        let with_input = Exec { input: true, ..exec(&["cat"]) };
        assert_eq!(line(&with_input, "m", true).unwrap(), "vmrun_mark=m; set -- 'cat'\n");
        assert!(line(&exec(&["cat"]), "m", false).unwrap().contains("date -s @"));
    }
}
