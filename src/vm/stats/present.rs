//! The memory and processors that a VM has now. They differ from those at its start: memory and processors can be plugged, a
//! balloon takes memory away, and arguments after `--` may override them.

use qapi::qmp::{
    HotpluggableCPU, MemoryInfo, QmpCommand, query_balloon, query_hotpluggable_cpus,
    query_memory_size_summary,
};

use crate::vm::error::{ChangeError, ErrorKind};
use crate::vm::handle::Handle;
use crate::vm::state::status::Status;

/// The present resources, from QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// Memory that the guest may use, in bytes.
    pub memory_bytes: u64,
    /// Processors.
    pub cpus: u32,
}

impl Handle {
    /// The present resources; a value is `None` where it cannot differ from the start, and QEMU is not asked.
    ///
    /// # Errors
    /// The VM has ended.
    pub async fn present(&self, status: &Status) -> Result<Option<Present>, ChangeError> {
        if !may_differ(status) {
            return Ok(None);
        }
        // not every machine supports all of them
        let memory = self.asked(query_memory_size_summary {}).await?.map(|memory| summary(&memory));
        let balloon = self.balloon_bytes().await?;
        let cpus = self.asked(query_hotpluggable_cpus {}).await?.map(|cpus| plugged_cpus(&cpus));
        Ok(Some(Present {
            memory_bytes: balloon.or(memory).unwrap_or_else(|| status.origin.memory().bytes()),
            cpus: cpus.unwrap_or_else(|| status.origin.cpus()),
        }))
    }

    /// The memory that a balloon leaves, in bytes; `None` without a balloon (`DeviceNotActive`).
    pub(in crate::vm) async fn balloon_bytes(&self) -> Result<Option<u64>, ChangeError> {
        let balloon = self.asked(query_balloon {}).await?;
        Ok(balloon.and_then(|balloon| u64::try_from(balloon.actual).ok()))
    }

    /// QEMU's answer, if it has one.
    async fn asked<C: QmpCommand>(&self, query: C) -> Result<Option<C::Ok>, ChangeError> {
        match self.query(query).await.map_err(ChangeError::from) {
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

/// Memory at the start and plugged memory.
fn summary(memory: &MemoryInfo) -> u64 {
    memory.base_memory + memory.plugged_memory.unwrap_or(0)
}

/// Present processors have a path; one entry may stand for several.
fn plugged_cpus(cpus: &[HotpluggableCPU]) -> u32 {
    let there = cpus.iter().filter(|cpu| cpu.qom_path.is_some());
    u32::try_from(there.map(|cpu| cpu.vcpus_count).sum::<i64>()).unwrap_or(u32::MAX)
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
        let cpus: Vec<HotpluggableCPU> = serde_json::from_value(cpus).unwrap();
        assert_eq!((plugged_cpus(&cpus), plugged_cpus(&[])), (2, 0));
        let memory = |plugged_memory| MemoryInfo { base_memory: 5, plugged_memory };
        assert_eq!((summary(&memory(Some(3))), summary(&memory(None))), (8, 5));
    }
}
