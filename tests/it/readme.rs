//! README.md names all that the help pages name.

use std::collections::BTreeSet;

use crate::support::sandbox::Sandbox;

const README: &str = include_str!("../../README.md");

/// The words of `text` as a reader sees them: `--disk` is not found in `--disk-cache`.
fn words(text: &str) -> BTreeSet<&str> {
    text.split(|letter: char| !(letter.is_alphanumeric() || letter == '-')).collect()
}

/// The long flags that a help page lists: those that begin a line, alone or after a short one.
fn flags(help: &str) -> Vec<&str> {
    help.lines().filter_map(flag_of_line).collect()
}

fn flag_of_line(line: &str) -> Option<&str> {
    let line = line.trim_start();
    // `-v, --verbose...`
    let line = if line.starts_with("--") { line } else { line.strip_prefix('-')?.split_once(", ")?.1 };
    line.split(|letter: char| !(letter.is_alphanumeric() || letter == '-')).next()
}

/// The subcommands that a help page lists.
fn commands(help: &str) -> Vec<&str> {
    let list = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let list = list.split_once("\n\n").map_or(list, |(list, _)| list);
    // continued descriptions are indented further
    let names = list.lines().filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect()
}

#[test]
fn the_readme_names_every_command_and_flag() {
    let sandbox = Sandbox::new();
    let help = |arguments: &[&str]| sandbox.run(arguments.iter().chain(&["--help"])).ok().stdout;
    let (top, qemu, ctl) = (help(&[]), help(&["qemu"]), help(&["ctl"]));

    let mut named: Vec<String> =
        [&top, &qemu, &ctl].iter().flat_map(|page| flags(page)).map(String::from).collect();
    named.extend(commands(&top).into_iter().map(String::from));
    for command in commands(&ctl) {
        named.push(command.to_owned());
        named.extend(flags(&help(&["ctl", command])).into_iter().map(String::from));
    }
    for command in commands(&top) {
        named.extend(flags(&help(&[command])).into_iter().map(String::from));
    }
    assert!(named.len() > 80, "the help pages look different now: {named:?}");

    let known = words(README);
    let missing: BTreeSet<&String> = named.iter().filter(|name| !known.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "README.md does not name {missing:?}");
}
