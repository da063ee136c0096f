//! What values an argument can have: one table for all commands.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use clap::{Arg, Command, ValueHint};
use clap_complete::CompletionCandidate;
use clap_complete::engine::{ArgValueCompleter, PathCompleter, ValueCompleter};

use crate::spec::{event_name, keys};

use super::super::manual;
use super::live::{self, Of};

/// What an argument's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// The name of a running VM.
    Running,
    /// The name of a VM that runs or has ended.
    Known,
    /// The name of a VM that has ended.
    Ended,
    /// A file, or `NAME:` of a running VM.
    CopySide,
    /// Something that the VM of this command line has.
    Live(Of),
    /// A USB device of this host, a driver, or `file=PATH`.
    HostUsb,
    /// A file, also after `file=`.
    Image,
    /// A file or a folder.
    Path,
    /// A folder.
    Folder,
    /// The folder of a template.
    Template,
    /// One of these words; one that ends with `=` or `,` takes a value.
    Words(&'static [&'static str]),
    /// A condition to wait for.
    Condition,
    /// An event's name.
    Event,
    /// Keys, joined by hyphens.
    Keys,
    /// A man page.
    Page,
}

/// USB devices that QEMU emulates without further options.
const USB_DRIVERS: &[&str] = &["file=", "usb-kbd", "usb-mouse", "usb-tablet"];
const CONDITIONS: &[&str] = &["running", "paused", "exit", "agent", "port=", "console=", "event="];

/// The values of an argument; `None` if they are the user's to invent, or clap knows them.
fn of(command: &str, argument: &str) -> Option<Value> {
    Some(match (command, argument) {
        (_, "vm") | ("console", "name") | ("shutdown" | "kill" | "inspect", "names") | ("exec", "name") => {
            Value::Running
        }
        ("logs", "name") => Value::Known,
        ("forget", "names") => Value::Ended,
        ("cp", _) if matches!(argument, "source" | "destination") => Value::CopySide,
        ("ctl usb-remove", "id") => Value::Live(Of::Usb),
        ("ctl port-remove", "forward") => Value::Live(Of::Forwards),
        ("ctl nic-remove", "id") | ("ctl link" | "ctl port-add", "nic") => Value::Live(Of::Nics),
        ("ctl disk-remove" | "ctl disk-resize" | "ctl disk-throttle", "id") => Value::Live(Of::Disks),
        ("ctl media-change" | "ctl media-eject", "id") => Value::Live(Of::Drives),
        ("ctl device-remove", "id") => Value::Live(Of::Devices),
        ("ctl snapshot-load" | "ctl snapshot-delete", "name") => Value::Live(Of::Snapshots),
        ("ctl usb-add", "selector") => Value::HostUsb,
        (_, "image" | "disk") | ("ctl media-change", "path") => Value::Image,
        (_, "from") => Value::Template,
        (_, "state" | "keep_logs" | "virtiofs") | ("ctl freeze", "dir") | ("clean", "folder") => {
            Value::Folder
        }
        (
            _,
            "restore" | "kernel" | "initrd" | "fw" | "qemu" | "virtiofsd" | "data_file" | "qmp" | "qmp_log"
            | "allow_backing",
        )
        | ("ctl copy-to", "source")
        | ("ctl copy-from", "destination")
        | ("ctl save" | "ctl screenshot", "file") => Value::Path,
        (_, "wait" | "warm" | "until") | ("ctl wait", "conditions") => Value::Condition,
        ("ctl events", "filter") => Value::Event,
        ("ctl send-key", "keys") => Value::Keys,
        ("manual", "page") => Value::Page,
        (_, "on_panic") => Value::Words(&["poweroff", "pause", "reset"]),
        (_, "arch") => Value::Words(&["x86_64", "aarch64", "s390x", "riscv64"]),
        (_, "accel") => Value::Words(&["kvm", "tcg", "kvm:tcg"]),
        (_, "boot") => Value::Words(&["disk", "net", "cdrom"]),
        (_, "machine") => Value::Words(&["q35", "pc", "microvm", "virt"]),
        (_, "networking") => Value::Words(&["default", "user", "bridge,", "tap,", "none"]),
        ("ctl nic-add", "nic") | (_, "nic") => Value::Words(&["user", "tap,", "bridge,"]),
        (_, "display") => Value::Words(&["none", "headless", "gui", "gtk", "sdl", "vnc=", "spice="]),
        (_, "escape") => Value::Words(&["ctrl-a", "ctrl-]", "none"]),
        _ => return None,
    })
}

/// Tells each argument of a command and those below it how its values are found. `words` is the line that is being typed.
pub(super) fn attach(command: Command, path: &str, words: &Arc<[OsString]>) -> Command {
    let words_of_arguments = Arc::clone(words);
    let own = path.to_owned();
    command.mut_args(|argument| completed(argument, &own, &words_of_arguments)).mut_subcommands(|below| {
        let path = format!("{path} {}", below.get_name());
        attach(below, path.trim_start(), words)
    })
}

fn completed(argument: Arg, path: &str, words: &Arc<[OsString]>) -> Arg {
    match of(path, argument.get_id().as_str()) {
        Some(Value::Path) => argument.value_hint(ValueHint::AnyPath),
        Some(Value::Folder) => argument.value_hint(ValueHint::DirPath),
        Some(value) => {
            let words = Arc::clone(words);
            argument.add(ArgValueCompleter::new(move |typed: &OsStr| candidates(value, typed, &words)))
        }
        None => argument,
    }
}

fn candidates(value: Value, typed: &OsStr, words: &[OsString]) -> Vec<CompletionCandidate> {
    let files = |typed: &OsStr| PathCompleter::file().complete(typed);
    let mut all =
        match value {
            Value::Running => live::running(),
            Value::Ended => live::ended(),
            Value::Known => live::running().into_iter().chain(live::ended()).collect(),
            Value::Live(of) => live::of(words, of),
            Value::HostUsb => {
                live::host_usb().into_iter().chain(fixed(USB_DRIVERS)).chain(after_file(typed)).collect()
            }
            Value::Image => fixed(&["file="])
                .filter(|_| !typed.is_empty())
                .chain(files(typed))
                .chain(after_file(typed))
                .collect(),
            Value::CopySide => live::running().into_iter().map(colon).chain(files(typed)).collect(),
            Value::Template => {
                live::templates().into_iter().chain(PathCompleter::dir().complete(typed)).collect()
            }
            Value::Words(words) => fixed(words).collect(),
            Value::Condition => fixed(CONDITIONS)
                .chain(event_name::known().map(|name| {
                    CompletionCandidate::new(format!("event={name}")).hide(!starts(typed, "event="))
                }))
                .collect(),
            Value::Event => event_name::known().map(CompletionCandidate::new).collect(),
            Value::Keys => combinations(typed),
            Value::Page => manual::pages().into_iter().map(CompletionCandidate::new).collect(),
            // by their hints
            Value::Path | Value::Folder => Vec::new(),
        };
    let typed = typed.as_encoded_bytes();
    all.retain(|candidate| candidate.get_value().as_encoded_bytes().starts_with(typed));
    all
}

fn fixed(words: &'static [&'static str]) -> impl Iterator<Item = CompletionCandidate> {
    words.iter().map(CompletionCandidate::new)
}

fn starts(typed: &OsStr, prefix: &str) -> bool {
    typed.as_encoded_bytes().starts_with(prefix.as_bytes())
}

/// `NAME` as `NAME:`, a path in the guest to follow.
fn colon(name: CompletionCandidate) -> CompletionCandidate {
    let mut side = name.get_value().to_owned();
    side.push(":");
    CompletionCandidate::new(side).help(name.get_help().cloned())
}

/// The files for what follows `file=`.
fn after_file(typed: &OsStr) -> Vec<CompletionCandidate> {
    let path = typed.to_str().and_then(|typed| typed.strip_prefix("file="));
    let files = path.map(|path| PathCompleter::file().complete(OsStr::new(path))).unwrap_or_default();
    files.into_iter().map(|file| file.add_prefix("file=")).collect()
}

/// The last key of a combination such as `ctrl-alt-del`.
fn combinations(typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_str().unwrap_or_default();
    let before = typed.rfind('-').map_or("", |at| &typed[..=at]);
    keys::names().map(|key| CompletionCandidate::new(format!("{before}{key}"))).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::super::args::Cli;
    use super::*;

    /// Values that are the user's to invent: sizes, times, texts, commands, new names and ids, addresses.
    const INVENTED: &[&str] = &[
        "agent_timeout",
        "append",
        "args",
        "arguments",
        "boot_prompt",
        "bps",
        "bps_read",
        "bps_write",
        "command",
        "console",
        "copy_in",
        "copy_out",
        "count",
        "cpu",
        "cpus",
        "data",
        "delay",
        "destination",
        "device",
        "disk",
        "env",
        "extra",
        "for",
        "for_",
        "forward",
        "hotplug_slots",
        "id",
        "iops",
        "iops_read",
        "iops_write",
        "json",
        "line",
        "log_size",
        "max_lifetime",
        "max_resets",
        "max_size",
        "mem",
        "name",
        "nic",
        "older_than",
        "prompt",
        "publish",
        "qemu_args",
        "since",
        "size",
        "source",
        "stop_timeout",
        "tail",
        "text",
        "thaw_after",
        "timeout",
        "uuid",
        "wait_timeout",
        "watch",
        "words",
    ];

    /// The arguments that are in no list.
    fn unknown(command: &Command, path: &str, found: &mut Vec<String>) {
        for argument in command.get_arguments().filter(|argument| argument.get_action().takes_values()) {
            let id = argument.get_id().as_str();
            let known_to_clap = argument.get_possible_values().iter().any(|_| true);
            if of(path, id).is_none() && !known_to_clap && !INVENTED.contains(&id) {
                found.push(format!("{path} {id}"));
            }
        }
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            unknown(below, format!("{path} {}", below.get_name()).trim_start(), found);
        }
    }

    #[test]
    fn every_value_has_candidates_or_is_the_users_to_invent() {
        let mut grammar = Cli::command();
        grammar.build();
        let mut found = Vec::new();
        unknown(&grammar, "", &mut found);
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn the_words_are_those_that_are_parsed() {
        let parse = |argument: &str, word: &str| {
            let word = match word.strip_suffix(['=', ',']) {
                Some(_) => format!("{word}{}", if argument == "display" { "unix:/x" } else { "x0" }),
                None => word.to_owned(),
            };
            let line = ["vmrun", "qemu", &format!("--{}={word}", argument.replace('_', "-"))];
            Cli::command().try_get_matches_from(line).unwrap_or_else(|error| panic!("{word}: {error}"));
        };
        for argument in
            ["on_panic", "arch", "accel", "boot", "machine", "networking", "nic", "display", "escape"]
        {
            let Some(Value::Words(words)) = of("qemu", argument) else { panic!("{argument}") };
            words.iter().for_each(|word| parse(argument, word));
        }
        assert_eq!(crate::spec::OnPanic::ALL.len(), 3);
        for condition in CONDITIONS {
            let value =
                if condition.ends_with('=') { format!("{condition}1") } else { (*condition).to_owned() };
            value.parse::<crate::spec::Condition>().unwrap();
        }
        for driver in USB_DRIVERS.iter().filter(|driver| !driver.ends_with('=')) {
            crate::spec::UsbSelector::parse(OsStr::new(driver)).unwrap();
        }
    }
}
