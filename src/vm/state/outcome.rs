//! How a VM ended. QEMU's exit code is not evidence (it is 0 after a SIGTERM and after a guest's panic): the outcome is derived
//! from QEMU's events and from the supervisor's own actions.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use qapi::qmp::ShutdownCause;
use serde::{Deserialize, Serialize};

use crate::spec::Arch;

/// File name of the last outcome in the state directory.
pub(in crate::vm) const OUTCOME_FILE: &str = "outcome.json";

/// The kinds of end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The guest powered off by itself.
    GuestOff,
    /// The guest powered off when its agent was asked.
    AskedAgent,
    /// The guest powered off after the power button was pressed.
    AskedAcpi,
    /// QEMU was told to quit.
    Quit,
    /// QEMU was killed by its supervisor.
    Killed,
    /// The guest reset and QEMU ran with `-no-reboot`.
    GuestReset,
    /// The guest's kernel panicked.
    Panicked,
    /// Another process sent QEMU a signal on which it ends properly.
    HostSignal,
    /// QEMU crashed, or another process killed it.
    Crashed,
    /// The guest reset more often than allowed.
    TooManyResets,
    /// The VM was saved to a file, from which it can be restored.
    Saved,
    /// Unknown: the supervisor had died before.
    Unknown,
}

impl Ending {
    /// The exit code of `vmrun qemu`.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::GuestOff | Self::AskedAgent | Self::AskedAcpi | Self::GuestReset | Self::Saved => 0,
            Self::Panicked => 10,
            Self::Crashed | Self::HostSignal | Self::Unknown => 11,
            Self::Quit | Self::Killed => 12,
            Self::TooManyResets => 13,
        }
    }
}

/// How a VM ended, as text and as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The kind of end.
    pub ending: Ending,
    /// The exit code of `vmrun qemu`.
    pub exit_code: u8,
    /// One sentence.
    pub message: String,
    /// Milliseconds from the request to the end, if its end was requested.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after_ms: Option<u64>,
    /// The stderr tail of a QEMU that crashed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stderr: Option<String>,
}

impl Outcome {
    /// The end without a supervisor.
    pub(in crate::vm) fn unknown(message: &str) -> Self {
        Self {
            ending: Ending::Unknown,
            exit_code: Ending::Unknown.exit_code(),
            message: message.to_owned(),
            after_ms: None,
            stderr: None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What is collected while a VM runs, to derive its outcome.
#[derive(Debug, Default)]
pub(in crate::vm) struct Evidence {
    /// `reason` of the last SHUTDOWN event, if known, and whether the guest caused it.
    shutdown: Option<(Option<ShutdownCause>, bool)>,
    panicked: bool,
    too_many_resets: bool,
    asked: Option<ShutdownWay>,
    quit: bool,
    killed: bool,
    /// Where its state is, in a sentence.
    saved: Option<String>,
    /// QEMU for this machine sends no event when the guest powers off: on riscv64, 7.2 exits where the guest requests it.
    silent_power_off: bool,
    /// The kernel has killed a process of QEMU's control group for lack of memory.
    out_of_memory: bool,
    /// The exit code of the command that the VM was started for.
    command: Option<u8>,
    /// When the VM's end was first requested.
    requested: Option<tokio::time::Instant>,
}

/// How the guest was last asked to shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vm) enum ShutdownWay {
    Agent,
    Acpi,
}

impl Evidence {
    /// For a VM of this architecture.
    pub(in crate::vm) fn of(arch: Arch) -> Self {
        Self { silent_power_off: arch.facts().silent_power_off, ..Self::default() }
    }

    pub(in crate::vm) fn out_of_memory(&mut self) {
        self.out_of_memory = true;
    }

    pub(in crate::vm) fn shutdown_event(&mut self, reason: Option<ShutdownCause>, guest: bool) {
        if reason == Some(ShutdownCause::guest_panic) {
            self.panicked = true;
        }
        self.shutdown = Some((reason, guest));
    }

    pub(in crate::vm) fn panicked(&mut self) {
        self.panicked = true;
    }

    pub(in crate::vm) fn too_many_resets(&mut self) {
        self.too_many_resets = true;
    }

    pub(in crate::vm) fn has_panicked(&self) -> bool {
        self.panicked
    }

    pub(in crate::vm) fn has_too_many_resets(&self) -> bool {
        self.too_many_resets
    }

    /// The guest was kept after a panic and was reset since.
    pub(in crate::vm) fn reset(&mut self) {
        self.panicked = false;
    }

    pub(in crate::vm) fn requested(&mut self) {
        self.requested.get_or_insert_with(tokio::time::Instant::now);
    }

    /// The command that the VM was started for has ended: that the VM ends is no failure.
    pub(in crate::vm) fn command_ended(&mut self, exit_code: u8) {
        self.command = Some(exit_code);
    }

    pub(in crate::vm) fn shutdown_requested(&mut self, way: ShutdownWay) {
        self.asked = Some(way);
    }

    pub(in crate::vm) fn quit_sent(&mut self) {
        self.quit = true;
    }

    /// The VM's state is in this file: whatever ends QEMU now, nothing is lost.
    pub(in crate::vm) fn saved(&mut self, file: &Path) {
        self.saved = Some(format!("the VM was saved to {}", file.display()));
    }

    /// The same for a template.
    pub(in crate::vm) fn frozen(&mut self, folder: &Path) {
        self.saved = Some(format!("the VM was frozen into {}", folder.display()));
    }

    pub(in crate::vm) fn is_saved(&self) -> bool {
        self.saved.is_some()
    }

    pub(in crate::vm) fn killed(&mut self) {
        self.killed = true;
    }

    /// The outcome, once QEMU has ended with `exit` (unknown for an adopted QEMU, which is not a child).
    pub(in crate::vm) fn outcome(&self, exit: Option<Exit>, stderr: String) -> Outcome {
        let ending = self.ending(exit);
        let after = self.requested.map(|since| since.elapsed());
        // a guest that was asked, and had to be forced, may have lost data
        let planned = self.command.filter(|_| ending == Ending::Quit && self.asked.is_none());
        let message = match &self.saved {
            Some(sentence) => sentence.clone(),
            None if ending == Ending::Crashed && exit == Some(Exit::Signal(9)) && self.out_of_memory => {
                "QEMU was killed (SIGKILL) by the kernel, which ran out of memory for its control group"
                    .to_owned()
            }
            None => match planned {
                Some(code) => format!("`vmrun run` has ended it: its command ended with {code}"),
                None => sentence(ending, exit, after, self.asked.is_some()),
            },
        };
        let telling = matches!(ending, Ending::Crashed | Ending::HostSignal);
        let tail = (telling && !stderr.is_empty()).then_some(stderr);
        Outcome {
            ending,
            exit_code: if planned.is_some() { 0 } else { ending.exit_code() },
            message,
            after_ms: after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            stderr: tail,
        }
    }

    fn ending(&self, exit: Option<Exit>) -> Ending {
        if self.saved.is_some() {
            return Ending::Saved;
        }
        if self.too_many_resets {
            return Ending::TooManyResets;
        }
        if self.panicked {
            return Ending::Panicked;
        }
        if self.killed && exit.is_none_or(|exit| matches!(exit, Exit::Signal(9))) {
            return Ending::Killed;
        }
        let crashed = exit.is_some_and(|exit| exit != Exit::Code(0));
        match self.shutdown {
            _ if crashed => Ending::Crashed,
            Some((Some(ShutdownCause::guest_reset), true)) => Ending::GuestReset,
            Some((_, true)) => self.guest_off(),
            Some((Some(ShutdownCause::host_signal), false)) => Ending::HostSignal,
            Some(_) => Ending::Quit,
            None if self.quit => Ending::Quit,
            None if self.silent_power_off && exit == Some(Exit::Code(0)) => self.guest_off(),
            None => Ending::Crashed,
        }
    }

    /// The guest powered off, by request or by itself.
    fn guest_off(&self) -> Ending {
        match self.asked {
            Some(ShutdownWay::Agent) => Ending::AskedAgent,
            Some(ShutdownWay::Acpi) => Ending::AskedAcpi,
            None => Ending::GuestOff,
        }
    }
}

/// How a child process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

fn sentence(ending: Ending, exit: Option<Exit>, after: Option<Duration>, asked: bool) -> String {
    let after = after.map(|after| format!(" after {:.1} s", after.as_secs_f64())).unwrap_or_default();
    match ending {
        Ending::GuestOff => "the guest switched itself off".to_owned(),
        Ending::AskedAgent => format!("the guest followed its agent's shutdown{after}"),
        Ending::AskedAcpi => format!("the guest followed the power button{after}"),
        Ending::Quit if asked => {
            format!("QEMU was told to quit{after}; the guest was asked to shut down and did not")
        }
        Ending::Quit => format!("QEMU was told to quit{after}; the guest was not asked"),
        Ending::Killed => format!("QEMU did not quit and was killed{after}"),
        Ending::GuestReset => "the guest reset, which ends this VM".to_owned(),
        Ending::Panicked => "the guest's kernel panicked".to_owned(),
        Ending::HostSignal => "QEMU was ended by a signal from another process".to_owned(),
        Ending::TooManyResets => "the guest reset too often".to_owned(),
        Ending::Saved => "the VM was saved".to_owned(),
        Ending::Unknown => "QEMU ended without a supervisor".to_owned(),
        Ending::Crashed => match exit {
            Some(Exit::Signal(nix::libc::SIGSYS)) => {
                "QEMU tried what its sandbox forbids (SIGSYS), which ended it".to_owned()
            }
            Some(Exit::Signal(number)) => format!("QEMU was ended by {}", signal_name(number)),
            Some(Exit::Code(code)) => {
                format!("QEMU ended with code {code} without saying why on its monitor")
            }
            None => "QEMU ended without saying why on its monitor".to_owned(),
        },
    }
}

fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number)
        .map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(build: impl FnOnce(&mut Evidence), exit: Option<Exit>) -> Ending {
        let mut evidence = Evidence::default();
        build(&mut evidence);
        evidence.outcome(exit, String::new()).ending
    }

    #[test]
    fn the_events_decide_and_not_the_exit_code() {
        let clean = Some(Exit::Code(0));
        assert_eq!(
            ended(|e| e.shutdown_event(Some(ShutdownCause::guest_shutdown), true), clean),
            Ending::GuestOff
        );
        assert_eq!(
            ended(|e| e.shutdown_event(Some(ShutdownCause::guest_reset), true), clean),
            Ending::GuestReset
        );
        assert_eq!(
            ended(|e| e.shutdown_event(Some(ShutdownCause::host_signal), false), clean),
            Ending::HostSignal
        );
        assert_eq!(
            ended(|e| e.shutdown_event(Some(ShutdownCause::guest_panic), true), clean),
            Ending::Panicked
        );
        assert_eq!(
            ended(|e| e.shutdown_event(Some(ShutdownCause::host_qmp_quit), false), clean),
            Ending::Quit
        );
        assert_eq!(ended(|_| {}, clean), Ending::Crashed);
        assert_eq!(ended(|_| {}, Some(Exit::Signal(11))), Ending::Crashed);
        assert_eq!(
            ended(|e| e.shutdown_event(Some(ShutdownCause::guest_shutdown), true), Some(Exit::Signal(6))),
            Ending::Crashed
        );
    }

    #[test]
    fn who_asked_is_told_only_if_the_guest_followed() {
        let off = |e: &mut Evidence| e.shutdown_event(Some(ShutdownCause::guest_shutdown), true);
        let asked = |e: &mut Evidence| {
            e.requested();
            e.shutdown_requested(ShutdownWay::Acpi);
            off(e);
        };
        assert_eq!(ended(asked, Some(Exit::Code(0))), Ending::AskedAcpi);
        let forced = |e: &mut Evidence| {
            e.shutdown_requested(ShutdownWay::Acpi);
            e.quit_sent();
            e.shutdown_event(Some(ShutdownCause::host_qmp_quit), false);
        };
        assert_eq!(ended(forced, Some(Exit::Code(0))), Ending::Quit);
        assert_eq!(ended(Evidence::killed, Some(Exit::Signal(9))), Ending::Killed);
    }

    #[test]
    fn whether_the_guest_was_asked_is_told() {
        let message = |asked: bool| {
            let mut evidence = Evidence::default();
            if asked {
                evidence.shutdown_requested(ShutdownWay::Acpi);
            }
            evidence.quit_sent();
            evidence.shutdown_event(Some(ShutdownCause::host_qmp_quit), false);
            evidence.outcome(Some(Exit::Code(0)), String::new()).message
        };
        assert_eq!(message(true), "QEMU was told to quit; the guest was asked to shut down and did not");
        assert_eq!(message(false), "QEMU was told to quit; the guest was not asked");
    }

    #[test]
    fn on_riscv64_a_guest_may_switch_off_without_a_word() {
        let ending = |arch, exit| Evidence::of(arch).outcome(Some(exit), String::new()).ending;
        assert_eq!(ending(Arch::Riscv64, Exit::Code(0)), Ending::GuestOff);
        assert_eq!(ending(Arch::Riscv64, Exit::Code(1)), Ending::Crashed);
        assert_eq!(ending(Arch::Riscv64, Exit::Signal(9)), Ending::Crashed);
        assert_eq!(ending(Arch::X86_64, Exit::Code(0)), Ending::Crashed);
        let mut asked = Evidence::of(Arch::Riscv64);
        asked.shutdown_requested(ShutdownWay::Agent);
        assert_eq!(asked.outcome(Some(Exit::Code(0)), String::new()).ending, Ending::AskedAgent);
    }

    #[test]
    fn a_lack_of_memory_is_named_where_qemu_was_killed() {
        let mut evidence = Evidence::default();
        evidence.out_of_memory();
        let message = |exit| evidence.outcome(Some(exit), String::new()).message;
        assert!(message(Exit::Signal(9)).contains("memory"));
        assert_eq!(message(Exit::Signal(11)), "QEMU was ended by SIGSEGV");
    }

    #[test]
    fn a_crash_keeps_the_last_words() {
        let outcome = Evidence::default().outcome(Some(Exit::Signal(11)), "boom\n".to_owned());
        assert_eq!(outcome.message, "QEMU was ended by SIGSEGV");
        assert_eq!(outcome.stderr.as_deref(), Some("boom\n"));
        assert_eq!(outcome.exit_code, 11);
    }
}
