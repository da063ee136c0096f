//! Why a VM could not be started.

use std::fmt;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use thiserror::Error;

use crate::host::accel::AccelError;
use crate::host::dirs::DirError;
use crate::host::firmware::FirmwareError;
use crate::host::iso::IsoError;
use crate::host::kernel_log;
use crate::host::oom::OomKills;
use crate::host::ports::PortError;
use crate::host::programs::ProgramError;
use crate::host::saved::SavedError;
use crate::qemu::Unsupported;
use crate::qemu::refusals::Refusal;
use crate::spec::{UnknownTarget, VmName};

use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::signals::EndSignal;

/// Why a VM could not be started. Nothing is left behind.
#[derive(Debug, Error)]
pub enum StartError {
    /// The request itself is invalid.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What the user can do about it.
        hint: Option<String>,
    },
    /// An image or disk cannot be used.
    #[error("{what}: {error}")]
    Image {
        /// Which one, e.g. `image` or `disk 'disk1'`.
        what: String,
        /// Why.
        error: ChangeError,
    },
    /// A file that the boot mode needs is not there or not readable.
    #[error("{what} {}: {why}", path.display())]
    File {
        /// What it is.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why it cannot be used.
        why: String,
        /// What the user can do about it.
        hint: Option<String>,
    },
    /// A VM of this name runs.
    #[error("a VM named '{0}' is already running")]
    NameTaken(VmName),
    /// A VM of this name runs in another PID namespace.
    #[error(
        "VM '{0}' has lost its supervisor, and cannot get a new one here: its QEMU runs in another PID namespace"
    )]
    Elsewhere(VmName),
    /// vmrun does not know this kind of host.
    #[error("vmrun does not know this machine's operating system or architecture")]
    UnknownHost,
    /// A wrapped QEMU is for an architecture that vmrun does not know.
    #[error(transparent)]
    UnknownTarget(UnknownTarget),
    /// A program is missing.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// None of the requested accelerators works.
    #[error(transparent)]
    Accel(#[from] AccelError),
    /// The folder of running VMs, or the VM's run directory, cannot be used.
    #[error("run directory")]
    RunDirectory(#[source] DirError),
    /// The state directory cannot be used.
    #[error("state directory")]
    StateDirectory(#[from] DirError),
    /// There is no firmware, or it cannot be copied.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The file of a saved VM cannot be used.
    #[error(transparent)]
    Saved(#[from] SavedError),
    /// The state of a saved VM does not fit.
    #[error("{}", .0.message)]
    Restore(ChangeError),
    /// QEMU has opened something else than the VM's images.
    #[error("{}", .0.message)]
    Opened(ChangeError),
    /// The metadata CD could not be made.
    #[error("metadata for the guest")]
    Metadata(#[from] IsoError),
    /// A host port cannot be listened on.
    #[error("--publish")]
    Port(#[from] PortError),
    /// The machine does not support what was requested.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// A helper program did not start.
    #[error("{program} could not be started: {error}")]
    Helper {
        /// Which.
        program: String,
        /// Why.
        error: std::io::Error,
    },
    /// Another process holds an image, and one of the two would write to it.
    #[error("{} is in use by {holder}{}", path.display(), words(.said))]
    Locked {
        /// The image.
        path: PathBuf,
        /// Which process or VM, and what it does with the image.
        holder: String,
        /// It writes to the image.
        writes: bool,
        /// QEMU's error.
        said: String,
    },
    /// QEMU ended, or never answered on its monitor.
    #[error("QEMU did not start{}", words(.said))]
    Qemu {
        /// Its stderr tail.
        said: String,
    },
    /// QEMU was killed before it answered.
    #[error("QEMU did not start: {death}{}", words(.said))]
    Killed {
        /// By which signal.
        death: Death,
        /// Its stderr tail.
        said: String,
    },
    /// Its end was requested before the guest ran.
    #[error("the VM was not started: {0} came before its saved state was loaded")]
    Signal(EndSignal),
    /// The helper of a shared folder failed, and QEMU with it.
    #[error("--virtiofs {}: virtiofsd has failed{}", directory.display(), words(.said))]
    Share {
        /// The folder.
        directory: PathBuf,
        /// Its stderr tail.
        said: String,
    },
    /// Another VM uses the state directory.
    #[error("state directory {} is in use by VM '{vm}'", path.display())]
    StateTaken {
        /// The directory.
        path: PathBuf,
        /// Which VM.
        vm: VmName,
    },
    /// A system call failed.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        error: std::io::Error,
    },
}

/// The end of a process by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Death {
    signal: i32,
    /// The system call that the sandbox refused, if the kernel's log can be read and has it.
    call: Option<u32>,
    /// Whether the kernel killed a process of its control group for lack of memory, where the group counts that.
    out_of_memory: Option<bool>,
}

impl Death {
    /// `oom_kills`: counted since before the process started.
    pub(in crate::vm) fn of(pid: i32, signal: i32, oom_kills: &OomKills) -> Self {
        let call = (signal == Signal::SIGSYS as i32).then(|| kernel_log::refused_call(pid)).flatten();
        Self { signal, call, out_of_memory: oom_kills.happened() }
    }

    fn hint(self) -> Option<String> {
        match Signal::try_from(self.signal) {
            Ok(Signal::SIGSYS) => {
                Some("`--no-sandbox` starts it without the sandbox, if that is what you want".to_owned())
            }
            Ok(Signal::SIGKILL) if self.out_of_memory != Some(false) => Some(
                "give the VM less memory with `--mem`, or more to the service or container that it runs in"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (Signal::try_from(self.signal), self.call) {
            (Ok(Signal::SIGSYS), Some(call)) => {
                write!(
                    formatter,
                    "its sandbox refused the system call {call}, and the kernel ended it (SIGSYS)"
                )
            }
            (Ok(Signal::SIGSYS), None) => {
                write!(formatter, "its sandbox refused a system call, and the kernel ended it (SIGSYS)")
            }
            (Ok(Signal::SIGKILL), _) => formatter.write_str(match self.out_of_memory {
                Some(true) => {
                    "it was killed (SIGKILL) by the kernel, which ran out of memory for its control group"
                }
                Some(false) => "it was killed (SIGKILL) by another process, and not for want of memory",
                None => "it was killed (SIGKILL), probably because memory ran out",
            }),
            (Ok(signal), _) => write!(formatter, "it was ended by {signal}"),
            (Err(_), _) => write!(formatter, "it was ended by signal {}", self.signal),
        }
    }
}

fn words(said: &str) -> String {
    let said = said.trim();
    if said.is_empty() { String::new() } else { format!(": {}", said.replace('\n', "\n  ")) }
}

impl StartError {
    /// An invalid request.
    pub(in crate::vm) fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: None }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } | Self::File { hint, .. } => hint.clone(),
            Self::Image { error, .. } => error.hint.clone(),
            Self::Qemu { said } if Refusal::StdioTaken.is_in(said) => Some(
                "QEMU's standard streams are the guest's console; `vmrun ctl hmp` and `--qmp` are ways to its monitors".to_owned(),
            ),
            Self::Killed { death, .. } => death.hint(),
            Self::Share { .. } | Self::Signal(_) => None,
            Self::Qemu { said } => display_hint(said).map(str::to_owned),
            Self::Locked { writes: true, .. } => Some(
                "end that first: while one VM writes to an image, no other can use it".to_owned(),
            ),
            Self::Locked { writes: false, .. } => {
                Some("end that first, or throw away what this run writes: `--ephemeral`".to_owned())
            }
            Self::StateTaken { vm, .. } => Some(format!(
                "it is the VM of this image: `vmrun ctl --vm {vm} shutdown` ends it; a second one needs another `--state DIR`, or `--ephemeral`"
            )),
            Self::NameTaken(_) => Some("choose another with `--name`, or see `vmrun ls`".to_owned()),
            Self::Elsewhere(_) => Some("run the command in the container that the VM was started in".to_owned()),
            Self::Program(error) => error.hint(),
            Self::Accel(error) => error.hint(),
            Self::RunDirectory(error) => error.hint(),
            Self::StateDirectory(DirError::InUse { .. }) => {
                Some("`vmrun ls` lists the running VMs; this image has one already".to_owned())
            }
            Self::StateDirectory(error) => {
                error.hint().or(Some("choose another with `--state DIR`".to_owned()))
            }
            Self::Firmware(error) => error.hint(),
            Self::Metadata(error) => error.hint(),
            Self::Port(error) => error.hint(),
            Self::Restore(error) | Self::Opened(error) => error.hint.clone(),
            Self::UnknownTarget(_) => Some("start this QEMU without `vmrun wrap`".to_owned()),
            Self::Saved(error) => error.hint(),
            Self::Unsupported(_)
            | Self::Helper { .. }
            | Self::System { .. }
            | Self::UnknownHost => None,
        }
    }

    /// Whether the request itself was wrong, rather than something on this host.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Usage { .. } | Self::Unsupported(_) => true,
            Self::Image { error, .. } => matches!(error.kind, ErrorKind::InvalidArgument { .. }),
            _ => false,
        }
    }
}

/// What the user can do if QEMU cannot show a display.
fn display_hint(said: &str) -> Option<&'static str> {
    match Refusal::first(&[Refusal::NoWindows, Refusal::NoDesktop, Refusal::NoSpice], said)? {
        Refusal::NoWindows => {
            Some("QEMU's windows are a package of their own: Debian and Ubuntu call it qemu-system-gui")
        }
        Refusal::NoDesktop => Some(
            "is $DISPLAY or $WAYLAND_DISPLAY that of a running desktop, which lets you in? `--display headless` needs none",
        ),
        _ => Some("this QEMU has no SPICE; `--display vnc=unix:PATH` is there in nearly every one"),
    }
}

/// Wraps an error of a system call.
pub(in crate::vm) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> StartError {
    move |error| StartError::System { what, error }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn who_killed_qemu_is_what_the_control_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let (proc, cgroup) = (root.path().join("proc"), root.path().join("cgroup"));
        fs::create_dir_all(proc.join("7")).unwrap();
        fs::create_dir_all(cgroup.join("vm")).unwrap();
        fs::write(proc.join("7/cgroup"), "0::/vm\n").unwrap();
        let counter = cgroup.join("vm/memory.events");
        fs::write(&counter, "oom_kill 1\n").unwrap();
        let kills = OomKills::watch(&proc, &cgroup, 7);
        let death = || Death::of(7, Signal::SIGKILL as i32, &kills);
        assert!(death().to_string().contains("by another process") && death().hint().is_none());
        fs::write(&counter, "oom_kill 2\n").unwrap();
        assert!(death().to_string().contains("ran out of memory for its control group"));
        assert!(death().hint().is_some_and(|hint| hint.contains("--mem")));
        fs::remove_file(&counter).unwrap();
        assert!(death().to_string().contains("probably") && death().hint().is_some());
    }
}
