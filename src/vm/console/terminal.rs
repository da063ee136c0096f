//! A console on our own standard streams: in raw mode on a terminal, plain bytes otherwise; restored on every exit.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use crate::host::sys;

use super::escape::{Escape, EscapeKey, Typed};
use super::foreground::{LOOK_AGAIN, OnSuspend, Terminal, Use};
use super::harmless::Harmless;
use super::hub::{Chunk, From, Reader};
use super::pump::Console;
use super::stdio::Stream;

/// A request of the user at the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// Shut the VM down.
    Shutdown,
    /// Leave the console.
    Detach,
    /// Print the state in a line.
    Status,
    /// Set the guest's terminal size.
    Size {
        /// Lines.
        rows: u16,
        /// Characters in each.
        columns: u16,
    },
}

/// Runs the console until no more output comes. `asked` receives the requests of the escape key, `lost` why output cannot be
/// written any more; the console then continues without.
pub async fn attach(
    console: Console,
    escape: EscapeKey,
    asked: mpsc::Sender<Attached>,
    lost: oneshot::Sender<io::Error>,
    on_suspend: OnSuspend,
) {
    let terminal = Terminal::new(on_suspend);
    let output = console.hub.reader(From::Recent);
    let escape = terminal.is_interactive().then(|| Escape::new(escape));
    let answers = Answers::of(&terminal);
    // a VM in the foreground, which does not stop with its terminal either, ends with it
    let may_leave = on_suspend == OnSuspend::Stop;
    let input = type_in(console.input, escape, terminal.usage(), asked, may_leave);
    tokio::select! {
        () = show(output, lost, terminal.usage(), answers) => {}
        // the end of input is not the end of the console
        () = async { input.await; std::future::pending::<()>().await } => {}
        () = terminal.hold() => {}
    }
}

/// The guest's last output on the terminal did not end its line.
static IN_LINE: AtomicBool = AtomicBool::new(false);

/// Whether a message on the terminal must begin with a new line, to stand in one of its own; it is asked once for each message.
pub fn must_end_line() -> bool {
    IN_LINE.swap(false, Ordering::Relaxed)
}

/// Who reads what a terminal answers to a guest's queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    /// Standard output is no terminal.
    None,
    /// This process, for the guest, while its group has the terminal.
    Console,
    /// Another one, such as the shell that started this one: our input is not the terminal.
    Others,
}

impl Answers {
    fn of(terminal: &Terminal) -> Self {
        match (io::stdout().is_terminal(), terminal.is_interactive()) {
            (false, _) => Self::None,
            (true, true) => Self::Console,
            (true, false) => Self::Others,
        }
    }

    fn are_lost(self, usage: Use) -> bool {
        self == Self::Others || (self == Self::Console && !usage.may_read())
    }
}

/// Copies output to standard output at its speed; without queries where the answers would not reach the guest.
async fn show(
    mut output: Reader,
    lost: oneshot::Sender<io::Error>,
    mut usage: watch::Receiver<Use>,
    answers: Answers,
) {
    let mut harmless = Harmless::with_modes();
    let mut lost = Some(lost);
    let mut stdout = Stream::stdout();
    while let Some(Chunk { skipped, mut bytes, .. }) = output.next().await {
        let Some(stream) = &mut stdout else { continue };
        while !usage.borrow_and_update().may_write() {
            // the settings of the terminal change without an event
            tokio::select! {
                changed = usage.changed() => if changed.is_err() { return },
                () = sleep(LOOK_AGAIN) => {}
            }
        }
        // in both cases, so that a sequence that was split between two pieces is recognised
        let filtered = harmless.filter(&bytes);
        if answers.are_lost(*usage.borrow()) {
            bytes = filtered;
        }
        let mark = match skipped {
            0 => Vec::new(),
            count => format!("\r\n[vmrun: {count} bytes of output skipped]\r\n").into_bytes(),
        };
        let ends = [&mark, &bytes].into_iter().rfind(|piece| !piece.is_empty());
        if let (true, Some(piece)) = (answers != Answers::None, ends) {
            IN_LINE.store(!matches!(piece.as_slice(), [.., b'\n'] | [.., b'\n', b'\r']), Ordering::Relaxed);
        }
        for piece in [mark, bytes] {
            if let Err(error) = write_all(stream, &piece).await {
                // the reader of our output has gone, or the file system is full; the guest keeps running
                stdout = None;
                if let Some(lost) = lost.take() {
                    let _ = lost.send(error);
                }
                break;
            }
        }
    }
}

async fn write_all(stream: &mut Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = stream.write(bytes).await?;
        bytes = &bytes[count..];
    }
    Ok(())
}

/// Sends typed input to the guest until the input ends.
async fn type_in(
    guest: mpsc::Sender<Vec<u8>>,
    mut escape: Option<Escape>,
    mut usage: watch::Receiver<Use>,
    asked: mpsc::Sender<Attached>,
    may_leave: bool,
) {
    let Some(mut stdin) = Stream::stdin() else { return };
    let mut buffer = [0; 4096];
    loop {
        if usage.wait_for(|usage| usage.may_read()).await.is_err() {
            return;
        }
        let read = tokio::select! { biased;
            _ = usage.wait_for(|usage| !usage.may_read()) => continue,
            read = stdin.read(&mut buffer) => read,
        };
        let count = match read {
            // the terminal was taken from us a moment ago: with SIGTTIN ignored, a read reports it
            Err(error) if error.raw_os_error() == Some(libc::EIO) && !sys::has_terminal() => {
                sleep(LOOK_AGAIN).await;
                continue;
            }
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        // only a terminal has an escape key: all piped bytes are for the guest
        let typed = match &mut escape {
            Some(escape) => escape.split(&buffer[..count]),
            None => vec![Typed::Bytes(buffer[..count].to_owned())],
        };
        for item in typed {
            let request = match item {
                Typed::Bytes(bytes) => {
                    if guest.send(bytes).await.is_err() {
                        return;
                    }
                    continue;
                }
                Typed::Shutdown => Attached::Shutdown,
                Typed::Detach => Attached::Detach,
                Typed::Status => Attached::Status,
                Typed::Size => {
                    let Some((rows, columns)) = sys::terminal_size() else { continue };
                    Attached::Size { rows, columns }
                }
                Typed::Help => {
                    help(escape.as_ref().map(Escape::key).unwrap_or_default(), may_leave);
                    continue;
                }
            };
            if asked.send(request).await.is_err() {
                return;
            }
        }
    }
}

fn help(key: EscapeKey, may_leave: bool) {
    let leave = if may_leave { format!(" {key} d leave,") } else { String::new() };
    let text = format!(
        "\r\n[vmrun: {key} x shut down (twice: at once),{leave} {key} s status, {key} w send the terminal's size, {key} {key} the key itself]\r\n"
    );
    let _ = io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .map(|fd| std::fs::File::from(fd).write_all(text.as_bytes()));
}
