//! The record of a VM after its end: its description, its outcome, and the last output of its console.
//!
//! The record is written before the run directory is removed: a client that finds neither knows that the VM never ran.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::host::dirs::{Records, RunId, StoreEnvironment};
use crate::host::kept_logs;
use crate::spec::VmName;

use super::facts::Facts;
use super::origin::{Description, Origin};
use super::outcome::Outcome;

/// How much of the console's last output is kept, in bytes.
const CONSOLE: usize = 64 << 10;

/// The record of one run of a VM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunRecord {
    /// Id of the run.
    pub run: RunId,
    /// When it ended, in milliseconds after the Unix epoch.
    pub ended_unix_ms: u64,
    /// How long it ran, in milliseconds; `None` if no supervisor saw its end.
    #[serde(default)]
    pub ran_ms: Option<u64>,
    /// Its outcome.
    pub outcome: Outcome,
    /// Its description.
    #[serde(flatten)]
    pub description: Description,
}

impl RunRecord {
    /// Its name.
    pub fn name(&self) -> &VmName {
        self.description.origin.name()
    }

    /// Milliseconds since its end.
    pub fn age_ms(&self) -> u64 {
        now().saturating_sub(self.ended_unix_ms)
    }

    /// The state directory; `None` if it was removed with the VM.
    pub fn state_directory(&self) -> Option<&Path> {
        (!self.description.facts.ephemeral).then_some(self.description.facts.state_directory.as_path())
    }

    /// The last output of its console.
    pub fn console(&self) -> Vec<u8> {
        let records =
            Records::existing(&StoreEnvironment::from_env_or(self.description.facts.state_home.as_deref()));
        records.and_then(|records| records.console(&self.run)).unwrap_or_default()
    }

    /// The record of this run.
    pub fn of_run(environment: &StoreEnvironment, run: &RunId) -> Option<Self> {
        parse(&Records::existing(environment)?.read(run)?)
    }

    /// The newest record of a VM name in a folder of running VMs.
    pub fn of_name(environment: &StoreEnvironment, root: &Path, name: &VmName) -> Option<Self> {
        Self::all(environment, root).into_iter().rfind(|record| record.name() == name)
    }

    /// All records of VMs of one folder of running VMs, the newest last. Unreadable ones are left out.
    pub fn all(environment: &StoreEnvironment, root: &Path) -> Vec<Self> {
        let Some(records) = Records::existing(environment) else { return Vec::new() };
        let runs = records.runs().unwrap_or_default();
        let mut all: Vec<Self> = runs.iter().filter_map(|run| parse(&records.read(run)?)).collect();
        all.retain(|record| record.description.facts.run_directory.parent() == Some(root));
        all.sort_by(|a, b| (a.ended_unix_ms, &a.run).cmp(&(b.ended_unix_ms, &b.run)));
        all
    }

    /// Removes the record.
    ///
    /// # Errors
    /// Of the file system.
    pub fn forget(&self, environment: &StoreEnvironment) -> std::io::Result<()> {
        Records::open(environment).map_err(std::io::Error::other)?.remove(&self.run)
    }
}

/// Writes the record of a VM that has ended. A failure is only logged: it affects only those who ask for the record.
pub(in crate::vm) fn write(
    origin: &Origin,
    facts: &Facts,
    outcome: &Outcome,
    ran: Option<Duration>,
    console: &[u8],
) {
    // started by a version without records, or with an unusable store, which was reported at its start
    let Some(run) = facts.run.clone() else { return };
    let record = RunRecord {
        run,
        ended_unix_ms: now(),
        ran_ms: ran.map(|ran| u64::try_from(ran.as_millis()).unwrap_or(u64::MAX)),
        outcome: outcome.clone(),
        description: Description { origin: origin.clone(), facts: facts.clone() },
    };
    let last = &console[console.len().saturating_sub(CONSOLE)..];
    let environment = StoreEnvironment::from_env_or(facts.state_home.as_deref());
    let written = Records::open(&environment).map_err(|error| error.to_string()).and_then(|records| {
        let text = serde_json::to_vec(&record).map_err(|error| error.to_string())?;
        records.write(&record.run, &text, last).map_err(|error| error.to_string())
    });
    if let Err(why) = written {
        log::info!("how VM '{}' ended cannot be recorded: {why}", origin.name());
    }
}

/// Keeps the console's output and the outcome in a folder of the user's. A failure is only logged: the VM has ended.
pub(in crate::vm) fn keep_logs(
    folder: &Path,
    name: &VmName,
    console: impl Iterator<Item = Vec<u8>>,
    outcome: &Outcome,
) {
    let outcome = serde_json::to_vec_pretty(outcome).map_err(std::io::Error::other);
    match outcome.and_then(|outcome| kept_logs::keep(folder, name, console, &outcome)) {
        Ok(kept) => log::info!("the console's log and the outcome are kept in {}", kept.display()),
        Err(error) => log::warn!("the logs could not be kept in {}: {error}", folder.display()),
    }
}

fn parse(bytes: &[u8]) -> Option<RunRecord> {
    serde_json::from_slice(bytes).ok()
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
