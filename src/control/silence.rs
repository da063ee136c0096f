//! A supervisor that does not answer, for example because Ctrl-Z stopped it. Every call has a deadline for connecting and one for
//! the first byte of its reply, independent of how long the VM may take for the call.

use std::fmt;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::host::dirs::{RunClient, names, process_state};

/// How long connecting may take: a slower connection is in a queue that the supervisor does not empty.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// After this long without a byte of the reply, the client checks whether the supervisor answers at all.
pub(super) const FIRST_BYTE: Duration = Duration::from_secs(2);
/// How long a supervisor on a busy machine may take for the shortest call.
const SHORTEST_CALL: Duration = Duration::from_secs(8);
/// When a stopped process is distinguished from a slow one.
const LOOK: Duration = Duration::from_millis(100);

/// The shortest call: it does not involve the VM.
const PING: &[u8] = b"{\"method\":\"org.varlink.service.GetInfo\"}\0";

/// Why a supervisor does not answer, as far as the system shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// Its process.
    pub supervisor_pid: Option<i32>,
    state: Option<char>,
    /// It has the call, and may execute it when it continues: the call is not repeated.
    has_call: bool,
}

impl Silence {
    fn of(directory: &RunClient, has_call: bool) -> Self {
        let supervisor_pid = directory.supervisor();
        Self { supervisor_pid, state: supervisor_pid.and_then(process_state), has_call }
    }

    /// Stopped by a signal, or by a debugger.
    fn is_stopped(&self) -> bool {
        matches!(self.state, Some('T' | 't'))
    }

    /// The state of its process.
    pub fn reason(&self) -> &'static str {
        match self.state {
            Some('T') => "it is stopped (by Ctrl-Z or a signal)",
            Some('t') => "it is stopped by a debugger",
            Some('D') => "it waits for a disk or another device",
            Some('Z' | 'X') => "it has just ended",
            Some('R') => "it is busy",
            Some(_) => "it does not say why",
            None => "its process is not to be found",
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let pid = self.supervisor_pid.filter(|_| self.state == Some('T'))?;
        let late = if self.has_call { ", and the call may be executed then" } else { "" };
        Some(format!("`kill -CONT {pid}` continues it (or `fg` in the shell that it was started in){late}"))
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let process = self.supervisor_pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
        write!(to, "the VM's supervisor{process} does not answer: {}", self.reason())
    }
}

/// Waits for the first byte of a reply; after [`FIRST_BYTE`] checks whether the supervisor answers at all. If it does, the call may
/// take its time.
pub(super) fn await_first_byte(stream: &UnixStream, directory: &RunClient) -> Result<(), Silence> {
    if has_answer(stream, FIRST_BYTE) { Ok(()) } else { answers_anybody(directory) }
}

/// Like [`await_first_byte`], for a call that is answered at once.
pub(super) fn await_short_answer(
    stream: &UnixStream,
    directory: &RunClient,
    deadline: Instant,
) -> Result<(), Silence> {
    let left = || deadline.saturating_duration_since(Instant::now());
    if has_answer(stream, LOOK.min(left())) {
        return Ok(());
    }
    let silence = Silence::of(directory, true);
    match !silence.is_stopped() && has_answer(stream, left()) {
        true => Ok(()),
        false => Err(silence),
    }
}

/// Whether a supervisor answers the shortest call.
pub(super) fn answers_anybody(directory: &RunClient) -> Result<(), Silence> {
    let silence = Silence::of(directory, true);
    if silence.is_stopped() {
        return Err(silence);
    }
    match directory.connect_within(names::CONTROL, SHORTEST_CALL) {
        Ok(mut stream) => {
            let answered = stream.write_all(PING).is_ok()
                && has_answer(&stream, SHORTEST_CALL)
                // a closed connection counts as a reply: the VM has ended
                && stream.read(&mut [0]).is_ok();
            if answered { Ok(()) } else { Err(Silence::of(directory, true)) }
        }
        Err(error) if is_late(&error) => Err(Silence::of(directory, true)),
        // there is no listener any more: the other connection has ended, too
        Err(_) => Ok(()),
    }
}

/// The state of a supervisor to which connecting timed out.
pub(super) fn not_connected(directory: &RunClient) -> Silence {
    Silence::of(directory, false)
}

/// Whether an error of [`Directory::connect_within`](crate::host::dirs::Directory::connect_within) is a timeout.
pub(super) fn is_late(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock
}

fn has_answer(stream: &UnixStream, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // rounded up: a timeout of 0 would loop without waiting
        let milliseconds = u16::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        let mut asked = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        match poll(&mut asked, PollTimeout::from(milliseconds)) {
            // interrupted by a signal
            Err(nix::errno::Errno::EINTR) => {}
            Ok(0) if !left.is_zero() => {}
            other => return other.is_ok_and(|ready| ready > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_or_an_end_is_noticed_and_nothing_else() {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        assert!(!has_answer(&ours, Duration::from_millis(1)));
        theirs.write_all(b"x").unwrap();
        assert!(has_answer(&ours, Duration::ZERO));
        let (theirs, ours) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(has_answer(&ours, Duration::ZERO));
    }

    #[test]
    fn what_is_told_names_the_process_and_the_way_out() {
        let stopped = Silence { supervisor_pid: Some(7), state: Some('T'), has_call: true };
        assert_eq!(
            stopped.to_string(),
            "the VM's supervisor (process 7) does not answer: it is stopped (by Ctrl-Z or a signal)"
        );
        let hint = stopped.hint().unwrap();
        assert!(hint.contains("kill -CONT 7") && hint.ends_with("may be executed then"), "{hint}");
        let not_asked = Silence { has_call: false, ..stopped }.hint().unwrap();
        assert!(!not_asked.contains("may be executed"), "{not_asked}");
        assert_eq!(Silence { supervisor_pid: None, state: None, has_call: true }.hint(), None);
    }
}
