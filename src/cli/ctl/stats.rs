//! `stats`.

use std::time::Duration;

use clap::Args;

use crate::control::{verbs, wire};
use crate::machine;
use crate::spec::duration;

use super::super::failure::Failure;
use super::super::output::{
    Lines, Stdout, bytes, end_with_reader, facts, milliseconds, stdout_can_redraw, table,
};
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Stats {
    /// Repeat at an interval, until the VM ends
    #[arg(long, value_name = "INTERVAL", value_parser = duration::parse, num_args = 0..=1, default_missing_value = "1s")]
    watch: Option<Duration>,
}

impl Verb for Stats {
    const ABOUT: &'static str =
        "Print the VM's resource usage: processor time, memory, I/O of disks and network cards";
    const WAITS_FOR: &'static str = "waiting for the VM's supervisor";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let Some(interval) = self.watch else {
            let verbs::StatsReply { stats } = context.call(verbs::GetStats {})?;
            return context.output.print(&stats, || as_text(&stats, None));
        };
        let interval_ms = Some(machine::milliseconds(interval));
        end_with_reader();
        let output = context.output;
        let mut stdout = Stdout::default();
        let call = verbs::WatchStats { interval_ms };
        let redraws = !output.json && stdout_can_redraw();
        let mut before: Option<wire::Stats> = None;
        context.client.stream(call, |reply: verbs::StatsReply| {
            let text = || as_text(&reply.stats, before.as_ref());
            let goes_on = match redraws {
                true => stdout.redraw(text()),
                false => stdout.print(output, &reply.stats, || {
                    let mut text = text();
                    text.push(Lines::text("\n"));
                    text
                }),
            };
            before = Some(reply.stats);
            goes_on
        })?;
        stdout.finish()
    }
}

/// The counters, with what they have grown by in each second since the sample before.
fn as_text(stats: &wire::Stats, before: Option<&wire::Stats>) -> Lines {
    let since =
        Since { before, ms: before.map_or(0, |before| stats.uptime_ms.saturating_sub(before.uptime_ms)) };
    let vcpu = |vcpu: &wire::VcpuStats| format!("{}: {}", vcpu.number, milliseconds(vcpu.cpu_time_ms));
    let vcpus: Vec<String> = stats.vcpus.iter().map(vcpu).collect();
    let mut text = facts(&[
        ("uptime", Some(milliseconds(stats.uptime_ms))),
        ("cpu time", Some(milliseconds(stats.cpu_time_ms))),
        (
            "cpu load",
            since
                .rate(stats.cpu_time_ms, |before| Some(before.cpu_time_ms))
                .map(|ms| format!("{} %", ms / 10)),
        ),
        ("vcpus", (!vcpus.is_empty()).then(|| vcpus.join(", "))),
        ("resident", Some(bytes(stats.resident_bytes))),
        ("shared with the template", stats.shared_bytes.map(bytes)),
        ("its own", stats.own_bytes.map(bytes)),
        ("memory", Some(bytes(stats.memory_bytes))),
        ("balloon", stats.balloon_bytes.map(bytes)),
    ]);
    if !stats.disks.is_empty() {
        text.section("disks", disks(&stats.disks, since));
    }
    if !stats.nics.is_empty() {
        text.section("network cards", nics(&stats.nics, since));
    }
    text
}

/// The sample before, and how long ago it was.
#[derive(Clone, Copy)]
struct Since<'a> {
    before: Option<&'a wire::Stats>,
    ms: u64,
}

impl Since<'_> {
    /// How much a counter has grown by in each second; `None` without an earlier value.
    fn rate(self, now: u64, earlier: impl FnOnce(&wire::Stats) -> Option<u64>) -> Option<u64> {
        // a counter of the guest's begins anew with a reset
        let grown = now.saturating_sub(earlier(self.before?)?);
        (self.ms > 0).then(|| grown.saturating_mul(1000) / self.ms)
    }

    /// A number of bytes, with its rate.
    fn bytes(self, now: u64, earlier: impl FnOnce(&wire::Stats) -> Option<u64>) -> String {
        match self.rate(now, earlier) {
            Some(rate) => format!("{} ({}/s)", bytes(now), bytes(rate)),
            None => bytes(now),
        }
    }
}

fn disks(disks: &[wire::DiskStats], since: Since) -> Lines {
    let rows = disks.iter().map(|disk| {
        let earlier = |stats: &wire::Stats| stats.disks.iter().find(|other| other.id == disk.id).cloned();
        [
            disk.id.clone(),
            since.bytes(disk.read_bytes, |stats| earlier(stats).map(|disk| disk.read_bytes)),
            disk.read_operations.to_string(),
            milliseconds(disk.read_time_ms),
            since.bytes(disk.write_bytes, |stats| earlier(stats).map(|disk| disk.write_bytes)),
            disk.write_operations.to_string(),
            milliseconds(disk.write_time_ms),
            (disk.read_errors + disk.write_errors + disk.flush_errors).to_string(),
        ]
    });
    table(["ID", "READ", "READS", "TIME", "WRITTEN", "WRITES", "TIME", "ERRORS"], rows)
}

fn nics(nics: &[wire::NicStats], since: Since) -> Lines {
    let rows = nics.iter().map(|nic| {
        let earlier = |stats: &wire::Stats| stats.nics.iter().find(|other| other.id == nic.id).cloned();
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let lost = [nic.rx_errors, nic.rx_dropped, nic.tx_errors, nic.tx_dropped];
        let lost: Option<u64> = lost.into_iter().sum();
        [
            nic.id.clone(),
            nic.rx_bytes.map(|now| since.bytes(now, |stats| earlier(stats)?.rx_bytes)).unwrap_or_default(),
            number(nic.rx_packets),
            nic.tx_bytes.map(|now| since.bytes(now, |stats| earlier(stats)?.tx_bytes)).unwrap_or_default(),
            number(nic.tx_packets),
            number(lost),
            nic.source.clone().or(nic.reason.clone()).unwrap_or_default(),
        ]
    });
    table(["ID", "RECEIVED", "PACKETS", "SENT", "PACKETS", "LOST", "SOURCE"], rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample(uptime_ms: u64, factor: u64) -> wire::Stats {
        let disk = json!({
            "id": "disk0", "read_bytes": 1024 * factor, "read_operations": factor, "read_time_ms": 0, "read_errors": 0,
            "write_bytes": 0, "write_operations": 0, "write_time_ms": 0, "write_errors": 0,
            "flush_operations": 0, "flush_time_ms": 0, "flush_errors": 0
        });
        serde_json::from_value(json!({
            "time_unix_ms": 0, "uptime_ms": uptime_ms, "cpu_time_ms": 100 * factor, "resident_bytes": 0, "memory_bytes": 0,
            "vcpus": [], "disks": [disk], "nics": []
        }))
        .unwrap()
    }

    #[test]
    fn rates_are_those_since_the_sample_before() {
        let (first, second) = (sample(1000, 1), sample(3000, 11));
        let text = |before| {
            let mut stdout = String::new();
            for line in format!("{:?}", as_text(&second, before)).split("\\n") {
                stdout += &format!("{line}\n");
            }
            stdout
        };
        let with = text(Some(&first));
        assert!(
            with.contains("50 %") && with.contains("11 KiB (5 KiB/s)") && with.contains("0 B (0 B/s)"),
            "{with}"
        );
        let without = text(None);
        assert!(
            without.contains("11 KiB") && !without.contains("/s") && !without.contains("load"),
            "{without}"
        );
        // a counter that began anew has not gone backwards
        assert!(format!("{:?}", as_text(&first, Some(&second))).contains("1 KiB"));
    }
}
