//! `wait`.

use std::time::Duration;

use clap::Args;

use crate::control::verbs;
use crate::machine;
use crate::spec::event_name::doubt;
use crate::spec::{Condition, duration};

use super::super::failure::Failure;
use super::super::output::{Lines, milliseconds};
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Wait {
    /// running, paused, exit (ends with the outcome's exit code), agent, port=GUEST, console=REGEX or event=NAME
    #[arg(required = true)]
    conditions: Vec<Condition>,
    /// One condition is enough (the default)
    #[arg(long, conflicts_with = "all")]
    any: bool,
    /// Wait for all conditions
    #[arg(long)]
    all: bool,
    /// How long to wait at most
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// console= ignores output from before the wait
    #[arg(long)]
    from_now: bool,
}

impl Verb for Wait {
    const ABOUT: &'static str = "Wait until conditions are met";
    const AFTER_THE_END: bool = true;

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        for condition in &self.conditions {
            if let Condition::Event(name) = condition
                && let Some(doubt) = doubt(name)
            {
                log::warn!("{doubt}");
            }
        }
        let call = verbs::Wait {
            conditions: self.conditions.iter().map(Condition::to_string).collect(),
            all: Some(self.all),
            timeout_ms: self.timeout.map(machine::milliseconds),
            from_now: Some(self.from_now),
        };
        let verbs::WaitReply { came_true } = context.client.call(call)?;
        context.output.print(&came_true, || came_true.iter().map(line).collect::<Lines>())?;
        // the VM's end may be a failure
        let exit = came_true.iter().find(|fact| fact.condition == "exit");
        let code = exit.and_then(|exit| exit.details["outcome"]["exit_code"].as_u64());
        Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(0))
    }
}

fn line(fact: &verbs::CameTrue) -> String {
    let detail = fact.details["line"].as_str().or_else(|| fact.details["outcome"]["message"].as_str());
    let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{} after {}{detail}", fact.condition, milliseconds(fact.after_ms))
}
