//! The texts of QEMU and its helpers that decide what vmrun does. Where QEMU gives a reason as text only, the text is recognised here and
//! nowhere else: each row names the source of the text, the version it was read in, and a sample. `tests/it/refusals.rs` provokes
//! them in the QEMU that is installed.
//!
//! What has a form of its own (`info usernet`, `info qtree`) is parsed in `qmp/`; error classes of QMP are not texts.

use Refusal::*;

/// What a text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another process has a lock on an image.
    ImageLocked,
    /// The machine has no display.
    NoDisplay,
    /// The guest holds the tray of a CD-ROM drive.
    TrayLocked,
    /// The tray of a CD-ROM drive is closed.
    TrayClosed,
    /// QEMU's standard streams have an owner already.
    StdioTaken,
    /// The process behind a vhost-user device does not do its part.
    VhostUser,
    /// The part of QEMU that opens windows is not installed.
    NoWindows,
    /// There is no desktop that lets QEMU in.
    NoDesktop,
    /// This QEMU was built without SPICE.
    NoSpice,
    /// A forward cannot listen on the host.
    ForwardNotBound,
    /// There is no such forward.
    NoForward,
    /// Not a refusal: the forward has been removed.
    ForwardRemoved,
    /// There is no such network back-end, or it has no user networking.
    NoUserNetwork,
    /// The human monitor has no such command.
    NoCommand,
    /// The guest agent's configuration forbids a command.
    AgentForbids,
    /// The guest agent does nothing while the guest's file systems are frozen.
    AgentFrozen,
    /// The guest agent has not found a file, or a program.
    NoSuchFile,
}

/// How a text is recognised.
#[derive(Debug, Clone, Copy)]
enum Pattern {
    /// These words are somewhere in it, in this order.
    Has(&'static [&'static str]),
    /// The whole text, without space around it, begins and ends like this.
    Is(&'static str, &'static str),
}

/// One text.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// What it means.
    pub meaning: Refusal,
    pattern: Pattern,
    /// Who says it: a file of QEMU's source, or another program.
    pub source: &'static str,
    /// The version that the sample was read in.
    pub version: &'static str,
    /// The text of that version.
    pub sample: &'static str,
}

const fn known(
    meaning: Refusal,
    pattern: Pattern,
    source: &'static str,
    version: &'static str,
    sample: &'static str,
) -> Known {
    Known { meaning, pattern, source, version, sample }
}

/// All texts.
pub const ALL: &[Known] = &[
    known(
        ImageLocked,
        Pattern::Has(&["Failed to get ", " lock"]),
        "block/file-posix.c",
        "7.2.22",
        "qemu-system-x86_64: -device virtio-blk-pci,drive=a: Failed to get \"write\" lock",
    ),
    known(
        ImageLocked,
        Pattern::Has(&["Failed to get ", " lock"]),
        "block/file-posix.c",
        "7.2.22",
        "qemu-img: Could not open 'a.img': Failed to get shared \"write\" lock",
    ),
    known(
        NoDisplay,
        Pattern::Has(&["no console to take a screendump"]),
        "ui/console.c",
        "7.2.22",
        "There is no console to take a screendump from",
    ),
    known(
        TrayLocked,
        Pattern::Has(&["Device '", "' is locked and force was not specified"]),
        "block/qapi-sysemu.c",
        "7.2.22",
        "Device 'cd0' is locked and force was not specified, wait for tray to open and try again",
    ),
    known(
        TrayClosed,
        Pattern::Has(&["Tray of ", " is not open"]),
        "block/qapi-sysemu.c",
        "7.2.22",
        "Tray of device 'cd' is not open",
    ),
    known(
        StdioTaken,
        Pattern::Has(&["cannot use stdio"]),
        "chardev/char-stdio.c",
        "7.2.22",
        "qemu-system-x86_64: -serial stdio: cannot use stdio by multiple character devices",
    ),
    known(
        VhostUser,
        Pattern::Has(&["vhost"]),
        "hw/virtio/vhost-user-fs.c",
        "7.2.22",
        "qemu-system-x86_64: -device vhost-user-fs-pci,chardev=c,tag=x: vhost_backend_init failed: Protocol error",
    ),
    known(
        NoWindows,
        Pattern::Has(&["qemu-system-gui"]),
        "Debian's ui/console.c",
        "7.2.22",
        "qemu-system-x86_64: -display gtk: Display 'gtk' is not available, please install qemu-system-gui",
    ),
    known(
        NoWindows,
        Pattern::Has(&["Display '", "is not available"]),
        "ui/console.c",
        "10.0.0",
        "qemu-system-x86_64: Display 'sdl' is not available.",
    ),
    known(
        NoDesktop,
        Pattern::Has(&["gtk initialization failed"]),
        "ui/gtk.c",
        "7.2.22",
        "gtk initialization failed",
    ),
    known(
        NoDesktop,
        Pattern::Has(&["Could not initialize SDL"]),
        "ui/sdl2.c",
        "7.2.22",
        "Could not initialize SDL(x11 not available) - exiting",
    ),
    known(
        NoSpice,
        Pattern::Has(&["-spice", "invalid option"]),
        "softmmu/vl.c",
        "7.2.22",
        "qemu-system-x86_64: -spice port=1: invalid option",
    ),
    known(
        NoSpice,
        Pattern::Has(&["-spice", "spice support"]),
        "softmmu/vl.c",
        "7.2.22",
        "qemu-system-x86_64: -spice port=1: spice support is disabled",
    ),
    known(
        ForwardNotBound,
        Pattern::Is("Could not set up host forwarding rule", ""),
        "net/slirp.c",
        "7.2.22",
        "Could not set up host forwarding rule 'tcp:127.0.0.1:80-:22'",
    ),
    known(
        NoForward,
        Pattern::Is("host forwarding rule for", "not found"),
        "net/slirp.c",
        "7.2.22",
        "host forwarding rule for tcp:127.0.0.1:1 not found",
    ),
    known(
        ForwardRemoved,
        Pattern::Is("host forwarding rule for", "removed"),
        "net/slirp.c",
        "7.2.22",
        "host forwarding rule for tcp:127.0.0.1:1 removed",
    ),
    known(
        NoUserNetwork,
        Pattern::Is("unrecognized netdev id", ""),
        "net/slirp.c",
        "7.2.22",
        "unrecognized netdev id 'none'",
    ),
    known(
        NoUserNetwork,
        Pattern::Is("invalid device specified", ""),
        "net/slirp.c",
        "7.2.22",
        "invalid device specified",
    ),
    known(
        NoCommand,
        Pattern::Is("unknown command: ", ""),
        "monitor/hmp.c",
        "7.2.22",
        "unknown command: 'nonsense'",
    ),
    known(
        AgentForbids,
        Pattern::Is("Command ", " has been disabled"),
        "qapi/qmp-dispatch.c",
        "6.0.0",
        "Command guest-exec has been disabled",
    ),
    known(
        AgentForbids,
        Pattern::Has(&["has been disabled for this instance"]),
        "qga/main.c",
        "5.2.0",
        "The command guest-exec has been disabled for this instance",
    ),
    known(
        AgentForbids,
        Pattern::Has(&["not allowed"]),
        "qga/main.c",
        "7.2.22",
        "Command guest-exec has been disabled: the command is not allowed",
    ),
    known(
        AgentFrozen,
        Pattern::Has(&["has been disabled", "frozen"]),
        "qga/main.c",
        "7.2.22",
        "Command guest-exec has been disabled: the agent is in frozen state",
    ),
    known(
        NoSuchFile,
        Pattern::Has(&["No such file or directory"]),
        "qga/commands-posix.c, by strerror",
        "7.2.22",
        "failed to open file '/no/such' (mode: 'r'): No such file or directory",
    ),
    known(
        NoSuchFile,
        Pattern::Has(&["No such file or directory"]),
        "glib's g_spawn_async",
        "2.74",
        "Failed to execute child process “x” (No such file or directory)",
    ),
];

impl Known {
    fn fits(&self, said: &str) -> bool {
        match self.pattern {
            Pattern::Has(words) => {
                let mut rest = Some(said);
                for word in words {
                    rest = rest.and_then(|rest| Some(rest.split_once(word)?.1));
                }
                rest.is_some()
            }
            Pattern::Is(start, end) => {
                said.trim().strip_prefix(start).is_some_and(|rest| rest.ends_with(end))
            }
        }
    }
}

impl Refusal {
    /// Whether these words mean this.
    pub fn is_in(self, said: &str) -> bool {
        ALL.iter().any(|known| known.meaning == self && known.fits(said))
    }

    /// The first of these that the words mean.
    pub fn first(of: &[Self], said: &str) -> Option<Self> {
        of.iter().copied().find(|refusal| refusal.is_in(said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text that two meanings fit would be decided by the order of questions.
    #[test]
    fn each_sample_has_its_own_meaning_only() {
        for row in ALL {
            let meanings = ALL.iter().filter(|other| other.fits(row.sample)).map(|other| other.meaning);
            for meaning in meanings {
                assert_eq!(meaning, row.meaning, "{:?}", row.sample);
            }
            assert!(row.meaning.is_in(row.sample), "{:?}", row.sample);
            assert!(!row.source.is_empty() && row.version.contains('.'), "{row:?}");
        }
    }

    #[test]
    fn what_is_something_else_is_not_recognised() {
        for (refusal, said) in [
            (ImageLocked, "Failed to lock byte 100"),
            (ImageLocked, "a lock: Failed to get it"),
            (TrayLocked, "the guest is locked out"),
            (NoForward, "host forwarding rule for tcp:127.0.0.1:1 removed"),
            (NoCommand, "it is an unknown command: 'x'"),
            (ForwardRemoved, "host forwarding rule for"),
            (NoSpice, "invalid option -spice"),
        ] {
            assert!(!refusal.is_in(said), "{refusal:?}: {said}");
        }
        assert_eq!(Refusal::first(&[NoForward, NoCommand], "unknown command: 'x'\r\n"), Some(NoCommand));
        assert_eq!(Refusal::first(&[NoForward], ""), None);
    }
}
