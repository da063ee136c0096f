//! `vmrun wrap`, and `vmrun` called by the name of a QEMU: executes that QEMU, and leaves a supervisor beside it.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use clap::Args;
use nix::sys::wait::waitpid;
use tokio::io::Interest;

use crate::control::supervise::follow;
use crate::host::descriptors;
use crate::host::programs::{self, SearchPath};
use crate::host::sys::{self, Fork, fork};
use crate::host::terminal::Terminal;
use crate::qemu::wrapped::{self, Alone};
use crate::spec::VmName;
use crate::vm::{Naming, StartError, Wrapping, wrap};

use super::failure::Failure;
use super::qemu::runtime;

/// Prefixes of the names of QEMU's system emulators.
const QEMU: &str = "qemu-system-";
/// The QEMU to use when `vmrun` is called by its name: a program, or a folder of programs.
const QEMU_VARIABLE: &str = "VMRUN_WRAP_QEMU";

/// `vmrun wrap`.
#[derive(Debug, Args)]
#[command(
    override_usage = "vmrun wrap [--name NAME] -- QEMU ARGS…",
    after_help = "QEMU gets everything as it is (arguments, streams, descriptors, signals, the terminal) and a monitor more, by which \
        `vmrun ls` and `vmrun ctl` find it. A symbolic link to vmrun with the name of a QEMU (qemu-system-x86_64) does the same \
        for the program of that name that comes later in PATH, or that $VMRUN_WRAP_QEMU names."
)]
pub(super) struct WrapArgs {
    /// VM name [default: from QEMU's `-name`, or from the program's name]
    #[arg(long)]
    name: Option<VmName>,
    /// QEMU command line
    #[arg(last = true, required = true, value_name = "QEMU ARGS")]
    command: Vec<OsString>,
}

/// Executes QEMU; returns only if that fails.
pub(super) fn run(args: WrapArgs) -> Result<u8, Failure> {
    let WrapArgs { name, command } = args;
    let mut words = command.into_iter();
    let typed = words.next().unwrap_or_default();
    let program = programs::not_us(&typed, &SearchPath::from_env()).map_err(StartError::from)?;
    let called = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !called.contains("qemu") && !called.contains("kvm") {
        let failure = Failure::usage(format!("{} does not look like a QEMU", program.display()));
        let hint = "if it is one, call it by a symbolic link that is named qemu-system-…";
        return Err(failure.hint(Some(hint.to_owned())));
    }
    let line = CommandLine { program, typed, arguments: words.collect() };
    if let Some(Alone::Daemonize) = wrapped::alone(&line.arguments) {
        log::warn!(
            "a QEMU that goes into the background by `-daemonize` is left alone: `vmrun ctl` does not find it"
        );
    }
    line.become_it(name).map(|never| match never {})
}

/// The same for a `vmrun` that is called by the name of a QEMU; `None` if it is not.
pub(super) fn by_name(arguments: Vec<OsString>) -> Option<Result<u8, Failure>> {
    let mut words = arguments.into_iter();
    let typed = words.next()?;
    let name = Path::new(&typed).file_name()?.to_owned();
    name.to_str()?.strip_prefix(QEMU)?;
    let line = real(&name).map(|program| CommandLine { program, typed, arguments: words.collect() });
    Some(line.and_then(|line| line.become_it(None)).map(|never| match never {}))
}

/// The program name by which we are called.
fn real(name: &OsStr) -> Result<PathBuf, Failure> {
    let search = SearchPath::from_env();
    let given = std::env::var_os(QEMU_VARIABLE).filter(|given| !given.is_empty()).map(PathBuf::from);
    let found = match given {
        Some(folder) if folder.is_dir() => programs::not_us(folder.join(name).as_os_str(), &search),
        Some(program) => programs::not_us(program.as_os_str(), &search),
        None => programs::not_us(name, &search),
    };
    Ok(found.map_err(StartError::from)?)
}

/// A QEMU command line of the user.
struct CommandLine {
    program: PathBuf,
    /// QEMU's `argv[0]`.
    typed: OsString,
    arguments: Vec<OsString>,
}

impl CommandLine {
    fn become_it(mut self, name: Option<VmName>) -> Result<Infallible, Failure> {
        if wrapped::is_wrapped(&self.arguments) {
            let failure =
                Failure::other("this command line has been through vmrun already: it leads back to vmrun");
            let hint = format!("name the real QEMU with ${QEMU_VARIABLE}, or with its full path");
            return Err(failure.hint(Some(hint)));
        }
        if wrapped::alone(&self.arguments).is_some() {
            return Err(self.exec());
        }
        let wrapping = wrap(&self.naming(name), &self.program, wrapped::sandbox(&self.arguments))?;
        let terminal = Terminal::of_stdin();
        let who = match split_off() {
            Ok(who) => who,
            Err(failure) => {
                wrapping.remove();
                return Err(failure);
            }
        };
        match who {
            ForkSide::Supervisor => {
                supervise(wrapping, terminal);
                // no return into the caller's code: its buffers and guards belong to QEMU's process
                std::process::exit(0)
            }
            ForkSide::Caller => {
                sys::give_away(wrapping.monitor())?;
                let monitor =
                    wrapped::monitor(std::os::fd::AsRawFd::as_raw_fd(wrapping.monitor()), rand::random());
                self.arguments.extend(monitor);
                Err(self.exec())
            }
        }
    }

    fn naming(&self, asked: Option<VmName>) -> Naming {
        match (asked, wrapped::name(&self.arguments)) {
            (Some(name), _) => Naming::Exactly(name),
            (None, Some(name)) => Naming::Like(VmName::from_text(name)),
            (None, None) => Naming::Numbered(VmName::from_text(self.program.file_name().unwrap_or_default())),
        }
    }

    fn exec(&self) -> Failure {
        let error = sys::become_program(&self.program, &self.typed, &self.arguments);
        Failure::other(format!("{} could not be started: {error}", self.program.display()))
    }
}

/// One of the two processes after the fork.
enum ForkSide {
    /// The process that the caller started.
    Caller,
    /// The supervisor, which is not its child.
    Supervisor,
}

/// The supervisor must not be a child of QEMU, which is unaware of it: the process between them ends at once.
fn split_off() -> Result<ForkSide, Failure> {
    match fork()? {
        Fork::Parent(child) => {
            // a failure is ignored: QEMU must run
            let _ = waitpid(child, None);
            Ok(ForkSide::Caller)
        }
        Fork::Child => match (nix::unistd::setsid(), fork()) {
            (Ok(_), Ok(Fork::Child)) => Ok(ForkSide::Supervisor),
            _ => std::process::exit(0),
        },
    }
}

/// Runs the supervisor. Its failures affect nothing: QEMU continues without it.
fn supervise(wrapping: Wrapping, terminal: Option<Terminal>) {
    // it stays in QEMU's folder, since QEMU's image names are relative to that
    let lives = sys::let_go_of_inherited()
        .map_err(Failure::from)
        .and_then(|()| runtime())
        .and_then(|runtime| Ok((runtime, wrapping.process()?)));
    let Ok((runtime, process)) = lives else { return };
    descriptors::raise_limit();
    runtime.block_on(async {
        let guard = tokio::spawn(guard(process, terminal));
        if let Err(error) = follow(wrapping).await {
            log::warn!("{error}");
        }
        let _ = guard.await;
    });
    runtime.shutdown_background();
}

/// Restores the terminal when QEMU has ended; not later, since its next owner is about to take it.
async fn guard(process: OwnedFd, terminal: Option<Terminal>) {
    let Some(terminal) = terminal else { return };
    if let Ok(process) = sys::watch(process, Interest::READABLE) {
        let _ = process.readable().await;
        terminal.restore();
    }
}
