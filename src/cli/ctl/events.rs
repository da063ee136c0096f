//! `events`.

use clap::Args;
use serde_json::{Value, json};

use crate::control::verbs;

use super::super::failure::Failure;
use super::super::output::{Lines, Output, Stdout, end_with_reader};
use super::event_names;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Only events of this name, e.g. SHUTDOWN, in any case; repeatable
    #[arg(long, value_name = "NAME")]
    filter: Vec<String>,
    /// Print first the kept events after this sequence number (0 = all kept events)
    #[arg(long, value_name = "SEQUENCE")]
    since: Option<i64>,
}

impl Verb for Events {
    const ABOUT: &'static str = "Print events as they come, one JSON object a line, until the VM ends";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        event_names::check(&mut context.client, self.filter.iter().map(String::as_str));
        let call =
            verbs::Events { names: (!self.filter.is_empty()).then_some(self.filter), since: self.since };
        end_with_reader();
        let mut stdout = Stdout::default();
        context.client.stream(call, |reply: verbs::EventReply| {
            let line: Value = match (reply.event, reply.lost) {
                (Some(event), _) => json!(event),
                (None, Some(lost)) => json!({ "lost": lost }),
                // the subscription is confirmed
                (None, None) => return true,
            };
            stdout.print(Output { json: true }, &line, Lines::default)
        })?;
        stdout.finish()
    }
}
