//! Finds the VM that a command is for: the one that was named, by the command or by `$VMRUN_VM`, or the only one.

use std::path::Path;
use std::time::Duration;

use crate::control::after::{self, Fate};
use crate::control::client::Client;
use crate::control::find::{self, FindError, Standing};
use crate::host::dirs::{RuntimeEnvironment, StoreEnvironment, runtime_root};
use crate::spec::{NameError, VmName};
use crate::vm::RunRecord;

use super::adopt;
use super::failure::Failure;

/// Code of the failure that a VM does not run.
pub(super) const NOT_RUNNING: &str = "not-running";
/// Names the VM of a command that names none; an empty value names none either.
pub(super) const VARIABLE: &str = "VMRUN_VM";

/// Parses the value of `--vm`, which scripts take from a variable.
pub(super) fn named(text: &str) -> Result<VmName, String> {
    text.parse().map_err(|error: NameError| match error {
        NameError::Empty => {
            "the name is empty: was the variable that holds it ever set? `vm=$(vmrun qemu IMAGE --detached)` \
                             leaves it empty if the VM does not start"
                .to_owned()
        }
        other => other.to_string(),
    })
}

/// The VM that `$VMRUN_VM` names.
fn from_environment() -> Result<Option<VmName>, Failure> {
    let Some(value) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) else { return Ok(None) };
    let text = value.to_string_lossy();
    text.parse().map(Some).map_err(|error: NameError| Failure::usage(format!("${VARIABLE}: {error}")))
}

/// Connects to the VM of a command; one whose supervisor has died is taken over first, and for one that has ended its record
/// answers.
pub(super) fn connect(name: Option<&VmName>) -> Result<(VmName, Client), Failure> {
    match (name, from_environment()?) {
        (None, Some(name)) => connect_to(Some(&name)).map_err(|failure| match failure.code == NOT_RUNNING {
            true => failure.and_hint(format!("the name is that in ${VARIABLE}")),
            false => failure,
        }),
        (name, _) => connect_to(name),
    }
}

fn connect_to(name: Option<&VmName>) -> Result<(VmName, Client), Failure> {
    let root = runtime_root(&RuntimeEnvironment::from_env()).map_err(FindError::from)?;
    let found = match find::connect(&root, name) {
        Err(FindError::Orphan(name)) => adopt::run(&root, &name)
            .and_then(|()| Ok(find::connect(&root, Some(&name))?))
            .or_else(|failure| {
                adopt::await_end(&root, &name);
                ended(&root, &name).ok_or(failure)
            }),
        Err(error @ (FindError::NoSuch { .. } | FindError::Stale(_))) => match name {
            Some(name) => ended(&root, name).ok_or_else(|| error.into()),
            None => Err(error.into()),
        },
        Err(FindError::None) => Err(none_runs(&root)),
        other => other.map_err(Failure::from),
    };
    found.map(|(name, client)| (name, client.adopting(adopt::adopt)))
}

/// A VM that has ended, if it has a record.
fn ended(root: &Path, name: &VmName) -> Option<(VmName, Client)> {
    match after::fate(root, name, None, &StoreEnvironment::from_env()) {
        Fate::Ended(record) => after::client(*record).ok().map(|client| (name.clone(), client)),
        _ => None,
    }
}

/// Like [`connect`], for queries of how a VM ended: if none runs, the only one that has ended within the last minute is used, since
/// the query came a moment too late.
pub(super) fn connect_after_the_end(name: Option<&VmName>) -> Result<(VmName, Client), Failure> {
    let failure = match connect(name) {
        Err(failure) if name.is_none() && from_environment()?.is_none() => failure,
        connected => return connected,
    };
    let root = runtime_root(&RuntimeEnvironment::from_env()).map_err(FindError::from)?;
    let Some(record) = only_ended(&root) else { return Err(failure) };
    let name = record.name().clone();
    after::client(record).map(|client| (name, client)).map_err(|_| failure)
}

/// The error that no VM runs, with the one that has just ended.
fn none_runs(root: &Path) -> Failure {
    let failure = Failure::from(FindError::None);
    let Some(record) = only_ended(root) else { return failure };
    let (name, outcome) = (record.name(), &record.outcome);
    let ended = format!("VM '{name}' has just ended: {outcome}; `vmrun ctl --vm {name} status` tells more");
    failure.and_hint(ended)
}

/// The names of all running VMs.
pub(super) fn running() -> Result<Vec<VmName>, Failure> {
    let root = runtime_root(&RuntimeEnvironment::from_env()).map_err(FindError::from)?;
    let all = find::all(&root)?;
    Ok(all.into_iter().filter(|(_, standing)| *standing != Standing::Stale).map(|(name, _)| name).collect())
}

/// The only VM that has ended within the last minute, if none runs; `None` if there are several.
fn only_ended(root: &Path) -> Option<RunRecord> {
    for (name, standing) in find::all(root).ok()? {
        if standing != Standing::Stale {
            return None;
        }
        // VMs of killed supervisors get their records now
        let _ = ended(root, &name);
    }
    let mut recent = RunRecord::all(&StoreEnvironment::from_env(), root);
    recent.retain(|record| Duration::from_millis(record.age_ms()) < after::RECENT);
    let [record] = <[RunRecord; 1]>::try_from(recent).ok()?;
    Some(record)
}
