//! A VM's resource usage: processor time, memory, and the I/O of its disks and network cards.
//!
//! Only the inventory comes from the owner: `/proc` and QEMU's counters are read directly.

mod nics;
mod present;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::unistd::Pid;
use serde_json::Value;

use crate::host::template::MEMORY;
use crate::host::usage;
use crate::qemu::Command;
use crate::qemu::query;

use super::error::ChangeError;
use super::handle::Handle;
use crate::qemu::query_block::drive_of;
use crate::vm::state::inventory::Entry;

pub use nics::{NicStats, Source};
pub use present::Present;

const PROC: &str = "/proc";

/// One sample of all counters. Counters start at QEMU's start, those of a device when it is plugged.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// When the sample was taken, in milliseconds after the Unix epoch.
    pub time_unix_ms: u64,
    /// Since QEMU's start.
    pub uptime: Duration,
    /// Processor time of QEMU's process, all of its threads.
    pub cpu_time: Duration,
    /// Memory of QEMU's process that is resident on the host, in bytes.
    pub resident_bytes: u64,
    /// Of that, what a fork shares with its template and all other forks of it, in bytes; `None` where no memory is shared.
    pub shared_bytes: Option<u64>,
    /// The guest's memory, in bytes.
    pub memory_bytes: u64,
    /// The memory that a balloon leaves, in bytes; `None` without a balloon.
    pub balloon_bytes: Option<u64>,
    /// The guest's processors.
    pub vcpus: Vec<VcpuStats>,
    /// Disks and drives, in the order of their ids.
    pub disks: Vec<DiskStats>,
    /// Network cards, the one from the start first.
    pub nics: Vec<NicStats>,
}

/// A processor of the guest, which is a thread of QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VcpuStats {
    /// Its number, from 0.
    pub number: u64,
    /// The thread's id on the host.
    pub thread_id: i64,
    /// Its processor time.
    pub cpu_time: Duration,
}

/// QEMU's counters of one kind of request (`query-blockstats`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Bytes transferred; 0 for flushes.
    pub bytes: u64,
    /// Completed requests.
    pub operations: u64,
    /// Their total time.
    pub time: Duration,
    /// Failed requests.
    pub failed: u64,
}

/// The counters of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskStats {
    /// Its id.
    pub id: String,
    /// Reads.
    pub read: Requests,
    /// Writes.
    pub write: Requests,
    /// Flushes.
    pub flush: Requests,
}

impl Handle {
    /// Takes a sample of all counters.
    pub async fn stats(&self) -> Result<Stats, ChangeError> {
        let status = self.status().await?;
        // at the same moment as the uptime: the agent's answer can take a while
        let time_unix_ms = now_unix_ms();
        let balloon_bytes = self.balloon_bytes().await?;
        let vcpus = self.qmp(query::cpus()).await?;
        let blocks = self.qmp(Command::new("query-blockstats", Value::Null)).await?;
        let nics = self.nic_stats(&status).await;
        let pid = Pid::from_raw(status.facts.qemu_pid);
        let proc = Path::new(PROC);
        // if the process is gone, the VM has ended
        let ended = |_| ChangeError::not_running();
        Ok(Stats {
            time_unix_ms,
            uptime: status.uptime(),
            cpu_time: usage::process_cpu_time(proc, pid).map_err(ended)?,
            resident_bytes: usage::resident_bytes(proc, pid).map_err(ended)?,
            shared_bytes: status.facts.template.as_deref().and_then(|folder| shared_bytes(folder, proc, pid)),
            memory_bytes: status.origin.memory().bytes(),
            balloon_bytes,
            vcpus: vcpu_stats(&vcpus, proc, pid),
            disks: status.devices.iter().filter_map(|entry| disk_stats(&blocks, entry)).collect(),
            nics,
        })
    }
}

/// What a fork has of its template's memory and has not written to.
fn shared_bytes(template: &Path, proc: &Path, pid: Pid) -> Option<u64> {
    let memory = std::fs::metadata(template.join(MEMORY)).ok()?;
    usage::shared_with_file(proc, pid, MEMORY, memory.ino()).ok()?
}

fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Processors that QEMU lists; one that was just unplugged has no thread any more.
fn vcpu_stats(list: &Value, proc: &Path, pid: Pid) -> Vec<VcpuStats> {
    let vcpu = |item: &Value| {
        let (number, thread_id) = (item["cpu-index"].as_u64()?, item["thread-id"].as_i64()?);
        let cpu_time = usage::thread_cpu_time(proc, pid, thread_id).ok()?;
        Some(VcpuStats { number, thread_id, cpu_time })
    };
    list.as_array().into_iter().flatten().filter_map(vcpu).collect()
}

/// Counters of a disk, drive or stick.
fn disk_stats(blocks: &Value, entry: &Entry) -> Option<DiskStats> {
    if !entry.kind.is_block_device() {
        return None;
    }
    let stats = &drive_of(blocks, entry.id.as_str())?["stats"];
    let count = |name: String| stats[name].as_u64().unwrap_or(0);
    let requests = |kind: &str| Requests {
        bytes: count(format!("{kind}_bytes")),
        operations: count(format!("{kind}_operations")),
        time: Duration::from_nanos(count(format!("{kind}_total_time_ns"))),
        failed: count(format!("failed_{kind}_operations")),
    };
    Some(DiskStats {
        id: entry.id.to_string(),
        read: requests("rd"),
        write: requests("wr"),
        flush: requests("flush"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::vm::{Kind, Phase};

    #[test]
    fn a_disk_is_found_by_its_device() {
        let entry = Entry {
            id: "stick".parse().unwrap(),
            driver: "usb-storage".to_owned(),
            slot: None,
            phase: Phase::Present,
            taken: None,
            kind: Kind::Usb { description: String::new(), file: Some("/x".to_owned()), identity: None },
        };
        let stats = json!({ "rd_bytes": 512, "rd_operations": 1, "rd_total_time_ns": 2_000_000, "failed_wr_operations": 3 });
        let blocks = json!([
            { "qdev": "disk0", "stats": {} },
            { "qdev": "/machine/peripheral/stick/stick.0/legacy[0]", "stats": stats },
        ]);
        let found = disk_stats(&blocks, &entry).unwrap();
        let read = Requests { bytes: 512, operations: 1, time: Duration::from_millis(2), failed: 0 };
        assert_eq!((found.read, found.write.failed, found.flush), (read, 3, Requests::default()));
        let keyboard = Kind::Usb { description: String::new(), file: None, identity: None };
        assert_eq!(disk_stats(&blocks, &Entry { kind: keyboard, ..entry }), None);
    }
}
