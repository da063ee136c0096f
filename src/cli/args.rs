//! The top level of the command line.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::spec::{Size, VmName, duration};

use super::clean::CleanArgs;
use super::config::ConfigArgs;
use super::console::{ConsoleArgs, LogsArgs};
use super::ctl::CtlArgs;
use super::lazy::Lazy;
use super::manual::ManualArgs;
use super::qemu_args::QemuArgs;
use super::run::RunArgs;
use super::shell::ShellArgs;
use super::ssh::{CopyArgs, SshArgs, SshConfigArgs, SshProxyArgs};
use super::words::cp::CpArgs;
use super::words::shutdown::{KillArgs, ShutdownArgs};
use super::words::{ExecArgs, InspectArgs};
use super::wrap::WrapArgs;

/// Starts QEMU virtual machines and changes them while they run.
#[derive(Debug, Parser)]
// the last of several uses of a flag counts, as in most programs: a script puts its own before its caller's
#[command(
    name = "vmrun",
    version,
    propagate_version = false,
    max_term_width = 110,
    after_long_help = super::help::after(),
    args_override_self = true
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) program: Program,
}

#[derive(Debug, Subcommand)]
pub(super) enum Program {
    /// Start a VM from an image
    Qemu(Lazy<Box<QemuArgs>>),
    /// Run a command in a fork of a VM that has booted before, and end it: vmrun run IMAGE -- COMMAND...
    Run(Lazy<Box<RunArgs>>),
    /// Start a VM from a QEMU command line, and supervise it
    Wrap(Lazy<WrapArgs>),
    /// Show and change a running VM
    Ctl(Lazy<CtlArgs>),
    /// Attach to a VM's console
    Console(Lazy<ConsoleArgs>),
    /// Print the output of a VM's console
    Logs(Lazy<LogsArgs>),
    /// List the running VMs, or with --all also those that have ended
    #[command(visible_alias = "ps")]
    Ls(Lazy<LsArgs>),
    /// Shut VMs down and wait until they are off
    #[command(visible_alias = "stop")]
    Shutdown(Lazy<ShutdownArgs>),
    /// End VMs without asking their guests
    Kill(Lazy<KillArgs>),
    /// Run a command in a VM's guest: `vmrun ctl exec` with the VM's name in front
    Exec(Lazy<ExecArgs>),
    /// Open a shell in a VM's guest, through its agent
    Shell(Lazy<ShellArgs>),
    /// Copy a file into a VM's guest, or out of it
    Cp(Lazy<CpArgs>),
    /// Connect to a VM's guest with ssh, over its agent's channel: no network, port or key of the guest's is needed
    Ssh(Lazy<SshArgs>),
    /// Copy files with scp: `vmrun scp FILE NAME:PATH`
    Scp(Lazy<CopyArgs>),
    /// Copy folders with rsync: `vmrun rsync -a DIR NAME:PATH`
    Rsync(Lazy<CopyArgs>),
    /// Print what other programs need in ~/.ssh/config to connect to a VM's guest
    SshConfig(Lazy<SshConfigArgs>),
    /// Connect standard input and output to an sshd in a VM's guest: ssh's ProxyCommand
    SshProxy(Lazy<SshProxyArgs>),
    /// Print the status of VMs as JSON
    Inspect(Lazy<InspectArgs>),
    /// Remove the records of VMs that have ended
    #[command(visible_alias = "rm")]
    Forget(Lazy<ForgetArgs>),
    /// List the templates in the cache, from which --warm starts, or remove them
    Templates(Lazy<TemplatesArgs>),
    /// List the state directories in a folder whose images are gone, or remove them
    Clean(Lazy<CleanArgs>),
    /// Check this host for what vmrun needs, with hints on what is missing
    Doctor(Lazy<DoctorArgs>),
    /// Show the defaults of flags, which a file and variables can set
    Config(Lazy<ConfigArgs>),
    /// Print a completion script for a shell
    Completions(Lazy<CompletionsArgs>),
    /// Print a man page, or a page of the reference
    Manual(Lazy<ManualArgs>),
}

/// `vmrun ls`.
#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Also list the VMs that have ended: the last 100, for 30 days
    #[arg(long, short)]
    pub(super) all: bool,
    /// Print names only
    #[arg(long, short, conflicts_with = "json")]
    pub(super) quiet: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// `vmrun templates`.
#[derive(Debug, Args)]
pub(super) struct TemplatesArgs {
    #[command(subcommand)]
    pub(super) command: Option<TemplatesCommand>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// What to do with the templates.
#[derive(Debug, Subcommand)]
pub(super) enum TemplatesCommand {
    /// Remove templates that no VM uses
    Prune(PruneArgs),
}

/// `vmrun templates prune`.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct PruneArgs {
    /// Remove those unused for longest, until the rest takes at most this
    #[arg(long, value_name = "SIZE")]
    pub(super) max_size: Option<Size>,
    /// Remove those that were not used for this time
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(super) older_than: Option<Duration>,
    /// Remove all
    #[arg(long)]
    pub(super) all: bool,
}

/// `vmrun forget`.
#[derive(Debug, Args)]
pub(super) struct ForgetArgs {
    /// Names of the VMs
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "NAME")]
    pub(super) names: Vec<VmName>,
    /// All VMs that have ended
    #[arg(long)]
    pub(super) all: bool,
}

/// `vmrun doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// `vmrun completions`.
#[derive(Debug, Args)]
#[command(after_help = "Load it in the shell's start-up file:\n  bash: source <(vmrun completions bash)\n  \
    zsh:  source <(vmrun completions zsh)     # after compinit\n  fish: vmrun completions fish | source\n\
    It completes also the names of running VMs, and the devices, forwards and snapshots that a VM has.")]
pub(super) struct CompletionsArgs {
    /// Name of the shell
    pub(super) shell: Shell,
}

impl Cli {
    /// Whether errors are printed as JSON.
    pub(super) fn wants_json(&self) -> bool {
        match &self.program {
            Program::Ctl(Lazy(args)) => args.json,
            Program::Ls(Lazy(args)) => args.json,
            Program::Templates(Lazy(args)) => args.json,
            Program::Doctor(Lazy(args)) => args.json,
            Program::Config(Lazy(args)) => args.json,
            Program::Clean(Lazy(args)) => args.json,
            Program::Shutdown(Lazy(args)) => args.json,
            Program::Kill(Lazy(args)) => args.json,
            Program::Exec(Lazy(args)) => args.json,
            Program::Cp(Lazy(args)) => args.json,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use clap::{ArgAction, Command, CommandFactory};

    use super::*;

    /// A valid value of each flag, or the start of one.
    const VALUES: [&str; 20] = [
        "net",
        "12345678-9abc-4def-8123-456789abcdef",
        "1",
        "1s",
        "1M",
        "/a",
        "a",
        "ctrl-a",
        "user",
        "x86_64",
        "kvm",
        "none",
        "poweroff",
        "text",
        "running",
        "0:80",
        "1:80",
        "tcp",
        "a:/b",
        "A=b",
    ];

    fn kind(words: &[String]) -> Option<ErrorKind> {
        Cli::try_parse_from(words).err().map(|error| error.kind())
    }

    fn is_wrong_value(kind: Option<ErrorKind>) -> bool {
        matches!(
            kind,
            Some(ErrorKind::ValueValidation | ErrorKind::InvalidValue | ErrorKind::ArgumentConflict)
        )
    }

    /// Tries every single-value flag twice; counts them.
    fn twice(command: &Command, path: &[String]) -> usize {
        let flags = command.get_arguments().filter(|argument| {
            argument.get_long().is_some()
                && matches!(argument.get_action(), ArgAction::Set | ArgAction::SetTrue)
        });
        let mut count = 0;
        for flag in flags {
            let name = format!("--{}", flag.get_long().unwrap());
            let of = |words: &[String], times| {
                path.iter().chain(words.iter().cycle().take(words.len() * times)).cloned().collect::<Vec<_>>()
            };
            let words: Vec<Vec<String>> = match flag.get_action() {
                ArgAction::SetTrue => vec![vec![name.clone()]],
                _ if flag.is_require_equals_set() => {
                    VALUES.map(|value| vec![format!("{name}={value}")]).to_vec()
                }
                _ => VALUES.map(|value| vec![name.clone(), value.to_owned()]).to_vec(),
            };
            let fitting = words.iter().find(|words| !is_wrong_value(kind(&of(words, 1))));
            let words = fitting.unwrap_or_else(|| panic!("no value fits {path:?} {name}"));
            assert_eq!(kind(&of(words, 2)), kind(&of(words, 1)), "{path:?} {name} twice");
            count += 1;
        }
        let below = command.get_subcommands().filter(|command| command.get_name() != "help");
        count
            + below
                .map(|command| {
                    let path: Vec<String> =
                        path.iter().cloned().chain([command.get_name().to_owned()]).collect();
                    twice(command, &path)
                })
                .sum::<usize>()
    }

    #[test]
    fn every_flag_with_one_value_can_be_given_twice() {
        let mut grammar = Cli::command();
        grammar.build();
        let count = twice(&grammar, &["vmrun".to_owned()]);
        assert!(count > 90, "{count}");
    }

    #[test]
    fn the_last_one_counts() {
        let words =
            ["vmrun", "qemu", "--stop-timeout", "1s", "--name", "a", "--stop-timeout", "7s", "--name", "b"];
        let Program::Qemu(Lazy(args)) = Cli::try_parse_from(words).unwrap().program else { panic!("qemu") };
        assert_eq!(args.vm.own.name.as_ref().map(ToString::to_string).as_deref(), Some("b"));
        assert_eq!(args.request().unwrap().stop_timeout.as_secs(), 7);
        // repeatable flags keep all values
        let words = ["vmrun", "qemu", "--publish", "0:80", "--publish", "0:81"];
        let Program::Qemu(Lazy(args)) = Cli::try_parse_from(words).unwrap().program else { panic!("qemu") };
        assert_eq!(args.request().unwrap().publish.len(), 2);
    }
}
