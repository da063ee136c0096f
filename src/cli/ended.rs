//! VMs that have ended: `vmrun ls --all`, `vmrun forget`.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use crate::control::find::FindError;
use crate::host::dirs::{RuntimeEnvironment, StoreEnvironment, runtime_root};
use crate::vm::{Outcome, RunRecord};

use super::args::ForgetArgs;
use super::failure::Failure;
use super::output::{Lines, table};
use super::target;

/// One of them, in a list.
#[derive(Debug, Serialize)]
pub(super) struct Ended {
    run: String,
    ended_unix_ms: u64,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_directory: Option<String>,
}

/// Their names with their records, the newest last.
pub(super) fn all(root: &Path) -> Vec<(String, Ended)> {
    let records = RunRecord::all(&StoreEnvironment::from_env(), root);
    records.into_iter().map(|record| (record.name().to_string(), Ended::of(record))).collect()
}

/// Their names with how they ended, the newest last.
pub(super) fn names(root: &Path) -> Vec<(String, String)> {
    all(root).into_iter().map(|(name, ended)| (name, ended.outcome.message)).collect()
}

impl Ended {
    fn of(record: RunRecord) -> Self {
        let state_directory = record.state_directory().map(|path| path.to_string_lossy().into_owned());
        Self {
            run: record.run.to_string(),
            ended_unix_ms: record.ended_unix_ms,
            outcome: record.outcome,
            state_directory,
        }
    }
}

/// As a table.
pub(super) fn as_table<'a>(all: impl IntoIterator<Item = (&'a str, &'a Ended)>) -> Lines {
    let rows = all.into_iter().map(|(name, ended)| {
        [
            name.to_owned(),
            when(ended.ended_unix_ms),
            ended.outcome.message.clone(),
            ended.state_directory.clone().unwrap_or_default(),
        ]
    });
    table(["NAME", "ENDED", "OUTCOME", "STATE DIRECTORY"], rows)
}

/// A time, in UTC.
pub(super) fn when(unix_ms: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string()
}

/// `vmrun forget`.
pub(super) fn forget(args: &ForgetArgs) -> Result<u8, Failure> {
    let root = runtime_root(&RuntimeEnvironment::from_env()).map_err(FindError::from)?;
    let environment = StoreEnvironment::from_env();
    let records = RunRecord::all(&environment, &root);
    if args.all {
        for record in &records {
            record.forget(&environment)?;
        }
        return Ok(0);
    }
    let unknown = args.names.iter().find(|name| !records.iter().any(|record| record.name() == *name));
    if let Some(name) = unknown {
        let failure = Failure::not_running(format!("there is no record of a VM '{name}' that has ended"));
        let hint = match target::running()?.contains(name) {
            true => format!("it runs: `vmrun stop {name}` shuts it down"),
            false => "`vmrun ls --all` lists those that there are".to_owned(),
        };
        return Err(failure.hint(Some(hint)));
    }
    for record in records.iter().filter(|record| args.names.contains(record.name())) {
        record.forget(&environment)?;
    }
    Ok(0)
}
