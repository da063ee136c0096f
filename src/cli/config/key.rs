//! Which flags can have a default: derived from the grammar that parses them.

use clap::{Arg, ArgAction, Command};

use super::super::linuxkit;

/// A flag that can have a default.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// Names of the command, e.g. `["ctl", "wait"]`.
    pub(super) command: Vec<String>,
    /// The flag without hyphens in front.
    pub(super) flag: String,
    /// What clap knows of it.
    pub(super) argument: Arg,
}

impl Key {
    /// The name in the file, e.g. `ctl.wait.timeout`.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.command.join("."), self.flag)
    }

    /// The variable, e.g. `VMRUN_CTL_WAIT_TIMEOUT`.
    pub(super) fn variable(&self) -> String {
        format!("VMRUN_{}", self.name().replace(['.', '-'], "_").to_uppercase())
    }

    /// It takes several values.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.argument.get_action(), ArgAction::Append)
    }

    /// It takes no value.
    pub(super) fn is_switch(&self) -> bool {
        matches!(self.argument.get_action(), ArgAction::SetTrue)
    }

    /// It counts how often it is given.
    pub(super) fn is_count(&self) -> bool {
        matches!(self.argument.get_action(), ArgAction::Count)
    }
}

/// Commands whose flags all say what is to be done.
const TASKS: &[&str] = &[
    "wrap",
    "ls",
    "forget",
    "templates",
    "clean",
    "doctor",
    "completions",
    "manual",
    "config",
    "inspect",
    "kill",
    "logs",
];

/// Flags without a default, each with the reason.
const REASONS: &[(&str, &[&str])] = &[
    ("it says which VM or thing is meant", &["name", "vm", "uuid", "id", "state", "qmp"]),
    (
        "it belongs to one image",
        &["restore", "from", "kernel", "initrd", "append", "linuxkit", "iso", "squashfs", "unpack"],
    ),
    (
        "it says what is to be done",
        &[
            "copy-in",
            "copy-out",
            "env",
            "stdin",
            "no-stdin",
            "tty",
            "console",
            "count",
            "force",
            "if-running",
            "all",
            "any",
            "from-now",
            "until",
            "overwrite",
            "filter",
            "since",
            "watch",
            "iops",
            "iops-read",
            "iops-write",
            "bps",
            "bps-read",
            "bps-write",
            "dry-run",
            "raw",
        ],
    ),
    ("scripts read what is printed", &["json"]),
    (
        "scripts rely on when the command returns, and on what runs then",
        &["detached", "wait", "keep", "paused", "die-with-parent"],
    ),
    ("a script would lose what its VM has written", &["ephemeral", "warm"]),
];
/// Why a switch of some commands has none.
const SWITCH: &str = "nothing on the command line could switch it off";
/// The card that a forward is for is no property of all forwards, as the further cards of a VM are.
const ONE_OF: &[(&str, &str)] = &[("ctl port-add", "nic")];

/// All flags that can have a default, in the order of the help pages. The grammar must be built.
pub(super) fn all(grammar: &Command) -> Vec<Key> {
    let mut keys = Vec::new();
    visit(grammar, &mut Vec::new(), &mut |command, flag, argument| {
        if reason(command, flag, argument).is_none() {
            keys.push(Key { command: command.to_vec(), flag: flag.to_owned(), argument: argument.clone() });
        }
    });
    keys
}

/// Why a flag that exists can have no default.
pub(super) fn refusal(grammar: &Command, name: &str) -> Option<&'static str> {
    let mut found = None;
    visit(grammar, &mut Vec::new(), &mut |command, flag, argument| {
        if format!("{}.{flag}", command.join(".")) == name {
            found = found.or(reason(command, flag, argument));
        }
    });
    found
}

fn visit(command: &Command, path: &mut Vec<String>, see: &mut impl FnMut(&[String], &str, &Arg)) {
    for argument in command.get_arguments() {
        let is_ours = !matches!(
            argument.get_action(),
            ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
        );
        if let Some(flag) = argument.get_long().filter(|_| is_ours && !path.is_empty()) {
            see(path, flag, argument);
        }
    }
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        path.push(below.get_name().to_owned());
        visit(below, path, see);
        path.pop();
    }
}

fn reason(command: &[String], flag: &str, argument: &Arg) -> Option<&'static str> {
    if command.first().is_some_and(|first| TASKS.contains(&first.as_str())) {
        return Some(REASONS[2].0);
    }
    if ONE_OF.contains(&(command.join(" ").as_str(), flag)) {
        return Some(REASONS[0].0);
    }
    let listed = REASONS.iter().find(|(_, flags)| flags.contains(&flag)).map(|(reason, _)| *reason);
    let is_switch = matches!(argument.get_action(), ArgAction::SetTrue);
    listed.or((is_switch && !linuxkit::has_truth_values(&command.join(" "))).then_some(SWITCH))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::super::super::args::Cli;
    use super::super::super::help;
    use super::*;

    fn grammar() -> Command {
        let mut grammar = Cli::command();
        grammar.build();
        grammar
    }

    /// A new flag shows up here, and whoever adds it decides.
    #[test]
    fn the_flags_that_can_have_a_default() {
        let names: Vec<String> = all(&grammar()).iter().map(Key::name).collect();
        insta::assert_snapshot!(names.join("\n"));
    }

    #[test]
    fn no_variable_means_two_things() {
        let keys = all(&grammar());
        let names: BTreeSet<String> = keys.iter().map(Key::variable).collect();
        assert_eq!(names.len(), keys.len());
        for (variable, _) in help::VARIABLES {
            assert!(!names.contains(*variable), "{variable}");
        }
    }

    #[test]
    fn every_reason_is_for_a_flag_that_exists() {
        let mut flags = BTreeSet::new();
        visit(&grammar(), &mut Vec::new(), &mut |_, flag, _| {
            flags.insert(flag.to_owned());
        });
        for flag in REASONS.iter().flat_map(|(_, flags)| *flags) {
            assert!(flags.contains(*flag), "there is no --{flag}");
        }
        assert_eq!(refusal(&grammar(), "qemu.detached"), Some(REASONS[4].0));
        assert_eq!(refusal(&grammar(), "ctl.stats.json"), Some(REASONS[3].0));
        assert_eq!(refusal(&grammar(), "qemu.mem"), None);
    }
}
