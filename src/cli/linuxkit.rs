//! linuxkit's command lines: `--flag=false`, and this program under the name of `linuxkit`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{ArgAction, Args, Command};

use super::failure::Failure;
use super::qemu_args::QemuArgs;
use super::run::RunArgs;

/// The program name under which this program acts as `linuxkit run qemu`.
const NAME: &str = "linuxkit";
/// Flags of `linuxkit` and `linuxkit run` before the backend that have a value.
const WITH_VALUE: [&str; 6] = ["--cpus", "--mem", "--disk", "-v", "--verbose", "--cache"];

/// Converts arguments for linuxkit to vmrun's: `linuxkit run [qemu] …` is `vmrun qemu --linuxkit …`.
pub(super) fn by_name(words: &[OsString]) -> Option<Result<Vec<OsString>, Failure>> {
    let (name, rest) = words.split_first()?;
    if Path::new(name).file_name() != Some(OsStr::new(NAME)) {
        return None;
    }
    let backend = position_of_word(rest, 0);
    let run = backend.filter(|run| rest[*run] == "run");
    let Some(run) = run else {
        let only =
            "this is vmrun under the name of linuxkit, which does `linuxkit run qemu` and nothing else";
        return Some(Err(Failure::usage(only.to_owned())));
    };
    let qemu = position_of_word(rest, run + 1).filter(|qemu| rest[*qemu] == "qemu");
    let kept = rest
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != run && Some(*at) != qemu)
        .map(|(_, word)| word.clone());
    Some(Ok(["vmrun", "qemu", "--linuxkit"].into_iter().map(OsString::from).chain(kept).collect()))
}

/// The first argument from `start` on that is neither a flag nor a flag's value.
fn position_of_word(words: &[OsString], start: usize) -> Option<usize> {
    let mut at = start;
    while let Some(word) = words.get(at) {
        match word.to_str() {
            Some(flag) if WITH_VALUE.contains(&flag) => at += 2,
            Some(flag) if flag.starts_with('-') => at += 1,
            _ => return Some(at),
        }
    }
    None
}

/// Whether the flags of this command that take no value take `=true` and `=false`.
pub(super) fn has_truth_values(command: &str) -> bool {
    matches!(command, "qemu" | "run")
}

/// Converts arguments of `vmrun qemu` and `vmrun run` to clap's spelling: `--uefi=true` is `--uefi`, `--uefi=false` is left out, and the last of
/// several uses counts, all as in linuxkit; `--kernel FILE` beside `--initrd`, which linuxkit does not have, is `--kernel=FILE`.
pub(super) fn spelled_out(words: Vec<OsString>) -> Vec<OsString> {
    let Some(command) =
        words.get(1).and_then(|word| word.to_str()).filter(|command| has_truth_values(command))
    else {
        return words;
    };
    let switches_of_it = match command {
        "run" => switches::<RunArgs>,
        _ => switches::<QemuArgs>,
    };
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let is =
        |name: &str, word: &OsString| word.to_str().is_some_and(|word| word.split('=').next() == Some(name));
    let has_initrd = words[..end].iter().any(|word| is("--initrd", word));
    let says_value = |word: &OsString| word.to_str().is_some_and(|word| switch(word).is_some());
    if !has_initrd && !words[..end].iter().any(says_value) {
        return words;
    }
    let switches = switches_of_it();
    let switch_of = |word: &OsString| {
        let (name, value) = word.to_str().and_then(switch)?;
        switches.iter().any(|switch| switch == name).then(|| (name.to_owned(), value))
    };
    let mut out: Vec<OsString> = Vec::new();
    let mut words = words.into_iter().enumerate().peekable();
    while let Some((at, word)) = words.next() {
        if at >= end {
            out.push(word);
        } else if has_initrd && word == "--kernel" {
            let file = words.next_if(|(at, next)| *at < end && !next.as_encoded_bytes().starts_with(b"-"));
            out.push(file.map_or(word, |(_, file)| joined("--kernel=", &file)));
        } else if let Some((name, value)) = switch_of(&word) {
            let flag = OsString::from(format!("--{name}"));
            out.retain(|earlier| *earlier != flag);
            if value {
                out.push(flag);
            }
        } else {
            out.push(word);
        }
    }
    out
}

fn joined(flag: &str, value: &OsStr) -> OsString {
    let mut word = OsString::from(flag);
    word.push(value);
    word
}

/// `--NAME=VALUE` where VALUE is one of Go's truth values (`strconv.ParseBool`).
fn switch(word: &str) -> Option<(&str, bool)> {
    let (name, value) = word.strip_prefix("--")?.split_once('=')?;
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some((name, true)),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some((name, false)),
        _ => None,
    }
}

/// The names of the flags without a value, and of the one with an optional value.
fn switches<A: Args>() -> Vec<String> {
    let command = A::augment_args(Command::new("qemu"));
    let is_switch = |argument: &&clap::Arg| {
        matches!(argument.get_action(), ArgAction::SetTrue) || argument.get_id() == "kernel"
    };
    command
        .get_arguments()
        .filter(is_switch)
        .filter_map(|switch| switch.get_long().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn spelled(line: &str) -> String {
        spelled_out(words(line)).join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn every_switch_takes_a_truth_value() {
        for switch in switches::<QemuArgs>() {
            assert_eq!(spelled(&format!("vmrun qemu --{switch}=true i")), format!("vmrun qemu --{switch} i"));
            assert_eq!(spelled(&format!("vmrun qemu --{switch}=F i")), "vmrun qemu i");
        }
        assert_eq!(spelled("vmrun qemu --uefi --uefi=false --gui=1 i"), "vmrun qemu --gui i");
        for same in [
            "vmrun qemu --cpus=1 i",
            "vmrun qemu i -- --gui=true",
            "vmrun ctl --gui=true",
            "vmrun qemu --gui=yes i",
        ] {
            assert_eq!(spelled(same), same);
        }
    }

    #[test]
    fn a_kernel_with_an_initrd_is_a_file() {
        assert_eq!(spelled("vmrun qemu --kernel k --initrd i d"), "vmrun qemu --kernel=k --initrd i d");
        assert_eq!(spelled("vmrun qemu --kernel k"), "vmrun qemu --kernel k");
        assert_eq!(spelled("vmrun qemu --kernel --initrd i p"), "vmrun qemu --kernel --initrd i p");
    }

    #[test]
    fn linuxkits_words_are_vmruns() {
        let translated = |line: &str| {
            by_name(&words(line))
                .map(|translated| translated.map(|translated| translated.join(OsStr::new(" "))))
        };
        for (typed, meant) in [
            ("linuxkit run qemu --uefi x", "vmrun qemu --linuxkit --uefi x"),
            ("/usr/bin/linuxkit run x", "vmrun qemu --linuxkit x"),
            ("linuxkit run --mem 512 qemu x", "vmrun qemu --linuxkit --mem 512 x"),
            ("linuxkit run qemu qemu", "vmrun qemu --linuxkit qemu"),
        ] {
            assert_eq!(translated(typed).unwrap().unwrap(), meant);
        }
        assert!(translated("vmrun run qemu x").is_none());
        assert!(translated("linuxkit build x.yml").unwrap().is_err());
    }
}
