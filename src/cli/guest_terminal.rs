//! A command on a terminal of the guest (`-t`): its keys, its size and what it shows are those of the terminal here.
//!
//! ```text
//! terminal here, raw ── streams of `exec` ── script (util-linux) or Python ── pseudo-terminal ── command
//! ```
//!
//! The agent has no terminals: the guest's own programs make one. Its size goes there by a second command, on each SIGWINCH.

use std::io::{self, IsTerminal};
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::control::client::{Client, ClientError};
use crate::host::sys;
use crate::machine;
use crate::qemu::quote;
use crate::vm::{Exec, Executed};

use super::failure::Failure;
use super::guest_command::{self, OutputTo};
use super::output::stdout_is_terminal;

/// Makes a terminal and runs a command on it: rows, columns, `TERM`, the command quoted for a shell, its words. `script` takes no
/// words, and a terminal that does not come from another one begins without echo.
const ON_TERMINAL: &str = r#"
rows=$1 columns=$2 TERM=$3 quoted=$4
shift 4
export TERM
size="stty sane rows $rows cols $columns 2>/dev/null"
case $(script --version 2>/dev/null) in
*util-linux*) SHELL=/bin/sh exec script -qefc "$size; exec $quoted" /dev/null ;;
esac
if command -v python3 >/dev/null 2>&1; then
    exec python3 -c 'import os, pty, sys
status = pty.spawn(sys.argv[1:])
sys.exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))' \
        /bin/sh -c "$size; exec \"\$@\"" sh "$@"
fi
printf '%s\r\n' 'vmrun: error: the guest cannot make a terminal: it has neither `script` (of util-linux) nor python3' \
    'vmrun: hint: install bsdutils or python3 in the guest, or leave out -t' >&2
exit 126
"#;

/// Sets the size ($2 rows, $3 columns) of the terminal that a process below $1 has: that is the shell that connects the streams;
/// below it is what made the terminal, and below that the command.
const RESIZE: &str = r#"
for a in $(cat /proc/$1/task/*/children); do
    for b in $a $(cat /proc/$a/task/*/children); do
        terminal=$(readlink /proc/$b/fd/0)
        case $terminal in /dev/pts/*) exec stty rows "$2" cols "$3" < "$terminal" ;; esac
    done
done 2>/dev/null
"#;

/// What a terminal without a size has.
const USUAL_SIZE: (u16, u16) = (24, 80);

/// Refuses a command that wants a terminal where there is none.
pub(super) fn check() -> Result<(), Failure> {
    let missing = match (io::stdin().is_terminal(), stdout_is_terminal()) {
        (true, true) => return Ok(()),
        (false, _) => "standard input",
        (true, false) => "standard output",
    };
    let failure = Failure::usage(format!("--tty: {missing} is not a terminal"));
    Err(failure.hint(Some("without it, the command has the streams that it has here".to_owned())))
}

/// Runs a command on a terminal in the guest, while ours is raw. `started` as for [`guest_command::run`].
pub(super) fn run(
    client: &mut Client,
    exec: Exec,
    to: OutputTo<'_>,
    started: impl FnOnce(Option<i64>) -> bool,
) -> Result<Executed, Failure> {
    let watch = Watch::before_threads()?;
    let (rows, columns) = sys::terminal_size().unwrap_or(USUAL_SIZE);
    let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
    let quoted: Vec<String> = exec.command.iter().map(|word| quote::posix(word)).collect();
    let arguments = [rows.to_string(), columns.to_string(), term, quoted.join(" ")];
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    words.extend(exec.command.iter().map(String::as_str));
    let on_terminal = Exec { command: Exec::script(ON_TERMINAL, &words).command, ..exec };
    let more = client.more();
    let raw = Raw::enter()?;
    let begun = |pid: i64| {
        if let Some(more) = more {
            watch.start(raw.settings.clone(), (rows, columns), move |size| resize(&mut more()?, pid, size));
        }
        started(Some(pid))
    };
    // `raw` is dropped before the failure is printed
    guest_command::run_live(client, on_terminal, to, "there can be no terminal in it", begun)
}

fn resize(client: &mut Client, pid: i64, (rows, columns): (u16, u16)) -> Result<(), ClientError> {
    let words = [pid.to_string(), rows.to_string(), columns.to_string()];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    machine::exec_streamed(client, Exec::script(RESIZE, &words), None, |_| true).map(drop)
}

/// Our terminal in raw mode; as before on drop, and on any signal that ends this process.
struct Raw {
    before: Termios,
    settings: Termios,
}

impl Raw {
    fn enter() -> Result<Self, Failure> {
        let system = |error| Failure::other(format!("the terminal's settings: {}", io::Error::from(error)));
        let before = tcgetattr(io::stdin()).map_err(system)?;
        let mut settings = before.clone();
        cfmakeraw(&mut settings);
        sys::restore_terminal_on_death(Some(before.clone()));
        let raw = Self { before, settings };
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw.settings).map_err(system)?;
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before);
        sys::restore_terminal_on_death(None);
    }
}

/// The signals about the terminal.
struct Watch(SignalFd);

impl Watch {
    /// Blocks them, for threads that are started later as well.
    fn before_threads() -> Result<Self, Failure> {
        let system = |error| Failure::other(io::Error::from(error));
        let signals: SigSet = [Signal::SIGWINCH, Signal::SIGCONT].into_iter().collect();
        signals.thread_block().map_err(system)?;
        Ok(Self(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).map_err(system)?))
    }

    /// Passes on each new size. A process that was stopped and goes on has the shell's settings of the terminal: they are set
    /// again.
    fn start(
        self,
        raw: Termios,
        mut known: (u16, u16),
        resize: impl Fn((u16, u16)) -> Result<(), ClientError> + Send + 'static,
    ) {
        thread::spawn(move || {
            while let Ok(Some(info)) = self.0.read_signal() {
                if info.ssi_signo == Signal::SIGCONT as u32 && sys::has_terminal() {
                    let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw);
                }
                let Some(size) = sys::terminal_size().filter(|size| *size != known) else { continue };
                known = size;
                if let Err(error) = resize(size) {
                    log::debug!("the guest's terminal keeps its size: {error}");
                }
            }
        });
    }
}
