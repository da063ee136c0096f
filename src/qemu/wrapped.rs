//! The user's own QEMU command line: whether it starts a VM at all, what it calls it, and a monitor for vmrun at its end.
//!
//! Nothing of it is changed, and as little as possible of it is understood: QEMU's options are many, and new ones come.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;

use super::channels;

/// What stands before an id that vmrun adds to the user's own command line.
const ID_PREFIX: &str = "vmrun-wrap-";

/// Options without a value (QEMU 7.2 to 11.1, `qemu-options.hx`); all others take the next argument, whatever it looks like.
const FLAGS: [&str; 47] = [
    "S",
    "alt-grab",
    "audio-help",
    "ctrl-grab",
    "curses",
    "daemonize",
    "enable-fips",
    "enable-kvm",
    "enable-sync-profile",
    "full-screen",
    "h",
    "help",
    "mem-prealloc",
    "no-acpi",
    "no-fd-bootchk",
    "no-frame",
    "no-hpet",
    "no-kvm",
    "no-kvm-irqchip",
    "no-kvm-pit",
    "no-kvm-pit-reinjection",
    "no-quit",
    "no-reboot",
    "no-shutdown",
    "no-user-config",
    "nodefaults",
    "nodefconfig",
    "nographic",
    "old-param",
    "one-insn-per-tb",
    "only-migratable",
    "portrait",
    "preconfig",
    "rtc-td-hack",
    "s",
    "sdl",
    "semihosting",
    "show-cursor",
    "singlestep",
    "snapshot",
    "tdf",
    "usb",
    "version",
    "win2k-hack",
    "xen-attach",
    "xen-domid-restrict",
    "no-fast-reset",
];

/// Options that print something and end when `help` or `?` is in their value. The value of others, such as `-append`, may say
/// `help` and mean it.
const WITH_HELP: [&str; 23] = [
    "M", "accel", "action", "audio", "audiodev", "blockdev", "chardev", "cpu", "d", "device", "display",
    "drive", "k", "machine", "net", "netdev", "nic", "object", "tpmdev", "trace", "vga", "watchdog", "L",
];

/// Why a command line is left to QEMU alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alone {
    /// It prints something and ends, or has no machine at all: it asks what this QEMU can do.
    Probe,
    /// QEMU goes into the background by itself.
    Daemonize,
}

/// Options with their values.
pub(super) fn options(arguments: &[OsString]) -> impl Iterator<Item = (&str, &OsStr)> {
    let mut rest = arguments.iter();
    std::iter::from_fn(move || {
        loop {
            let word = rest.next()?;
            // what is no option is the name of a disk's image; QEMU takes `--help` as it takes `-help`
            let Some(name) = word.to_str().and_then(|word| word.strip_prefix('-')) else { continue };
            let name = name.strip_prefix('-').unwrap_or(name);
            let value = if FLAGS.contains(&name) { None } else { rest.next() };
            return Some((name, value.map_or(OsStr::new(""), OsString::as_os_str)));
        }
    })
}

/// The parts of a value that has commas between them.
fn parts(value: &OsStr) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',')
}

/// Whether a command line is none of vmrun's business, and why.
pub fn alone(arguments: &[OsString]) -> Option<Alone> {
    let asks_for_help = |value: &OsStr| {
        parts(value)
            .any(|part| matches!(part, b"help" | b"?") || part.ends_with(b"=help") || part.ends_with(b"=?"))
    };
    let has_no_machine =
        |value: &OsStr| parts(value).next().is_some_and(|kind| matches!(kind, b"none" | b"type=none"));
    options(arguments).find_map(|(name, value)| match name {
        "h" | "help" | "version" | "audio-help" => Some(Alone::Probe),
        "daemonize" => Some(Alone::Daemonize),
        "machine" | "M" if has_no_machine(value) => Some(Alone::Probe),
        name if WITH_HELP.contains(&name) && asks_for_help(value) => Some(Alone::Probe),
        _ => None,
    })
}

/// The name that `-name` gives the VM: `-name web`, `-name guest=web,debug-threads=on`. The last one counts, as it does for QEMU.
pub fn name(arguments: &[OsString]) -> Option<&OsStr> {
    let value = options(arguments).filter(|(name, _)| *name == "name").last()?.1;
    let named = parts(value).find_map(|part| part.strip_prefix(b"guest="));
    let first = parts(value).next().filter(|part| !part.contains(&b'='));
    named.or(first).filter(|name| !name.is_empty()).map(OsStr::from_bytes)
}

/// Whether the guest is not to run at first (`-S`).
pub fn stands_still(arguments: &[OsString]) -> bool {
    options(arguments).any(|(name, _)| name == "S")
}

/// Whether QEMU has its seccomp sandbox.
pub fn sandbox(arguments: &[OsString]) -> bool {
    let on = |value: &OsStr| parts(value).next().is_some_and(|first| matches!(first, b"on" | b"enable=on"));
    options(arguments).any(|(name, value)| name == "sandbox" && on(value))
}

/// Whether vmrun has been through this command line already.
pub fn is_wrapped(arguments: &[OsString]) -> bool {
    let has = |text: &OsStr| {
        let wanted = format!("id={ID_PREFIX}");
        text.as_bytes().windows(wanted.len()).any(|window| window == wanted.as_bytes())
    };
    arguments.iter().any(|argument| has(argument))
}

/// A monitor on a socket that listens already, `fd`. `unique` keeps its id apart from all others.
pub fn monitor(fd: RawFd, unique: u32) -> [OsString; 4] {
    let id = format!("{ID_PREFIX}{unique:08x}");
    let [option, monitor] = channels::qmp(&id);
    ["-chardev".into(), format!("socket,id={id},fd={fd},server=on,wait=off").into(), option, monitor]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn probes_are_left_alone() {
        for line in [
            "-h",
            "--help",
            "-version",
            "-m 1G --version",
            "-machine help",
            "-M ?",
            "-M q35,help",
            "-cpu help",
            "-cpu ?",
            "-device help",
            "-device virtio-blk-pci,help",
            "-accel help",
            "-netdev help",
            "-net nic,model=help",
            "-nic model=?",
            "-audiodev help",
            "-object help",
            "-chardev help",
            "-display help",
            "-drive format=help",
            "-S -no-user-config -nodefaults -nographic -machine none,accel=kvm:tcg -qmp unix:/x,server=on",
            "-M none",
            "-machine type=none",
        ] {
            assert_eq!(alone(&words(line)), Some(Alone::Probe), "{line}");
        }
        assert_eq!(alone(&words("-m 1G -daemonize")), Some(Alone::Daemonize));
    }

    #[test]
    fn what_starts_a_vm_is_not() {
        for line in [
            "",
            "disk.img",
            "-kernel -h -append help",
            "-append --help",
            "-name help",
            "-initrd -version",
            "-display none",
            "-vga none -net none -serial none -monitor none",
            "-fw_cfg name=opt/help,string=help",
            "-drive file=help.img",
            "-append -daemonize",
        ] {
            assert_eq!(alone(&words(line)), None, "{line}");
        }
    }

    #[test]
    fn finds_what_keeps_the_guest_still() {
        assert!(stands_still(&words("-m 1G -S")));
        assert!(!stands_still(&words("-append -S -name S")));
    }

    #[test]
    fn finds_the_name() {
        for (line, expected) in [
            ("-m 1G -name web", Some("web")),
            ("-name guest=web,debug-threads=on", Some("web")),
            ("--name web,process=x", Some("web")),
            ("-name a -name b", Some("b")),
            ("-name debug-threads=on", None),
            ("-append -name x", None),
            ("-name", None),
            ("", None),
        ] {
            assert_eq!(name(&words(line)).and_then(OsStr::to_str), expected, "{line}");
        }
    }

    #[test]
    fn knows_its_own_monitor() {
        let mut line = words("-nodefaults");
        assert!(!is_wrapped(&line));
        line.extend(monitor(200, 7));
        assert_eq!(line[2], "socket,id=vmrun-wrap-00000007,fd=200,server=on,wait=off");
        assert_eq!(line[4], "chardev:vmrun-wrap-00000007");
        assert!(is_wrapped(&line));
    }
}
