//! Compares `tests/it/flags.txt` with the command line and the tests: every flag must have a test that ran it, and every entry must
//! be a present flag whose test contains it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};

use super::args::Cli;

/// Commands and flags as the user types them; flags of a command group, and those that `run` and `fork` have from `qemu`, are listed once.
fn all(command: &Command, path: &str, found: &mut Vec<String>) {
    let below: Vec<&Command> = command.get_subcommands().filter(|below| below.get_name() != "help").collect();
    if below.is_empty() {
        found.push(path.to_owned());
    }
    let own = command.get_arguments().filter(|argument| !argument.is_global_set() || !below.is_empty());
    let long = own.filter_map(|argument| argument.get_long());
    found.extend(
        long.filter(|flag| !matches!(*flag, "help" | "version")).map(|flag| format!("{path} --{flag}")),
    );
    for command in below {
        all(command, format!("{path} {}", command.get_name()).trim_start(), found);
    }
}

/// The source of a test `module::name`.
fn source(tests: &Path, test: &str) -> Option<String> {
    let (module, name) = test.rsplit_once("::")?;
    let path: PathBuf = module.split("::").collect();
    let text = std::fs::read_to_string(tests.join(path).with_extension("rs")).ok()?;
    let start = text.find(&format!("\nfn {name}("))?;
    let is_test = text[..start].rsplit("\n\n").next()?.contains("#[test]");
    let rest = &text[start..];
    let body = &rest[..rest.find("\n}\n")?];
    // functions that it calls in its own file belong to it
    is_test.then(|| format!("{body}\n{}", helpers(&text)))
}

/// All code of a file that is not a test.
fn helpers(text: &str) -> String {
    text.split("\n\n").filter(|part| !part.contains("#[test]")).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn every_flag_has_a_test_that_ran_it() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let list = std::fs::read_to_string(tests.join("flags.txt")).unwrap();
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let mut listed: BTreeMap<&str, &str> = BTreeMap::new();
    for line in lines {
        let mut columns = line.split("  ");
        let (Some(flag), Some(test)) = (columns.next(), columns.next()) else { panic!("{line}") };
        assert!(listed.insert(flag, test).is_none(), "{flag} is listed twice");
    }
    let mut grammar = Cli::command();
    grammar.build();
    let mut flags = Vec::new();
    all(&grammar, "", &mut flags);
    let of_qemu: Vec<String> = flags
        .iter()
        .filter_map(|flag| flag.strip_prefix("qemu --"))
        .map(|flag| format!("run --{flag}"))
        .collect();
    // the command's own; both say what becomes of the VM
    flags.retain(|flag| !of_qemu.contains(flag) || flag == "run --keep");
    // those of a fork are the same code, and tests of `--from` run them
    let of_forks = ["networking", "nic", "on-panic", "no-reboot", "max-resets", "no-sandbox"];
    flags.retain(|flag| !of_forks.iter().any(|name| *flag == format!("ctl fork --{name}")));
    assert!(flags.len() > 140, "{flags:?}");
    for flag in &flags {
        let test = listed.remove(flag.as_str());
        let test = test.unwrap_or_else(|| panic!("tests/it/flags.txt names no test for `vmrun {flag}`"));
        let source = source(&tests, test).unwrap_or_else(|| panic!("`{flag}`: there is no test {test}"));
        // most helpers run `qemu`
        let word = flag.rsplit(' ').next().unwrap();
        let short =
            word.strip_prefix("--").and_then(|long| long.get(..1)).map(|letter| format!("\"-{letter}\""));
        let is_there = source.contains(word) || short.is_some_and(|short| source.contains(&short));
        assert!(is_there || word == "qemu", "{test} has no `{word}`");
    }
    assert!(listed.is_empty(), "there is no such flag: {listed:?}");
}
