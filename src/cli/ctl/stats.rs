//! `stats`.

use std::time::Duration;

use clap::Args;

use crate::control::{verbs, wire};
use crate::machine;
use crate::spec::duration;

use super::super::failure::Failure;
use super::super::output::{Lines, Stdout, bytes, end_with_reader, facts, milliseconds, table};
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

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let Some(interval) = self.watch else {
            let verbs::StatsReply { stats } = context.client.call(verbs::GetStats {})?;
            return context.output.print(&stats, || as_text(&stats));
        };
        let interval_ms = Some(machine::milliseconds(interval));
        end_with_reader();
        let output = context.output;
        let mut stdout = Stdout::default();
        let call = verbs::WatchStats { interval_ms };
        context.client.stream(call, |reply: verbs::StatsReply| {
            stdout.print(output, &reply.stats, || {
                let mut text = as_text(&reply.stats);
                text.push(Lines::text("\n"));
                text
            })
        })?;
        stdout.finish()
    }
}

fn as_text(stats: &wire::Stats) -> Lines {
    let vcpu = |vcpu: &wire::VcpuStats| format!("{}: {}", vcpu.number, milliseconds(vcpu.cpu_time_ms));
    let vcpus: Vec<String> = stats.vcpus.iter().map(vcpu).collect();
    let mut text = facts(&[
        ("uptime", Some(milliseconds(stats.uptime_ms))),
        ("cpu time", Some(milliseconds(stats.cpu_time_ms))),
        ("vcpus", (!vcpus.is_empty()).then(|| vcpus.join(", "))),
        ("resident", Some(bytes(stats.resident_bytes))),
        ("shared with the template", stats.shared_bytes.map(bytes)),
        ("its own", stats.own_bytes.map(bytes)),
        ("memory", Some(bytes(stats.memory_bytes))),
        ("balloon", stats.balloon_bytes.map(bytes)),
    ]);
    if !stats.disks.is_empty() {
        text.section("disks", disks(&stats.disks));
    }
    if !stats.nics.is_empty() {
        text.section("network cards", nics(&stats.nics));
    }
    text
}

fn disks(disks: &[wire::DiskStats]) -> Lines {
    let rows = disks.iter().map(|disk| {
        [
            disk.id.clone(),
            bytes(disk.read_bytes),
            disk.read_operations.to_string(),
            milliseconds(disk.read_time_ms),
            bytes(disk.write_bytes),
            disk.write_operations.to_string(),
            milliseconds(disk.write_time_ms),
            (disk.read_errors + disk.write_errors + disk.flush_errors).to_string(),
        ]
    });
    table(["ID", "READ", "READS", "TIME", "WRITTEN", "WRITES", "TIME", "ERRORS"], rows)
}

fn nics(nics: &[wire::NicStats]) -> Lines {
    let rows = nics.iter().map(|nic| {
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let lost = [nic.rx_errors, nic.rx_dropped, nic.tx_errors, nic.tx_dropped];
        let lost: Option<u64> = lost.into_iter().sum();
        [
            nic.id.clone(),
            nic.rx_bytes.map(bytes).unwrap_or_default(),
            number(nic.rx_packets),
            nic.tx_bytes.map(bytes).unwrap_or_default(),
            number(nic.tx_packets),
            number(lost),
            nic.source.clone().or(nic.reason.clone()).unwrap_or_default(),
        ]
    });
    table(["ID", "RECEIVED", "PACKETS", "SENT", "PACKETS", "LOST", "SOURCE"], rows)
}
