//! `exec`.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::spec::duration;
use crate::vm::Executed;

use super::super::failure::Failure;
use super::super::guest_command::{self, OutputTo};
use super::super::guest_terminal;
use super::super::output::{Lines, Output};
use super::agent_args::AgentArgs;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(in crate::cli) struct Exec {
    /// Pass standard input to the command
    #[arg(long, short = 'i')]
    stdin: bool,
    /// Run the command on a terminal of the guest, with this one's keys and size; implies --stdin
    #[arg(long, short = 't')]
    tty: bool,
    /// Variable for the command, which then gets only these and a PATH; repeatable
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = guest_command::variable)]
    env: Vec<String>,
    /// Kill the command after this time
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse)]
    timeout: Option<Duration>,
    #[command(flatten)]
    agent: AgentArgs,
    /// Command and its arguments, run without a shell
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Verb for Exec {
    const ABOUT: &'static str =
        "Run a command in the guest, through its agent; exits with the command's own code";

    fn without_vm(&self, output: Output) -> Option<Result<u8, Failure>> {
        let refused = match output.json {
            true => Err(Failure::usage("what a terminal shows cannot be printed as JSON")),
            false => guest_terminal::check(),
        };
        refused.err().filter(|_| self.tty).map(Err)
    }

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let exec = crate::vm::Exec {
            command: self.command,
            env: self.env,
            stdin: None,
            input: self.stdin || self.tty,
            timeout: self.timeout,
            agent_timeout: Some(self.agent.agent_timeout),
        };
        if self.tty {
            let run = guest_terminal::run(&mut context.client, exec, OutputTo::Printed, |_| true);
            return run.map(|executed| guest_command::exit_code(&executed));
        }
        let as_json = context.output.json;
        let mut collected = Executed::default();
        let to = if as_json { OutputTo::Collected(&mut collected) } else { OutputTo::Printed };
        let executed = guest_command::run(&mut context.client, exec, to, |_| true);
        let has_output = !collected.stdout.is_empty() || !collected.stderr.is_empty();
        if as_json && (executed.is_ok() || has_output) {
            // what it has written until its time was over is not lost
            context.output.print(&facts(&collected), Lines::default)?;
        }
        let executed = executed?;
        Ok(guest_command::exit_code(&executed))
    }
}

fn facts(executed: &Executed) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    json!({
        "exit_code": executed.exit_code,
        "signal": executed.signal,
        "stdout": text(&executed.stdout),
        "stderr": text(&executed.stderr),
        "truncated": executed.truncated,
    })
}
