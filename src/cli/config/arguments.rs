//! Puts the defaults into the words of a command line.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory};

use super::super::args::Cli;
use super::super::failure::Failure;
use super::super::linuxkit::spelled_out;
use super::super::output::tell;
use super::defaults::{Default, Origin};
use super::file::{self, Environment, Place};
use super::key::{self, Key};
use super::variables;

/// Variables that were there before those of all flags, and what they are a default of. They stand above the file.
const OLDER: &[(&str, &[&str])] = &[("accel", &["VMRUN_ACCEL", "LINUXKIT_QEMU_ACCEL"])];

/// The words with the defaults that go with them. Without a file and without variables they are what they were.
///
/// # Errors
/// The file or a variable is at fault.
pub(in crate::cli) fn with_defaults(words: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let place = Environment::from_env()
        .place()
        .filter(|place| place.is_named() || place.path.symlink_metadata().is_ok());
    let variables = variables::from_env();
    if place.is_none() && variables.is_empty() {
        return Ok(words);
    }
    // what is wrong with the command line itself is told by who parses it
    let Ok(typed) = parse(&words) else { return Ok(words) };
    let (path, at) = command(&typed, &words);
    let mut grammar = Cli::command();
    grammar.build();
    let keys = key::all(&grammar);
    if !keys.iter().any(|key| key.command == path) {
        return Ok(words);
    }
    let mut all = load(place.as_ref(), &variables, &grammar, &keys)?;
    all.retain(|default| default.key.command == path && !says(&typed, default));
    let mut accepted: Vec<OsString> = Vec::new();
    for default in all {
        let more: Vec<OsString> =
            accepted.iter().cloned().chain(default.words().into_iter().map(OsString::from)).collect();
        match parse(&inserted(&words, at, &more)) {
            Ok(_) => accepted = more,
            // what is typed counts
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ArgumentConflict | ErrorKind::MissingRequiredArgument
                ) => {}
            Err(error) => return Err(default.failure(&Failure::from(error).message)),
        }
    }
    Ok(inserted(&words, at, &accepted))
}

/// All defaults, those of variables first; each key once.
pub(super) fn load(
    place: Option<&Place>,
    variables: &[(String, OsString)],
    grammar: &Command,
    keys: &[Key],
) -> Result<Vec<Default>, Failure> {
    let variables::Found { defaults: mut all, slips } = variables::parse(variables, keys)?;
    for (name, near) in slips {
        tell(&format!("vmrun: warning: ${name} is nothing to vmrun: did you mean {near}?"));
    }
    let text = place.map(file::read).transpose()?.flatten();
    if let (Some(place), Some(text)) = (place, text) {
        let mut of_file = file::parse(&text, &place.path, grammar)?;
        contradiction(&of_file, grammar)?;
        of_file.retain(|default| all.iter().all(|other| other.key.name() != default.key.name()));
        of_file.retain(|default| older(&default.key).is_none());
        all.extend(of_file);
    }
    Ok(all)
}

/// The older variable that stands above the file for this key.
pub(super) fn older(key: &Key) -> Option<&'static str> {
    let names = OLDER.iter().find(|(flag, _)| *flag == key.flag)?.1;
    let is_set = |name: &&&str| std::env::var_os(**name).is_some_and(|value| !value.is_empty());
    names.iter().find(is_set).copied()
}

/// Two lines of the file that cannot both count.
fn contradiction(all: &[Default], grammar: &Command) -> Result<(), Failure> {
    for (at, later) in all.iter().enumerate() {
        let mut command = grammar;
        for name in &later.key.command {
            let Some(below) = command.find_subcommand(name) else { return Ok(()) };
            command = below;
        }
        let against = command.get_arg_conflicts_with(&later.key.argument);
        let meets = |earlier: &&Default| {
            let conflicts = command.get_arg_conflicts_with(&earlier.key.argument);
            earlier.key.command == later.key.command
                && !earlier.words().is_empty()
                && (against.iter().any(|other| other.get_id() == earlier.key.argument.get_id())
                    || conflicts.iter().any(|other| other.get_id() == later.key.argument.get_id()))
        };
        if let Some(earlier) = all[..at].iter().find(meets).filter(|_| !later.words().is_empty()) {
            return Err(later.failure(&match &earlier.origin {
                Origin::File(_, line) => format!("it contradicts {} in line {line}", earlier.key.name()),
                Origin::Variable(_) => format!("it contradicts {}", earlier.key.name()),
            }));
        }
    }
    Ok(())
}

fn parse(words: &[OsString]) -> Result<ArgMatches, clap::Error> {
    Cli::command().try_get_matches_from(spelled_out(words.to_vec()))
}

/// The names of the command that was typed, and the position after its words.
fn command(typed: &ArgMatches, words: &[OsString]) -> (Vec<String>, usize) {
    let grammar = Cli::command();
    let (mut path, mut at, mut level, mut known) = (Vec::new(), 1, typed, Some(&grammar));
    let mut built;
    while let Some((name, below)) = level.subcommand() {
        let is_it = |word: &OsString| {
            let aliases = known.and_then(|known| known.find_subcommand(name));
            word == name
                || aliases.is_some_and(|command| command.get_all_aliases().any(|alias| word == alias))
        };
        while at < words.len() && !is_it(&words[at]) {
            // a VM can have the name of a command
            at += if words[at] == "--vm" { 2 } else { 1 };
        }
        at += 1;
        path.push(name.to_owned());
        built = known.and_then(|known| known.find_subcommand(name)).cloned().map(|mut command| {
            command.build();
            command
        });
        (level, known) = (below, built.as_ref());
    }
    (path, at.min(words.len()))
}

/// Whether the command line itself says something of this flag.
fn says(typed: &ArgMatches, default: &Default) -> bool {
    let mut level = typed;
    while let Some((_, below)) = level.subcommand() {
        level = below;
    }
    level.value_source(default.key.argument.get_id().as_str()) == Some(ValueSource::CommandLine)
}

fn inserted(words: &[OsString], at: usize, more: &[OsString]) -> Vec<OsString> {
    words[..at].iter().chain(more).chain(&words[at..]).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_stand_behind_the_command_that_was_typed() {
        for (line, path, before) in [
            ("vmrun qemu i", "qemu", "vmrun qemu"),
            ("vmrun stop x", "shutdown", "vmrun stop"),
            ("vmrun ctl --vm wait --json wait agent", "ctl wait", "vmrun ctl --vm wait --json wait"),
            ("vmrun ctl --vm=wait wait agent", "ctl wait", "vmrun ctl --vm=wait wait"),
            ("vmrun run -- qemu", "run", "vmrun run"),
            ("vmrun exec qemu ls", "exec", "vmrun exec"),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let (found, at) = command(&parse(&words).unwrap(), &words);
            assert_eq!(
                (found.join(" ").as_str(), words[..at].join(" ".as_ref()).to_str().unwrap()),
                (path, before),
                "{line}"
            );
        }
    }
}
