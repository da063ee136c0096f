//! Runs the steps of a plan and rolls them back on failure.

use std::time::Duration;

use serde_json::Value;

use crate::qemu::plan::{Check, Step};
use crate::qmp::{CommandError, Pending, Session, hmp};

use crate::vm::error::{ChangeError, ErrorChain, ErrorKind};

/// The inventory needs the result of a command even if no client waits any more: a stopped QEMU executes it when it resumes. (Each
/// client has its own deadline; and all of this ends with QEMU.)
pub(in crate::vm) fn to_the_end(answer: Pending) -> Pending {
    answer.within(Duration::MAX)
}

/// Collects the replies of a plan; rolls back the finished steps in reverse order if one failed.
pub(in crate::vm) async fn run_steps(
    session: Session,
    steps: Vec<Step>,
    answers: Vec<Pending>,
) -> Result<Vec<Value>, ChangeError> {
    let mut values = Vec::with_capacity(steps.len());
    let mut failure = None;
    let mut undo = Vec::new();
    for (step, answer) in steps.into_iter().zip(answers) {
        match judge(&step, answer.await) {
            Ok(value) => {
                values.push(value);
                undo.extend(step.undo);
            }
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    let Some(error) = failure else { return Ok(values) };
    for command in undo.iter().rev() {
        if let Err(error) = to_the_end(session.submit(command)).await {
            log::warn!("a change could not be rolled back completely: {}: {error}", command.execute);
        }
    }
    Err(error)
}

fn judge(step: &Step, answer: Result<Value, CommandError>) -> Result<Value, ChangeError> {
    let value = answer?;
    match step.check {
        Check::Qmp => Ok(value),
        Check::HmpSilent => match hmp::hostfwd_added(value.as_str().unwrap_or_default()) {
            Ok(()) => Ok(value),
            Err(error) => Err(ChangeError::new(
                ErrorKind::RefusedByQemu { class: "GenericError".to_owned() },
                error.with_causes(),
            )),
        },
    }
}

/// Runs a blocking function on a thread of its own.
pub(in crate::vm) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, ChangeError> + Send + 'static,
) -> Result<T, ChangeError> {
    tokio::task::spawn_blocking(job).await.map_err(ChangeError::host)?
}
