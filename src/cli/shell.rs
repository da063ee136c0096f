//! `vmrun shell`: a shell in a VM's guest, without sshd, network or configuration.

use std::io::IsTerminal;

use clap::Args;

use crate::spec::VmName;
use crate::vm::Exec;

use super::ctl::AgentArgs;
use super::failure::Failure;
use super::guest_command::{self, OutputTo};
use super::output::stdout_is_terminal;
use super::target::named;
use super::{connect, guest_terminal};

/// The shell of the agent's user (root, as a rule), as a login would start it.
const LOGIN: &str = r#"
entry=$(grep "^[^:]*:[^:]*:$(id -u):" /etc/passwd | head -n 1)
home=$(echo "$entry" | cut -d: -f6)
[ -n "$home" ] && HOME=$home
USER=${entry%%:*} LOGNAME=${entry%%:*} SHELL=${entry##*:}
[ -x "$SHELL" ] || SHELL=/bin/sh
export HOME SHELL USER LOGNAME
cd "$HOME" 2>/dev/null || cd /
exec "$SHELL" -l
"#;

/// `vmrun shell`.
#[derive(Debug, Args)]
pub(super) struct ShellArgs {
    /// VM name [default: $VMRUN_VM, else the only one that runs]
    #[arg(value_parser = named)]
    name: Option<VmName>,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Opens it: on a terminal of the guest where this is one; else it reads commands from standard input. Its exit code is the shell's.
pub(super) fn run(args: ShellArgs) -> Result<u8, Failure> {
    let (_, mut client) = connect(args.name.as_ref())?;
    let exec =
        Exec { agent_timeout: Some(args.agent.agent_timeout), input: true, ..Exec::script(LOGIN, &[]) };
    let is_terminal = std::io::stdin().is_terminal() && stdout_is_terminal();
    let executed = match is_terminal {
        true => guest_terminal::run(&mut client, exec, OutputTo::Printed, |_| true)?,
        false => guest_command::run(&mut client, exec, OutputTo::Printed, |_| true)?,
    };
    Ok(guest_command::exit_code(&executed))
}
