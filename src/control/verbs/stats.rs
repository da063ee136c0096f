//! `stats`.

use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::time::{Interval, MissedTickBehavior};

use crate::control::error::WireError;
use crate::control::permits::Use;
use crate::control::translate::milliseconds;
use crate::control::wire;
use crate::vm::stats::{DiskStats, NicStats, Source, Stats, VcpuStats};
use crate::vm::{ChangeError, ErrorKind, Handle};

use super::method::{CallMethod, EndedVm, Stream, StreamMethod, Uploads, method};

/// The default interval between two samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// The shortest interval: more samples would measure mostly themselves.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest interval, as for every duration that a user can type.
const LONGEST: Duration = crate::spec::duration::MAX;

method! {
    /// Takes a sample of all counters.
    GetStats { ; } -> StatsReply, repeatable
}

method! {
    /// Takes samples at an interval.
    WatchStats { ; interval_ms: i64 } -> StatsReply, repeatable
}

wire::replies! {
    /// Reply of `GetStats` and `WatchStats`.
    StatsReply { stats: wire::Stats; }
}

impl CallMethod for GetStats {
    const NEEDS: Use = Use::Short;

    async fn run(self, vm: &Handle, _: &mut Uploads) -> Result<StatsReply, WireError> {
        Ok(reply(&vm.stats().await?))
    }
}

impl Stream for WatchStats {}

impl StreamMethod for WatchStats {
    fn start(self, vm: &Handle) -> Result<BoxStream<'static, Result<StatsReply, WireError>>, WireError> {
        let interval =
            self.interval_ms.map_or(Some(INTERVAL), |ms| u64::try_from(ms).ok().map(Duration::from_millis));
        let Some(interval) = interval.filter(|interval| (SHORTEST..=LONGEST).contains(interval)) else {
            let message = format!("an interval is {} ms to a year", SHORTEST.as_millis());
            return Err(ChangeError::invalid("interval_ms", message).into());
        };
        let mut clock = tokio::time::interval(interval);
        // a slow reader gets the next sample, not all those that it missed
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watch = Watch { vm: vm.clone(), clock, failed: false };
        Ok(stream::unfold(watch, |mut watch| async move {
            let stats = watch.next().await?;
            Some((stats.map(|stats| reply(&stats)).map_err(WireError::from), watch))
        })
        .boxed())
    }

    fn after_the_end(self, _: &EndedVm<'_>) -> Option<Vec<StatsReply>> {
        Some(Vec::new())
    }
}

/// A client that follows the counters. It has its own timer: without a client none runs.
struct Watch {
    vm: Handle,
    clock: Interval,
    failed: bool,
}

impl Watch {
    /// The next sample; `None` once the VM has ended.
    async fn next(&mut self) -> Option<Result<Stats, ChangeError>> {
        if self.failed {
            return None;
        }
        tokio::select! { biased;
            _ = self.vm.ended() => return None,
            _ = self.clock.tick() => {}
        }
        match self.vm.stats().await {
            Err(error) if error.kind == ErrorKind::NotRunning => None,
            result => {
                self.failed = result.is_err();
                Some(result)
            }
        }
    }
}

fn reply(stats: &Stats) -> StatsReply {
    StatsReply {
        stats: wire::Stats {
            time_unix_ms: stats.time_unix_ms,
            uptime_ms: milliseconds(stats.uptime),
            cpu_time_ms: milliseconds(stats.cpu_time),
            resident_bytes: stats.resident_bytes,
            shared_bytes: stats.shared_bytes,
            own_bytes: stats.shared_bytes.map(|shared| stats.resident_bytes.saturating_sub(shared)),
            memory_bytes: stats.memory_bytes,
            balloon_bytes: stats.balloon_bytes,
            vcpus: stats.vcpus.iter().map(vcpu).collect(),
            disks: stats.disks.iter().map(disk).collect(),
            nics: stats.nics.iter().map(nic).collect(),
        },
    }
}

fn vcpu(vcpu: &VcpuStats) -> wire::VcpuStats {
    let VcpuStats { number, thread_id, cpu_time } = *vcpu;
    wire::VcpuStats { number, thread_id, cpu_time_ms: milliseconds(cpu_time) }
}

fn disk(disk: &DiskStats) -> wire::DiskStats {
    let DiskStats { id, read, write, flush } = disk;
    wire::DiskStats {
        id: id.clone(),
        read_bytes: read.bytes,
        read_operations: read.operations,
        read_time_ms: milliseconds(read.time),
        read_errors: read.failed,
        write_bytes: write.bytes,
        write_operations: write.operations,
        write_time_ms: milliseconds(write.time),
        write_errors: write.failed,
        flush_operations: flush.operations,
        flush_time_ms: milliseconds(flush.time),
        flush_errors: flush.failed,
    }
}

fn nic(nic: &NicStats) -> wire::NicStats {
    let counters = nic.counted.as_ref().ok().map(|(_, counters)| *counters);
    let source = nic.counted.as_ref().ok().map(|(source, _)| match source {
        Source::Host => "host",
        Source::Agent => "agent",
    });
    wire::NicStats {
        id: nic.id.clone(),
        source: source.map(str::to_owned),
        reason: nic.counted.as_ref().err().cloned(),
        rx_bytes: counters.map(|c| c.rx_bytes),
        rx_packets: counters.map(|c| c.rx_packets),
        rx_errors: counters.map(|c| c.rx_errors),
        rx_dropped: counters.map(|c| c.rx_dropped),
        tx_bytes: counters.map(|c| c.tx_bytes),
        tx_packets: counters.map(|c| c.tx_packets),
        tx_errors: counters.map(|c| c.tx_errors),
        tx_dropped: counters.map(|c| c.tx_dropped),
    }
}
