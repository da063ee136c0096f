//! `wait`.

use clap::Args;

use crate::control::verbs;
use crate::machine;
use crate::spec::Condition;

use super::super::failure::Failure;
use super::super::limit::Limit;
use super::super::output::{Lines, Output, milliseconds};
use super::super::waiting;
use super::event_names;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Wait {
    /// running, paused, exit (ends with the outcome's exit code), agent, ssh, port=GUEST, console=REGEX or event=NAME
    #[arg(required = true)]
    conditions: Vec<Condition>,
    /// One of several conditions is enough
    #[arg(long, conflicts_with = "all")]
    any: bool,
    /// Wait for all conditions
    #[arg(long)]
    all: bool,
    /// How long to wait at most, or none [default: 5m; none for exit]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    timeout: Option<Limit>,
    /// console= ignores output from before the wait
    #[arg(long)]
    from_now: bool,
}

impl Verb for Wait {
    const ABOUT: &'static str = "Wait until conditions are met";
    const AFTER_THE_END: bool = true;

    fn without_vm(&self, _: Output) -> Option<Result<u8, Failure>> {
        let unclear = self.conditions.len() > 1 && !self.any && !self.all;
        unclear.then(|| {
            let all = self.conditions.iter().map(|condition| format!("'{condition}'")).collect::<Vec<_>>();
            let failure = Failure::usage(format!("wait for any or for all of {}?", all.join(" and ")));
            Err(failure.hint(Some("add `--any` (the first is enough) or `--all`".to_owned())))
        })
    }

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let events = self.conditions.iter().filter_map(|condition| match condition {
            Condition::Event(name) => Some(name.as_str()),
            _ => None,
        });
        event_names::check(&mut context.client, events);
        let described: Vec<String> =
            self.conditions.iter().map(|condition| format!("'{condition}'")).collect();
        let described = format!("waiting for {}", described.join(if self.all { " and " } else { " or " }));
        let call = verbs::Wait {
            conditions: self.conditions.iter().map(Condition::to_string).collect(),
            all: self.all.then_some(true),
            timeout_ms: Limit::of(self.timeout, &self.conditions).map(machine::milliseconds),
            from_now: self.from_now.then_some(true),
        };
        let verbs::WaitReply { came_true } =
            waiting::while_shown(&mut context.client, &described, |client| client.call(call))?;
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
