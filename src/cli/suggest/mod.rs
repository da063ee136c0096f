//! Names what was probably meant by a command or flag that vmrun does not have: by users of docker, libvirt, QEMU itself, or after a
//! slip.

mod flags;
mod meanings;
mod qemu_flags;

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory};

use crate::spec::VmName;

use super::args::Cli;
use super::failure::Failure;
use super::target;

/// How alike (Jaro–Winkler, 0 to 1) a command must be to be suggested, and how much less than the best one.
const ALIKE: f64 = 0.8;
const BEHIND_THE_BEST: f64 = 0.1;
/// The most suggestions.
const MOST: usize = 3;
/// A longer word is no slip of a key.
const LONGEST_SLIP: usize = 40;

/// Where a command was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// After `vmrun`.
    Top,
    /// After `vmrun ctl`.
    Ctl,
}

impl Level {
    fn command(self) -> &'static str {
        match self {
            Self::Top => "vmrun",
            Self::Ctl => "vmrun ctl",
        }
    }
}

/// Recognises a flag of QEMU's own program among the words of `vmrun qemu`: clap would take `-name` for `-n ame`, `-hda` for `-h`.
pub(super) fn flag_of_qemu(words: &[OsString]) -> Option<Failure> {
    let words: Vec<&str> = words.iter().map_while(|word| word.to_str()).collect();
    let at_top = words.get(1).is_some_and(|word| word.starts_with('-'));
    if !at_top && words.get(1) != Some(&"qemu") {
        return None;
    }
    let mut before = "";
    for (at, word) in words.iter().enumerate().skip(1) {
        if *word == "--" {
            return None;
        }
        // their values may begin with a hyphen
        if !matches!(before, "--append" | "--data")
            && let Some(hint) = qemu_flags::hint(word, words.get(at + 1).copied())
        {
            let message = format!("{word} is a flag of QEMU's own program");
            return Some(Failure::usage(message).hint(Some(hint)));
        }
        before = word;
    }
    None
}

/// The failure of an invalid command line.
pub(super) fn failure(error: clap::Error, words: &[OsString]) -> Failure {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let hint = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            context(ContextKind::InvalidSubcommand).and_then(|typed| match group(&words) {
                Some(group) => Some(hint_in_group(&group, &typed)),
                None => command_hint(level(&words), &typed, rest(&words, &typed)),
            })
        }
        ErrorKind::UnknownArgument => {
            context(ContextKind::InvalidArg).and_then(|flag| flags::hint(&words, &flag))
        }
        _ => None,
    };
    let unknown_command = error.kind() == ErrorKind::InvalidSubcommand;
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(Some(hint)),
        // clap's own choice may be a harmful one
        None if unknown_command => {
            let command = level(&words).command();
            failure.hint(Some(format!("usage: {command} <COMMAND>; `{command} --help` lists the commands")))
        }
        None => failure,
    }
}

fn level(words: &[String]) -> Level {
    if words.get(1).is_some_and(|word| word == "ctl") { Level::Ctl } else { Level::Top }
}

/// The command that the words begin with, if it has commands of its own. (`ctl` is a level.)
fn group(words: &[String]) -> Option<Command> {
    let name = words.get(1).filter(|name| *name != "ctl")?;
    let mut command = Cli::command().find_subcommand(name)?.clone();
    // its commands are defined only now
    command.build();
    command.has_subcommands().then_some(command)
}

fn hint_in_group(group: &Command, typed: &str) -> String {
    let command = format!("vmrun {}", group.get_name());
    let known: Vec<(String, String)> =
        names(group).into_iter().map(|name| (name.clone(), format!("{command} {name}"))).collect();
    match &nearest(typed, &known)[..] {
        [] => format!("usage: {command} <COMMAND>; `{command} --help` lists the commands"),
        alike => format!("did you mean `{}`?", alike.join("` or `")),
    }
}

/// The commands below one, with their other names.
fn names(command: &Command) -> Vec<String> {
    let all = command.get_subcommands().filter(|below| !below.is_hide_set());
    all.flat_map(|below| std::iter::once(below.get_name()).chain(below.get_visible_aliases()))
        .map(str::to_owned)
        .collect()
}

/// What follows a word.
fn rest<'a>(words: &'a [String], typed: &str) -> &'a [String] {
    let at = words.iter().position(|word| word == typed).map_or(words.len(), |at| at + 1);
    &words[at..]
}

fn command_hint(level: Level, typed: &str, rest: &[String]) -> Option<String> {
    let grammar = Cli::command();
    let top = names(&grammar);
    let mut ctl = grammar.find_subcommand("ctl").cloned().unwrap_or_default();
    // its commands are defined only now
    ctl.build();
    let ctl: Vec<String> = names(&ctl).into_iter().filter(|name| name != "help").collect();
    // a VM's name in a command's place
    let follows = |names: &[String]| rest.first().is_some_and(|next| names.contains(next));
    if typed.parse::<VmName>().is_ok_and(|name| target::running().is_ok_and(|all| all.contains(&name)))
        || follows(&ctl)
    {
        let rest = if rest.is_empty() { &["status".to_owned()] } else { rest };
        return Some(format!("`{}`", line("vmrun ctl --vm", typed, rest)));
    }
    let elsewhere = match level {
        Level::Top => ctl.iter().any(|name| name == typed).then_some("vmrun ctl"),
        Level::Ctl => top.iter().any(|name| name == typed).then_some("vmrun"),
    };
    if let Some(command) = elsewhere {
        return Some(format!("`{}`", line(command, typed, rest)));
    }
    if let Some(meaning) = meanings::of(typed) {
        return Some(meaning.to_owned());
    }
    if level == Level::Top && Path::new(typed).is_file() {
        return Some(format!("`{}` starts a VM from it", line("vmrun qemu", typed, rest)));
    }
    if let Some(meaning) = meanings::near(typed) {
        return Some(meaning.to_owned());
    }
    let full = |level: Level, names: &[String]| -> Vec<(String, String)> {
        names.iter().map(|name| (name.clone(), format!("{} {name}", level.command()))).collect()
    };
    let mut known = full(Level::Ctl, &ctl);
    if level == Level::Top {
        known.extend(full(Level::Top, &top));
    }
    let alike = nearest(typed, &known);
    (!alike.is_empty()).then(|| format!("did you mean `{}`?", alike.join("` or `")))
}

/// A command line to type.
fn line(command: &str, word: &str, rest: &[String]) -> String {
    let words = std::iter::once(word).chain(rest.iter().map(String::as_str));
    let quoted = shlex::try_join(words).unwrap_or_else(|_| word.to_owned());
    format!("{command} {quoted}")
}

/// The commands whose names are most like a word, the best first.
fn nearest(typed: &str, known: &[(String, String)]) -> Vec<String> {
    if typed.len() > LONGEST_SLIP {
        return Vec::new();
    }
    let typed = typed.to_lowercase().replace('_', "-");
    let score = |name: &str| match meanings::same_words(&typed, name) {
        true => 1.0,
        false => strsim::jaro_winkler(&typed, name),
    };
    let slip = |name: &str| strsim::damerau_levenshtein(&typed, name) == 1;
    let mut scored: Vec<(f64, &str, &String)> =
        known.iter().map(|(name, command)| (score(name), name.as_str(), command)).collect();
    // a reset loses what the guest has not written: only for who has nearly typed it
    scored.retain(|(score, name, _)| (*score >= ALIKE && *name != "reset") || slip(name));
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let best = scored.first().map_or(0.0, |(score, ..)| *score);
    scored.retain(|(score, ..)| best - score <= BEHIND_THE_BEST);
    scored.into_iter().take(MOST).map(|(_, _, command)| command.clone()).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Message and hint of a command line.
    fn told(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let failure = flag_of_qemu(&words).unwrap_or_else(|| {
            let error = Cli::command().try_get_matches_from(words.clone()).expect_err(line);
            failure(error, &words)
        });
        assert_eq!(failure.exit_code, 2, "{line}");
        format!("{line}\n  {}\n  {}", failure.message, failure.hint.unwrap_or_default())
    }

    /// What newcomers typed.
    const TYPED: &[&str] = &[
        "vmrun ctl guest status",
        "vmrun guest shutdown",
        "vmrun --vm guest status",
        "vmrun status",
        "vmrun usb-add usb-kbd",
        "vmrun ctl logs",
        "vmrun ctl poweroff",
        "vmrun poweroff",
        "vmrun ctl cp a guest:b",
        "vmrun ctl ssh",
        "vmrun list",
        "vmrun ctl list",
        "vmrun start debian.qcow2",
        "vmrun ctl restart",
        "vmrun ctl restrat",
        "vmrun reboot",
        "vmrun destroy guest",
        "vmrun ctl snapshot-restore one",
        "vmrun ctl snapshot-create one",
        "vmrun ctl add-disk x",
        "vmrun ctl detach-nic x",
        "vmrun ctl attach-device x",
        "vmrun ctl disk-rm x",
        "vmrun ctl statsu",
        "vmrun ctl usb",
        "vmrun stauts",
        "vmrun consle",
        "vmrun ctl zzz",
        "vmrun ctl rest",
        "vmrun pull debian",
        "vmrun qemu -hda x.img",
        "vmrun -hda x.img",
        "vmrun qemu -name x x.img",
        "vmrun qemu -nographic x.img",
        "vmrun qemu -serial stdio x.img",
        "vmrun qemu -vnc :0 x.img",
        "vmrun qemu -netdev user,id=a x.img",
        "vmrun qemu -smp 4 x.img",
        "vmrun qemu -rtc base=utc x.img",
        "vmrun qemu -v /a:/b x.img",
        "vmrun qemu --volume /a:/b x.img",
        "vmrun qemu --rm x.img",
        "vmrun qemu -it x.img",
        "vmrun qemu --memory 2G x.img",
        "vmrun qemu --ram 2G x.img",
        "vmrun qemu --drive x.img",
        "vmrun qemu --cdrom x.iso",
        "vmrun qemu --port 80:80 x.img",
        "vmrun qemu --background x.img",
        "vmrun qemu --vm x x.img",
        "vmrun qemu --epehmeral x.img",
        "vmrun qemu --cpus two x.img",
        "vmrun ctl --name x status",
        "vmrun ctl status --name x",
        "vmrun ctl -vm x status",
        "vmrun run --rm x.img -- ls",
        "vmrun run x.img uname -a",
        "vmrun run --memory 2G x.img -- ls",
        "vmrun wrap qemu-system-x86_64 -version",
        "vmrun stop --vm x",
        "vmrun kill -a",
        "vmrun config sho",
        "vmrun config edit",
        "vmrun templates prun",
    ];

    #[test]
    fn what_was_meant_is_named() {
        let all: Vec<String> = TYPED.iter().map(|line| told(line)).collect();
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn a_reset_is_not_suggested_for_anything_else() {
        for word in ["reboot", "restart", "restrat", "rset-all", "guest", "restore"] {
            for level in ["vmrun", "vmrun ctl"] {
                let line = format!("{level} {word} x");
                if line.starts_with("vmrun ctl reboot") {
                    continue;
                }
                assert!(!told(&line).contains("ctl reset`"), "{}", told(&line));
            }
        }
        assert!(told("vmrun ctl rset").contains("`vmrun ctl reset`"));
    }

    #[test]
    fn values_and_what_is_passed_to_qemu_are_no_flags() {
        for line in [
            "vmrun qemu x -- -hda y",
            "vmrun qemu --append -hda x",
            "vmrun wrap -- qemu -hda x",
            "vmrun ctl exec -- ls -name",
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert!(flag_of_qemu(&words).is_none(), "{line}");
        }
    }
}
