//! A console on our own standard streams: raw where they are a terminal, plain bytes where not; restored on every end.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Mutex;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::sync::{mpsc, oneshot};

use crate::host::sys;

use super::escape::{Escape, EscapeKey, Typed};
use super::hub::{Chunk, From, Reader};
use super::pump::Console;
use super::stdio::Stream;

/// What the person at the terminal asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// Shut the VM down.
    Shutdown,
    /// Leave the console.
    Detach,
    /// Tell the state in a line.
    Status,
}

/// DECAWM set, and SGR reset (ECMA-48, DEC STD 070).
const WRAPPED_AND_PLAIN: &[u8] = b"\x1b[?7h\x1b[m";

/// How the terminal was before; for the panic hook, which can only reach statics.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode, as long as it lives.
#[derive(Debug)]
struct Raw;

impl Raw {
    /// Raw mode, if both standard input and output are a terminal.
    fn enter() -> Option<Self> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return None;
        }
        let before = tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        *BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(before.clone());
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            hook(info);
        }));
        sys::restore_terminal_on_death(Some(before));
        if tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw).is_err() {
            restore();
            return None;
        }
        Some(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
        // SeaBIOS turns line wrapping off, and a guest that ends may leave its colours
        let _ = io::stdout().write_all(WRAPPED_AND_PLAIN);
    }
}

fn restore() {
    let before = BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some(before) = before {
        // TCSAFLUSH would throw away what was typed ahead for the shell; TCSADRAIN could wait for ever on a stopped terminal
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &before);
        sys::restore_terminal_on_death(None);
    }
}

/// Runs the console until no more output comes. `asked` gets what the escape key asks for, `lost` why output cannot be written any
/// more; the console then goes on without.
pub async fn attach(
    console: Console,
    escape: EscapeKey,
    asked: mpsc::Sender<Attached>,
    lost: oneshot::Sender<io::Error>,
) {
    let raw = Raw::enter();
    let output = console.hub.reader(From::Recent);
    let input = type_in(console.input, Escape::new(escape), raw.is_some(), asked);
    tokio::select! {
        () = show(output, lost) => {}
        // the end of input is not the end of the console
        () = async { input.await; std::future::pending::<()>().await } => {}
    }
    drop(raw);
}

/// Copies output to standard output at its speed.
async fn show(mut output: Reader, lost: oneshot::Sender<io::Error>) {
    let mut lost = Some(lost);
    let mut stdout = Stream::stdout();
    while let Some(Chunk { skipped, bytes }) = output.next().await {
        let Some(stream) = &mut stdout else { continue };
        let mark = match skipped {
            0 => Vec::new(),
            count => format!("\r\n[vmrun: {count} bytes of output skipped]\r\n").into_bytes(),
        };
        for piece in [mark, bytes] {
            if let Err(error) = write_all(stream, &piece).await {
                // whoever read our output has gone, or it has no room; the guest goes on
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

/// Sends what is typed to the guest until the input ends.
async fn type_in(
    guest: mpsc::Sender<Vec<u8>>,
    mut escape: Escape,
    terminal: bool,
    asked: mpsc::Sender<Attached>,
) {
    let Some(mut stdin) = Stream::stdin() else { return };
    let mut buffer = [0; 4096];
    loop {
        let count = match stdin.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        // only a person has an escape key: piped bytes are all for the guest
        let typed = match terminal {
            true => escape.split(&buffer[..count]),
            false => vec![Typed::Bytes(buffer[..count].to_owned())],
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
                Typed::Help => {
                    help(escape.key());
                    continue;
                }
            };
            if asked.send(request).await.is_err() {
                return;
            }
        }
    }
}

fn help(key: EscapeKey) {
    let text = format!(
        "\r\n[vmrun: {key} x shut down (twice: at once), {key} d leave, {key} s status, {key} {key} the key itself]\r\n"
    );
    let _ = io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .map(|fd| std::fs::File::from(fd).write_all(text.as_bytes()));
}
