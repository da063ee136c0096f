//! Formats clap's errors like all others: `vmrun: what failed: why`, then `hint: …`.

use std::ffi::OsStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::failure::Failure;

/// Longer values are cut in a message; the rest of the message says what is wrong with them.
const LONGEST_VALUE: usize = 60;

/// Whether an error with these arguments is printed as JSON. They could not be parsed, so this only looks for the flag.
pub(super) fn wants_json<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> bool {
    arguments
        .into_iter()
        .map(|argument| argument.as_ref().to_owned())
        .take_while(|argument| argument != "--")
        .any(|argument| argument == "--json")
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        let value = text(&error, ContextKind::InvalidValue);
        let argument = text(&error, ContextKind::InvalidArg);
        match (error.kind(), argument, value) {
            (ErrorKind::ValueValidation, Some(argument), Some(value)) => {
                invalid_value(&error, argument, value)
            }
            _ => as_rendered(&error.render().to_string()),
        }
    }
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    }
}

/// Our parsers name the invalid part; clap knows the argument.
fn invalid_value(error: &clap::Error, argument: &str, value: &str) -> Failure {
    let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    // `--disk <DISK>` as typed, `<SELECTOR>` as in the help page
    let argument =
        argument.split(" <").next().unwrap_or(argument).trim_end_matches("...").trim_matches(['<', '>']);
    let shown: String = value.chars().take(LONGEST_VALUE).collect();
    let cut = if shown.len() < value.len() { "…" } else { "" };
    let quoted = ['\'', '"'].iter().any(|quote| why.contains(&format!("{quote}{value}{quote}")));
    Failure::usage(match quoted || value.is_empty() {
        true => format!("{argument}: {why}"),
        false => format!("{argument} {shown}{cut}: {why}"),
    })
}

/// Any other error in clap's words: a paragraph with what is wrong, perhaps one with tips, the usage.
fn as_rendered(text: &str) -> Failure {
    let mut lines = text.lines().map(str::trim);
    let message: Vec<&str> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    let message = message.join(" ");
    let (mut tips, mut usage) = (Vec::new(), None);
    for line in lines {
        match (line.strip_prefix("tip: "), line.strip_prefix("Usage: ")) {
            // clap's advice to put an unknown option after `--`: there it would go to QEMU, or nowhere
            (Some(tip), _) if tip.starts_with("to pass ") => {}
            (Some(tip), _) => tips.push(tip),
            (_, Some(line)) => usage = Some(format!("usage: {line}")),
            _ => {}
        }
    }
    let hint = if tips.is_empty() { usage } else { Some(tips.join("; ")) };
    Failure::usage(message.strip_prefix("error: ").unwrap_or(&message)).hint(hint)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::Cli;
    use super::*;

    fn explained(arguments: &[&str]) -> (String, Option<String>) {
        let failure = Failure::from(Cli::try_parse_from([&["vmrun"], arguments].concat()).unwrap_err());
        assert_eq!((failure.exit_code, failure.code.as_str()), (2, "usage"));
        (failure.message, failure.hint)
    }

    #[test]
    fn a_bad_value_is_told_with_the_place_where_it_stood() {
        let message = |arguments: &[&str]| explained(arguments).0;
        assert_eq!(
            message(&["qemu", "--disk", "a,size=0", "i"]),
            "--disk a,size=0: the size must be more than 0"
        );
        assert_eq!(message(&["qemu", "--disk", "", "i"]), "--disk: a disk needs a path or options");
        assert_eq!(
            message(&["qemu", "--name", "../x", "i"]),
            "--name: VM name '../x' must start with a letter or a digit"
        );
        let long = message(&["qemu", "--name", &"a".repeat(300), "i"]);
        assert_eq!(
            long,
            format!(
                "--name {}…: a VM's name may have 64 characters, this has 300",
                "a".repeat(LONGEST_VALUE)
            )
        );
        assert_eq!(message(&["ctl", "usb-add", "zz:1"]), "SELECTOR zz:1: vendor 'zz' is not hexadecimal");
        assert_eq!(message(&["qemu", "--cpus", "0", "i"]), "--cpus 0: 0 is not in 1..=4096");
    }

    #[test]
    fn suggestions_and_usage_become_hints() {
        let (message, hint) = explained(&["ctl", "disk-resize", "a"]);
        assert_eq!(message, "the following required arguments were not provided: <SIZE>");
        assert_eq!(hint.unwrap(), "usage: vmrun ctl disk-resize <ID> <SIZE>");
        let (message, hint) = explained(&["qemu", "--nonsense"]);
        assert_eq!(message, "unexpected argument '--nonsense' found");
        assert_eq!(hint.unwrap(), "usage: vmrun qemu [OPTIONS] [IMAGE] [-- EXTRA QEMU ARGS...]");
        let (message, _) = explained(&["completions", "x"]);
        assert_eq!(
            message,
            "invalid value 'x' for '<SHELL>' [possible values: bash, elvish, fish, powershell, zsh]"
        );
    }

    #[test]
    fn json_is_wanted_only_in_front_of_the_dashes() {
        assert!(wants_json(["ctl", "--json", "x"]));
        assert!(!wants_json(["qemu", "--", "--json"]));
    }
}
