//! `wait`.

use serde_json::{Value, json};

use crate::control::error::WireError;
use crate::control::parameters::{parse, timeout};
use crate::control::permits::Use;
use crate::control::{translate, wire};
use crate::spec::Condition;
use crate::vm::{self, ChangeError, Handle};

use super::method::{CallMethod, EndedVm, Uploads, method};

/// The most conditions: each may be an expression that is matched against all console output.
const MAX_CONDITIONS: usize = 100;

method! {
    /// Waits until any or all of some conditions are met.
    Wait { conditions: Vec<String>; all: bool, timeout_ms: i64, from_now: bool } -> WaitReply, repeatable
}

wire::replies! {
    /// Reply of `Wait`.
    WaitReply { came_true: Vec<CameTrue>; }
    /// A condition that is met.
    CameTrue { condition: String, after_ms: u64, details: Value; }
}

impl CallMethod for Wait {
    const NEEDS: Use = Use::Wait;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<WaitReply, WireError> {
        if self.conditions.len() > MAX_CONDITIONS {
            let why = format!("at most {MAX_CONDITIONS} conditions can be waited for at once");
            return Err(ChangeError::invalid("conditions", why).into());
        }
        let conditions: Result<Vec<Condition>, ChangeError> =
            self.conditions.iter().map(|condition| parse("conditions", condition)).collect();
        let conditions = conditions?;
        if conditions.is_empty() {
            return Err(ChangeError::invalid("conditions", "there is nothing to wait for").into());
        }
        let wait = vm::Wait {
            conditions,
            all: self.all.unwrap_or(false),
            timeout: timeout(self.timeout_ms)?,
            from_now: self.from_now.unwrap_or(false),
        };
        let came_true = vm.wait(wait).await?.into_iter().map(|fact| CameTrue {
            condition: fact.condition.to_string(),
            after_ms: translate::milliseconds(fact.after),
            details: fact.details,
        });
        Ok(WaitReply { came_true: came_true.collect() })
    }

    fn after_the_end(self, ended: &EndedVm<'_>) -> Option<WaitReply> {
        let details = json!({ "outcome": ended.record.outcome });
        let came_true = vec![CameTrue { condition: EXIT.to_owned(), after_ms: 0, details }];
        (ended.is_recent && self.is_over_with_the_vm()).then_some(WaitReply { came_true })
    }
}

/// The only condition that is met by the VM's end.
const EXIT: &str = "exit";

impl Wait {
    /// Whether all conditions are the end of the VM.
    fn is_over_with_the_vm(&self) -> bool {
        match self.all.unwrap_or(false) {
            true => self.conditions.iter().all(|condition| condition == EXIT),
            false => self.conditions.iter().any(|condition| condition == EXIT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_exit_that_is_enough_has_come_true() {
        let enough = |conditions: &[&str], all| {
            let conditions = conditions.iter().map(|&condition| condition.to_owned()).collect();
            Wait { conditions, all, timeout_ms: None, from_now: None }.is_over_with_the_vm()
        };
        assert!(enough(&["exit"], None));
        assert!(enough(&["console=x", "exit"], None));
        assert!(!enough(&["console=x", "exit"], Some(true)));
        assert!(!enough(&["agent"], None));
    }
}
