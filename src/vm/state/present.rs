//! How much memory and how many processors a VM has now, which is not what it started with: memory and processors are plugged, a balloon takes
//! memory away, and arguments behind `--` may say otherwise.

use serde_json::Value;

use crate::qemu::Command;

use super::status::Status;
use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::handle::Handle;

/// What a VM has now, as QEMU tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// Memory that the guest may use, in bytes.
    pub memory_bytes: u64,
    /// Processors.
    pub cpus: u32,
}

impl Handle {
    /// What the VM has now; none where that cannot differ from what it started with, and QEMU need not be asked.
    ///
    /// # Errors
    /// The VM has ended.
    pub async fn present(&self, status: &Status) -> Result<Option<Present>, ChangeError> {
        if !may_differ(status) {
            return Ok(None);
        }
        let [memory, balloon, cpus] =
            ["query-memory-size-summary", "query-balloon", "query-hotpluggable-cpus"];
        // not every machine has all of it
        let memory = self.asked(memory).await?.and_then(|answer| summary(&answer));
        let balloon = self.asked(balloon).await?.and_then(|answer| answer["actual"].as_u64());
        let cpus = self.asked(cpus).await?.and_then(|answer| plugged_cpus(&answer));
        Ok(Some(Present {
            memory_bytes: balloon.or(memory).unwrap_or_else(|| status.origin.memory().bytes()),
            cpus: cpus.unwrap_or_else(|| status.origin.cpus()),
        }))
    }

    /// An answer of QEMU's, if it has one.
    async fn asked(&self, query: &str) -> Result<Option<Value>, ChangeError> {
        match self.qmp(Command::new(query, Value::Null)).await.map_err(ChangeError::from) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if matches!(error.kind, ErrorKind::RefusedByQemu { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn may_differ(status: &Status) -> bool {
    let is_such = |driver: &str| {
        driver.ends_with("dimm")
            || driver.ends_with("-cpu")
            || driver.contains("balloon")
            || driver.contains("virtio-mem")
    };
    status.origin.spec().is_none_or(|spec| !spec.extra.is_empty())
        || status.devices.iter().any(|entry| is_such(&entry.driver))
}

/// What was there from the start and what was plugged.
fn summary(answer: &Value) -> Option<u64> {
    Some(answer["base-memory"].as_u64()? + answer["plugged-memory"].as_u64().unwrap_or(0))
}

/// Those that are there have a path; one entry may be several.
fn plugged_cpus(answer: &Value) -> Option<u32> {
    let there = answer.as_array()?.iter().filter(|cpu| cpu["qom-path"].is_string());
    u32::try_from(there.map(|cpu| cpu["vcpus-count"].as_u64().unwrap_or(1)).sum::<u64>()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_there_counts() {
        let cpus = json!([
            { "props": { "core-id": 1 }, "vcpus-count": 2, "type": "x" },
            { "props": { "core-id": 0 }, "vcpus-count": 2, "qom-path": "/machine/unattached/device[0]", "type": "x" },
        ]);
        assert_eq!((plugged_cpus(&cpus), plugged_cpus(&json!({}))), (Some(2), None));
        let memory = json!({ "base-memory": 5, "plugged-memory": 3 });
        assert_eq!(
            (summary(&memory), summary(&json!({ "base-memory": 5 })), summary(&json!(0))),
            (Some(8), Some(5), None)
        );
    }
}
