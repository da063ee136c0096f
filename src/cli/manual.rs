//! `vmrun manual`: the man pages, and the reference in `docs/reference/`, from the same definitions as `--help`.

use std::fmt::Write as _;

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::args::Cli;
use super::exit_codes;
use super::failure::Failure;
use super::output::Stdout;

/// The width of the help texts in the reference, in columns.
const WIDTH: usize = 100;

/// The description of the control protocol.
const INTERFACE: &str = include_str!("../../proto/io.vmrun.Machine.varlink");

/// The pages of `docs/reference/`.
const REFERENCE: [&str; 5] = ["qemu", "ctl", "commands", "exit-codes", "interface"];

/// `vmrun manual`.
#[derive(Debug, Args)]
pub(super) struct ManualArgs {
    /// Name of the page, such as `vmrun-ctl-usb-add`; with `--markdown` such as `ctl`
    #[arg(default_value = "vmrun", default_value_if("markdown", "true", Some("qemu")))]
    page: String,
    /// List the pages instead
    #[arg(long)]
    list: bool,
    /// Print a page of the reference, in Markdown, instead of a man page
    #[arg(long)]
    markdown: bool,
}

/// Prints a page, or their names.
pub(super) fn run(args: &ManualArgs) -> Result<u8, Failure> {
    let cli = grammar();
    let names = match args.markdown {
        true => REFERENCE.map(str::to_owned).to_vec(),
        false => man_pages(&cli, "vmrun").into_iter().map(|(name, _)| name).collect(),
    };
    let mut stdout = Stdout::default();
    if args.list {
        stdout.raw(format!("{}\n", names.join("\n")).as_bytes());
        return stdout.finish();
    }
    if !names.contains(&args.page) {
        let hint = Some("`vmrun manual --list` lists the pages".to_owned());
        return Err(Failure::usage(format!("there is no page '{}'", args.page)).hint(hint));
    }
    let page = match args.markdown {
        true => reference(&cli, &args.page).into_bytes(),
        false => man_page(&cli, &args.page).map_err(Failure::other)?,
    };
    stdout.raw(&page);
    stdout.finish()
}

/// The names of the man pages.
pub(super) fn pages() -> Vec<String> {
    man_pages(&grammar(), "vmrun").into_iter().map(|(name, _)| name).collect()
}

fn grammar() -> Command {
    let mut cli = Cli::command();
    cli.build();
    cli
}

/// A command's own subcommands.
fn below(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|below| below.get_name() != "help" && !below.is_hide_set())
}

/// The name of each man page with its command.
fn man_pages<'a>(command: &'a Command, name: &str) -> Vec<(String, &'a Command)> {
    let mut pages = vec![(name.to_owned(), command)];
    for below in below(command) {
        pages.extend(man_pages(below, &format!("{name}-{}", below.get_name())));
    }
    pages
}

fn man_page(cli: &Command, name: &str) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let all = man_pages(cli, "vmrun");
    if let Some((_, command)) = all.into_iter().find(|(page, _)| page == name) {
        let version = concat!("vmrun ", env!("CARGO_PKG_VERSION"));
        Man::new(command.clone()).title(name).source(version).render(&mut page)?;
    }
    Ok(page)
}

fn reference(cli: &Command, page: &str) -> String {
    let of = |name: &str| cli.find_subcommand(name).into_iter();
    match page {
        "qemu" => help_texts("`vmrun qemu`", of("qemu")),
        "ctl" => help_texts("`vmrun ctl`", of("ctl").chain(of("ctl").flat_map(below))),
        "commands" => {
            let others = below(cli).filter(|command| !matches!(command.get_name(), "qemu" | "ctl"));
            help_texts("The other commands", others)
        }
        "exit-codes" => exit_codes(),
        _ => interface(),
    }
}

/// The help texts of commands, one after the other.
fn help_texts<'a>(title: &str, commands: impl Iterator<Item = &'a Command>) -> String {
    let mut text = begun(title);
    for command in commands {
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
        let help = command.clone().term_width(WIDTH).render_long_help().to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        let _ = write!(text, "\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    }
    text
}

fn exit_codes() -> String {
    let mut text = begun("Exit codes");
    text.push_str("\n| code | `vmrun ctl …` | `vmrun qemu` |\n| --- | --- | --- |\n");
    for (code, ctl, qemu) in exit_codes::TABLE {
        let _ = writeln!(text, "| {code} | {ctl} | {qemu} |");
    }
    text
}

/// The protocol's description: a block between two empty lines is a comment and the definition that it describes.
fn interface() -> String {
    let mut text = begun("The interface io.vmrun.Machine");
    for part in INTERFACE.split("\n\n") {
        let is_comment = |line: &&str| line.starts_with('#');
        let comment: Vec<String> = part.lines().take_while(is_comment).map(paragraph_line).collect();
        let defined: Vec<&str> = part.lines().skip_while(is_comment).collect();
        if let Some(first) = defined.first().filter(|first| !first.starts_with("interface ")) {
            let name = first.split('(').next().unwrap_or(first).trim();
            let _ = write!(text, "\n## {name}\n");
        }
        if !comment.is_empty() {
            let _ = write!(text, "\n{}\n", comment.join("\n"));
        }
        if !defined.is_empty() {
            let _ = write!(text, "\n```varlink\n{}\n```\n", defined.join("\n").trim_end());
        }
    }
    text
}

/// A line of a comment. An indented one explains a word, which two spaces or more follow.
fn paragraph_line(line: &str) -> String {
    let line = line.trim_start_matches('#');
    match (line.starts_with("   "), line.trim().split_once("  ")) {
        (true, Some((word, meaning))) => format!("- `{word}`: {}", meaning.trim()),
        _ => line.trim().to_owned(),
    }
}

fn begun(title: &str) -> String {
    format!(
        "# {title}\n\nMade by `make reference`, from what `--help` and the protocol's description are made from.\n"
    )
}
