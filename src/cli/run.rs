//! `vmrun run`: starts a VM, runs a command in its guest as if it ran here, and ends the VM.
//!
//! ```text
//! this process                      supervisor
//!   ├── fork ───────────────────────►  starts the VM
//!   ├── control socket ─────────────►  copies in, the command's streams, signals, copies out
//!   └── the connection is closed ───►  ends the VM, however this process ends
//! ```

mod console;
mod signals;

use std::time::Duration;

use clap::Args;
use nix::sys::signal::{SigSet, Signal};

use crate::control::client::Client;
use crate::control::find::{self, FindError};
use crate::control::supervise::{Ready, Supervision};
use crate::host::descriptors;
use crate::host::dirs::{RuntimeEnvironment, runtime_root};
use crate::machine::Warm;
use crate::spec::{Condition, Request, duration};
use crate::vm::{Exec, Executed, Launch, ProcessRole};

use super::background::{Reporter, Started, in_background};
use super::copies::{CopyIn, CopyOut};
use super::failure::Failure;
use super::guest_command::{self, NOT_FOUND, NOT_STARTED, OutputTo, exit_code};
use super::guest_terminal;
use super::output::tell;
use super::qemu::{self, Ending, goes_on};
use super::qemu_args::VmArgs;
use super::target::NOT_RUNNING;

/// vmrun itself has failed: a code that few commands have; docker's.
const OWN_FAILURE: u8 = 125;
/// What a shell's prompt ends with; busybox' then asks the terminal where its cursor is.
const PROMPT: &str = r"[#$%>] ?(\x1b\[[0-9;?]*[a-zA-Z])*$";
/// The command had not ended in time; `timeout`'s.
const TIMED_OUT: u8 = 124;

/// `vmrun run`.
#[derive(Debug, Args)]
#[command(override_usage = "vmrun run [OPTIONS] [IMAGE] -- COMMAND...")]
pub(super) struct RunArgs {
    #[command(flatten)]
    vm: VmArgs,
    #[command(flatten, next_help_heading = "Command")]
    how: CommandArgs,

    /// Command and its arguments, run without a shell
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// How the command runs.
#[derive(Debug, Args)]
struct CommandArgs {
    /// Boot the VM; without it, and without --warm, --from and --restore, it is a fork of one that has booted before (--warm agent)
    #[arg(long, conflicts_with_all = ["warm", "from", "restore"])]
    cold: bool,
    /// Leave the VM running afterwards; its name is printed to standard error
    #[arg(long)]
    keep: bool,
    /// File or folder of this host to copy into the guest before; the guest's path is absolute; repeatable
    #[arg(long, value_name = "SOURCE:DESTINATION")]
    copy_in: Vec<CopyIn>,
    /// File or folder of the guest to copy to this host afterwards, whatever the command's exit code; repeatable
    #[arg(long, value_name = "SOURCE:DESTINATION")]
    copy_out: Vec<CopyOut>,
    /// Variable for the command, which then gets only these and a PATH; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = guest_command::variable)]
    env: Vec<String>,
    /// Kill the command after this time; the exit code is 124 then
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Type the command into the shell on the console, for guests without an agent: once its prompt, a line that matches PROMPT, is
    /// there. No input, standard error in the output [default PROMPT: a line that ends with #, $, % or >]
    #[arg(long, value_name = "PROMPT", num_args = 0..=1, require_equals = true, default_missing_value = PROMPT, conflicts_with_all = ["copy_in", "copy_out"])]
    console: Option<String>,
    /// Do not pass standard input to the command
    #[arg(long)]
    no_stdin: bool,
    /// Pass standard input to the command, as is done without it: for `-it`
    #[arg(long, short = 'i', conflicts_with = "no_stdin")]
    stdin: bool,
    /// Run the command on a terminal of the guest, with this one's keys and size
    #[arg(long, short = 't', conflicts_with_all = ["no_stdin", "console"])]
    tty: bool,
    /// How long the guest's agent may take to answer after the start
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse, default_value = "10m")]
    agent_timeout: Duration,
}

/// Runs it; the exit code is the command's.
pub(super) fn run(args: RunArgs) -> Result<u8, Failure> {
    start_and_run(args).map_err(told_apart)
}

/// A failure whose exit code is not taken for the command's own.
pub(super) fn told_apart(failure: Failure) -> Failure {
    // one that came before there was a command has the same code as one that ends this process
    let ended_by =
        failure.code.parse::<Signal>().ok().and_then(|signal| u8::try_from(128 + signal as i32).ok());
    Failure { exit_code: ended_by.unwrap_or_else(|| own_code(failure.exit_code)), ..failure }
}

/// The codes of a command that was not found, that does not start, or that was killed in time stay.
fn own_code(code: u8) -> u8 {
    if [NOT_FOUND, NOT_STARTED, TIMED_OUT].contains(&code) { code } else { OWN_FAILURE }
}

fn start_and_run(args: RunArgs) -> Result<u8, Failure> {
    let RunArgs { vm, how, command } = args;
    vm.own.install_logger();
    if how.tty {
        guest_terminal::check()?;
    }
    let heeded = signals::heeded();
    let transcript = vm.own.transcript()?;
    let sync_clock = !vm.own.no_time_sync;
    let mut request = vm.request()?;
    if request.paused {
        return Err(Failure::usage("no command can run in a VM that starts with `--paused`"));
    }
    let condition = how.condition()?;
    let typed = match how.console {
        Some(_) => Some(console::Line::of(&command, &how.env)?),
        None => None,
    };
    if !how.cold && !goes_on(&request) && request.warm.is_none() {
        request.warm = Some(condition.clone());
    }
    let Warm { request, in_use } = qemu::warmed(request, None)?;
    let ready = Ready { condition, timeout: Some(how.agent_timeout), shown: true };
    // otherwise QEMU dies with the supervisor, however that ends
    let process = if how.keep { ProcessRole::Owner } else { ProcessRole::Helper };
    let launch = Launch { detached: how.keep, transcript, process };
    let supervision = Supervision {
        // the agent of a fork has answered before; the command waits for it all the same
        ready: request.from.is_none().then_some(ready),
        sync_clock: qemu::sync_clock_of(&request).filter(|_| sync_clock),
        ..Supervision::new(launch, request.stop_timeout)
    };
    descriptors::raise_limit();
    let ending = if keeps_nothing(&request) { Ending::Forced } else { Ending::Asked };
    let job = |reporter: &mut Reporter| qemu::supervisor(&request, supervision, ending, in_use, "", reporter);
    let started = in_background(job, |_| Ok(()))?;
    let result = match typed {
        Some(line) => {
            let on_console = async { console::run(connector(&started)?, line, how.timeout).await };
            qemu::runtime()?.block_on(on_console).map_err(|failure| how.in_time(failure))
        }
        None => in_guest(&started, how.exec(command), &how, heeded),
    };
    finish(started, how.keep, result.as_ref().ok().map(exit_code));
    let result = if how.keep { result } else { result.map_err(of_an_ended_vm) };
    result.map(|executed| exit_code(&executed))
}

/// What a hint says to do with the VM cannot be done any more.
fn of_an_ended_vm(failure: Failure) -> Failure {
    let names_the_vm = failure.hint.as_ref().is_some_and(|hint| hint.contains("vmrun ctl"));
    let hint = match names_the_vm {
        false => return failure,
        true if failure.code == NOT_RUNNING => "`vmrun ls --all` shows how it ended",
        true => "`--keep` leaves the VM running, to be looked at",
    };
    failure.hint(Some(hint.to_owned()))
}

impl CommandArgs {
    /// When a command can run.
    fn condition(&self) -> Result<Condition, Failure> {
        match &self.console {
            Some(prompt) => format!("console={prompt}").parse().map_err(Failure::usage),
            None => Ok(Condition::Agent),
        }
    }

    /// A command whose time was over has a code of its own.
    fn in_time(&self, failure: Failure) -> Failure {
        match (failure.code.as_str(), self.timeout) {
            ("timed-out", Some(_)) => Failure { exit_code: TIMED_OUT, ..failure },
            _ => failure,
        }
    }

    fn exec(&self, command: Vec<String>) -> Exec {
        Exec {
            command,
            env: self.env.clone(),
            stdin: None,
            input: self.stdin || self.tty || (!self.no_stdin && guest_command::has_stdin()),
            timeout: self.timeout,
            agent_timeout: Some(self.agent_timeout),
        }
    }
}

/// Whether all that the guest writes goes with the VM, so that it need not shut down.
fn keeps_nothing(request: &Request) -> bool {
    (request.ephemeral || request.from.is_some()) && request.shares.is_empty()
}

/// Leaves or ends the VM. `exit_code`: the command's, if vmrun has not failed.
fn finish(started: Started, keep: bool, exit_code: Option<u8>) {
    if !keep {
        return match exit_code {
            Some(exit_code) => started.end_after(exit_code),
            None => started.end(),
        };
    }
    let name = started.name.clone();
    started.leave();
    tell(&format!("vmrun: VM '{name}' runs on; `vmrun ctl --vm {name} shutdown` ends it"));
}

/// Connects to the VM.
fn connector(started: &Started) -> Result<impl Fn() -> Result<Client, Failure> + Clone + use<>, Failure> {
    let root = runtime_root(&RuntimeEnvironment::from_env()).map_err(FindError::from)?;
    let name = started.name.parse().map_err(Failure::other)?;
    Ok(move || Ok(find::connect(&root, Some(&name))?.1))
}

/// Copies in, runs the command, and copies out.
fn in_guest(started: &Started, exec: Exec, how: &CommandArgs, heeded: SigSet) -> Result<Executed, Failure> {
    let connect = connector(started)?;
    let mut client = connect()?;
    let signals = signals::pass_on(heeded, connect.clone())?;
    for copy in &how.copy_in {
        copy.run(&mut client, exec.agent_timeout)?;
    }
    let agent_timeout = exec.agent_timeout;
    let started = |pid| {
        signals.go_to(pid);
        true
    };
    let executed = match how.tty {
        true => guest_terminal::run(&mut client, exec, OutputTo::Printed, started),
        false => guest_command::run(&mut client, exec, OutputTo::Printed, started),
    };
    let executed = executed.map_err(|failure| how.in_time(failure));
    signals.stop();
    // a command that is not wanted any more ends with its connection
    drop(client);
    let copied = copy_out(connect, &how.copy_out, agent_timeout);
    match (executed, copied) {
        // why the command has failed counts more
        (Err(failure), copied) => {
            copied.err().iter().for_each(|failure| failure.print(false));
            Err(failure)
        }
        (Ok(executed), Err(failure)) if executed.exit_code != Some(0) => {
            failure.print(false);
            Ok(executed)
        }
        (Ok(executed), copied) => copied.map(|()| executed),
    }
}

fn copy_out(
    connect: impl Fn() -> Result<Client, Failure>,
    copies: &[CopyOut],
    agent_timeout: Option<Duration>,
) -> Result<(), Failure> {
    if copies.is_empty() {
        return Ok(());
    }
    let mut client = connect()?;
    copies.iter().try_for_each(|copy| copy.run(&mut client, agent_timeout))
}
