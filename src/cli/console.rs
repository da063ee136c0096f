//! `vmrun console` and `vmrun logs`.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use clap::Args;
use tokio::sync::{mpsc, oneshot};

use crate::control::client::AsyncClient;
use crate::control::escape_key::{Countdown, resized, shutting_down};
use crate::control::verbs;
use crate::machine;
use crate::spec::VmName;
use crate::vm::console::{ANSWER, Attached, Console, EscapeKey, Harmless, OnSuspend, attach};
use crate::vm::{ResizedBy, Signals};

use super::failure::Failure;
use super::output::{Stdout, end_with_reader, stderr_is_terminal, stdout_is_terminal, tell, unwritten};
use super::qemu::runtime;
use super::target::named;
use super::{connect, connect_after_the_end};

/// How long the guest is asked when the escape key shuts the VM down.
const BUDGET: Duration = Duration::from_secs(30);

/// `vmrun console`.
#[derive(Debug, Args)]
pub(super) struct ConsoleArgs {
    /// VM name [default: $VMRUN_VM, else the only one that runs]
    #[arg(value_parser = named)]
    name: Option<VmName>,
    /// The same as NAME
    #[arg(long, value_name = "NAME", value_parser = named, conflicts_with = "name")]
    vm: Option<VmName>,
    /// Show the console only, without input to the guest
    #[arg(long)]
    read_only: bool,
    /// Escape key: ctrl-a to ctrl-z, ctrl-], or none
    #[arg(long, value_name = "KEY", default_value = "ctrl-a")]
    escape: EscapeKey,
}

/// `vmrun logs`.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// VM name [default: $VMRUN_VM, else the only one that runs]
    #[arg(value_parser = named)]
    name: Option<VmName>,
    /// The same as NAME
    #[arg(long, value_name = "NAME", value_parser = named, conflicts_with = "name")]
    vm: Option<VmName>,
    /// Follow the output until the VM ends
    #[arg(long, short)]
    follow: bool,
    /// Print everything since the VM's start that the log still has, not only the recent output
    #[arg(long)]
    since_start: bool,
    /// Print only the last lines of the output that is there
    #[arg(long, short = 'n', value_name = "LINES")]
    tail: Option<usize>,
    /// Print every byte unfiltered even on a terminal
    ///
    /// On a terminal, what would make it answer, set its title, its clipboard or its size, or switch its modes is left out by
    /// default: an old log could do that long after the guest has gone.
    #[arg(long)]
    raw: bool,
}

/// Prints the console's output.
pub(super) fn logs(args: &LogsArgs) -> Result<u8, Failure> {
    let (_, mut client) = connect_after_the_end(args.name.as_ref().or(args.vm.as_ref()))?;
    if args.follow {
        end_with_reader();
    }
    let mut stdout = Stdout::default();
    let mut harmless = (stdout_is_terminal() && !args.raw).then(Harmless::default);
    let from = if args.since_start { "start" } else { "recent" };
    let read = |follow| verbs::ReadConsole { from: Some(from.to_owned()), follow: Some(follow) };
    let bytes_of = |reply: &verbs::ConsoleReply| BASE64.decode(&reply.data).unwrap_or_default();
    // how much is there, so that a follower knows which of its lines are the last of that
    let mut left = 0;
    if args.tail.is_some() && args.follow {
        client.stream(read(false), |reply: verbs::ConsoleReply| {
            left += bytes_of(&reply).len();
            true
        })?;
    }
    let mut tail = args.tail.map(|lines| Tail { lines, bytes: Vec::new() });
    client.stream(read(args.follow), |reply: verbs::ConsoleReply| {
        let mut bytes = bytes_of(&reply);
        if let Some(kept) = &mut tail {
            kept.bytes.append(&mut bytes);
            if !args.follow || kept.bytes.len() < left {
                return true;
            }
        }
        let mark = match tail.take() {
            Some(kept) => {
                bytes = kept.last_lines().to_vec();
                String::new()
            }
            None => skipped_mark(reply.skipped),
        };
        let bytes = harmless.as_mut().map_or(bytes.clone(), |harmless| harmless.filter(&bytes));
        stdout.raw(mark.as_bytes()) && stdout.raw(&bytes)
    })?;
    if let Some(kept) = tail {
        let bytes = kept.last_lines();
        stdout.raw(&harmless.map_or(bytes.to_vec(), |mut harmless| harmless.filter(bytes)));
    }
    stdout.finish()
}

/// The output of which only the last lines are printed.
struct Tail {
    lines: usize,
    bytes: Vec<u8>,
}

impl Tail {
    /// Its last lines; an unfinished one counts.
    fn last_lines(&self) -> &[u8] {
        let finished = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        let mut ends =
            finished.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        match self.lines {
            0 => &[],
            lines => &self.bytes[ends.nth(lines - 1).unwrap_or(0)..],
        }
    }
}

fn skipped_mark(skipped: u64) -> String {
    match skipped {
        0 => String::new(),
        count => format!("\n[vmrun: {count} bytes of output skipped]\n"),
    }
}

/// A console on our terminal, until the VM ends or the user leaves.
pub(super) fn run(args: &ConsoleArgs) -> Result<u8, Failure> {
    let (name, client) = connect(args.name.as_ref().or(args.vm.as_ref()))?;
    let (_, second) = connect(Some(&name))?;
    if stdout_is_terminal() && stderr_is_terminal() && args.escape != EscapeKey::None {
        let key = args.escape;
        log::warn!(target: ANSWER, "the console of '{name}': {key} d leaves it, {key} h helps");
    }
    if !stdout_is_terminal() {
        end_with_reader();
    }
    let runtime = runtime()?;
    let escape = args.escape;
    let result = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let (console, input) = Console::remote();
        let (ask, asked) = mpsc::channel(4);
        let (lost, why) = oneshot::channel();
        let terminal = attach(console.clone(), escape, ask, lost, OnSuspend::Stop);
        let typing = AsyncClient::new(second)?;
        let output = AsyncClient::new(client)?;
        tokio::select! {
            result = follow(output, &console) => result.map_err(Failure::from)?,
            result = type_in(input, asked, typing, args) => {
                result?;
                return Ok(true);
            }
            // a console whose output cannot be written is left; no message if its reader has gone
            Ok(error) = why => match error.kind() {
                std::io::ErrorKind::BrokenPipe => {}
                _ => return Err(unwritten(&error)),
            },
            () = terminal => {}
            // as an error, so that the terminal is restored on the way
            signal = signals.next() => return Err(Failure::other(format!("{signal}: left the console; the VM keeps running"))),
        }
        Ok::<bool, Failure>(false)
    });
    // a read of standard input that never ends must not block the exit
    runtime.shutdown_background();
    let left = result?;
    if left {
        tell(&format!("vmrun: left the console; '{name}' goes on"));
    }
    Ok(0)
}

async fn follow(client: AsyncClient, console: &Console) -> Result<(), crate::control::client::ClientError> {
    let call = verbs::ReadConsole { from: Some("recent".to_owned()), follow: Some(true) };
    let mut output = client.start(call).await?;
    let mut harmless = stdout_is_terminal().then(Harmless::with_modes);
    while let Some(reply) = output.next().await? {
        console.hub.push(skipped_mark(reply.skipped).as_bytes());
        let mut bytes = BASE64.decode(&reply.data).unwrap_or_default();
        let earlier = reply.earlier.and_then(|earlier| usize::try_from(earlier).ok()).unwrap_or_default();
        // the guest has given up waiting for answers to what it asked then
        let live = bytes.split_off(earlier.min(bytes.len()));
        if let Some(harmless) = &mut harmless {
            bytes = harmless.filter(&bytes);
        }
        console.hub.push(&bytes);
        console.hub.push(&live);
    }
    console.hub.close();
    // lets the terminal show the rest of the output
    std::future::pending().await
}

/// Sends the input, and executes the requests of the escape key; returns when the user leaves.
async fn type_in(
    mut input: mpsc::Receiver<Vec<u8>>,
    mut asked: mpsc::Receiver<Attached>,
    mut client: AsyncClient,
    args: &ConsoleArgs,
) -> Result<(), Failure> {
    let mut asked_before = false;
    let mut countdown: Option<Countdown> = None;
    loop {
        tokio::select! { biased;
            Some(request) = asked.recv() => match request {
                Attached::Detach => return Ok(()),
                Attached::Status => {
                    let reply: verbs::StatusReply = client.call(verbs::GetStatus {}).await?;
                    let status = reply.status;
                    log::warn!(target: ANSWER, "{}: {}, up {} s", status.name, status.state, status.uptime_ms / 1000);
                }
                Attached::Size { rows, columns } => {
                    let call = verbs::ResizeConsole { rows: rows.into(), columns: columns.into() };
                    let verbs::ResizeConsoleReply { by } = client.call(call).await?;
                    let by = if by == "agent" { ResizedBy::Agent } else { ResizedBy::Typing };
                    log::warn!(target: ANSWER, "{}", resized(rows, columns, by));
                }
                Attached::Shutdown => {
                    let timeout_ms = Some(machine::milliseconds(BUDGET));
                    let call = verbs::Shutdown { timeout_ms, force: asked_before.then_some(true), no_repeat: None };
                    log::warn!(target: ANSWER, "{}", shutting_down(args.escape, BUDGET, asked_before));
                    countdown = (!asked_before).then(|| Countdown::new(BUDGET));
                    asked_before = true;
                    // its reply comes when the VM has ended, and with it this console
                    client.send_oneway(call).await?;
                }
            },
            Some(bytes) = input.recv() => {
                if !args.read_only {
                    client.call(verbs::WriteConsole { data: BASE64.encode(&bytes) }).await?;
                }
            }
            text = async {
                match &mut countdown {
                    Some(countdown) => countdown.next().await,
                    None => std::future::pending().await,
                }
            } => log::warn!(target: ANSWER, "{text}"),
            else => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tail;

    #[test]
    fn the_last_lines_are_counted_with_an_unfinished_one() {
        let last = |lines, text: &str| {
            let tail = Tail { lines, bytes: text.into() };
            String::from_utf8(tail.last_lines().to_vec()).unwrap()
        };
        assert_eq!(last(2, "a\nb\nc\n"), "b\nc\n");
        assert_eq!(last(2, "a\nb\nc"), "b\nc");
        assert_eq!(last(9, "a\nb"), "a\nb");
        assert_eq!(last(0, "a\n"), "");
        assert_eq!(last(1, ""), "");
    }
}
