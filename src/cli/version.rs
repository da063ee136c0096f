//! `vmrun --version --json`: which build this is, what it can do, and the QEMU that it would start.

use std::ffi::OsString;

use clap::{Command, CommandFactory};
use serde::Serialize;

use crate::control::verbs;
use crate::host::doctor;

use super::args::Cli;
use super::failure::Failure;
use super::output::{Lines, Output};

/// What programs may want to know.
#[derive(Debug, Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
    /// The commit that it was built from; only release builds know it.
    commit: Option<&'static str>,
    /// Architecture, operating system and C library that it was built for.
    target: &'static str,
    /// `static`: it needs no library; `portable`: it starts with an older glibc than that of the machine that built it.
    features: Vec<&'static str>,
    /// All commands, `ctl wait` and the like.
    commands: Vec<String>,
    /// The methods of the control protocol that it calls and answers.
    methods: Vec<&'static str>,
    /// The QEMU for this machine's architecture; none if there is none.
    qemu: Option<doctor::Found>,
}

/// Whether the words are a request for it. clap's own `--version` ends the program before it has seen another flag.
pub(super) fn is_wanted(words: &[OsString]) -> bool {
    let words: Vec<&str> = words.iter().skip(1).filter_map(|word| word.to_str()).collect();
    let [one, other] = words[..] else { return false };
    let is = |word: &str| matches!(word, "--version" | "-V");
    (is(one) && other == "--json") || (one == "--json" && is(other))
}

/// Prints it.
pub(super) fn run() -> Result<u8, Failure> {
    let mut grammar = Cli::command();
    grammar.build();
    let mut all = Vec::new();
    commands(&grammar, "", &mut all);
    let features = [
        ("static", cfg!(target_feature = "crt-static")),
        ("portable", option_env!("VMRUN_PORTABLE").is_some()),
    ];
    let version = Version {
        name: "vmrun",
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("VMRUN_COMMIT").filter(|commit| !commit.is_empty()),
        target: env!("VMRUN_TARGET"),
        features: features.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect(),
        commands: all,
        methods: verbs::names().collect(),
        qemu: doctor::qemu(),
    };
    Output { json: true }.print(&version, Lines::default)
}

fn commands(command: &Command, path: &str, found: &mut Vec<String>) {
    let below = command.get_subcommands().filter(|below| below.get_name() != "help");
    for below in below {
        let path = format!("{path} {}", below.get_name());
        if below.get_subcommands().next().is_none() {
            found.push(path.trim_start().to_owned());
        }
        commands(below, &path, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_two_flags_ask_for_it() {
        let is = |line: &str| is_wanted(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(is("vmrun --version --json") && is("vmrun --json -V"));
        assert!(
            !is("vmrun --version")
                && !is("vmrun --json")
                && !is("vmrun ls --json")
                && !is("vmrun -V --json x")
        );
    }
}
