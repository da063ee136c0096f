//! What a VM costs while nothing happens.

use std::fs;
use std::time::Duration;

use super::libvirt::Libvirt;
use super::measure::Series;
use super::report::{Beside, Goal, Row};
use super::support::boot_sector::Guest;
use super::support::sandbox::Sandbox;

const DAEMONS: &str = "libvirtd and virtlogd";
const WATCHED: Duration = Duration::from_secs(60);

pub(crate) fn rows() -> Vec<Row> {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    sandbox.detached(["--name".as_ref(), "vm".as_ref(), image.as_os_str()]);
    sandbox.booted("vm");
    let supervisor = sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap();
    let ours = [i32::try_from(supervisor).unwrap()];
    let libvirt = Libvirt::start(&image);
    let theirs = libvirt.as_ref().map(|libvirt| {
        libvirt.run(&["start", "peer"]);
        libvirt.daemons()
    });
    let beside = |look: fn(&[i32]) -> f64| match &theirs {
        Some(daemons) => Beside::Peer(DAEMONS, Series::exactly(look(daemons))),
        None => Beside::Missing(DAEMONS),
    };
    let row = |figure, unit, look: fn(&[i32]) -> f64, goal| {
        Row::new(figure, unit, &Series::exactly(look(&ours)), beside(look), goal)
    };
    let mut rows = vec![
        row("supervisor's memory (PSS)", "MB", pss_megabytes, Goal::AtMost(4.0)),
        row("supervisor's threads", "", threads, Goal::AtMost(1.0)),
    ];
    let before = (switches(&ours), theirs.as_deref().map(switches));
    std::thread::sleep(WATCHED);
    let after = (switches(&ours), theirs.as_deref().map(switches));
    let beside = match (before.1, after.1) {
        (Some(before), Some(after)) => Beside::Peer(DAEMONS, Series::exactly(after - before)),
        _ => Beside::Missing(DAEMONS),
    };
    let woken = Series::exactly(after.0 - before.0);
    rows.push(Row::new("wake-ups in 60 s", "", &woken, beside, Goal::AtMost(0.0)));
    rows
}

/// Memory, that which is shared with others counted in part.
pub(crate) fn pss_megabytes(pids: &[i32]) -> f64 {
    let kib = |pid: &i32| number(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
    pids.iter().map(kib).sum::<f64>() * 1024.0 / 1e6
}

fn threads(pids: &[i32]) -> f64 {
    pids.iter().map(|pid| number(&format!("/proc/{pid}/status"), "Threads:")).sum()
}

/// How often their threads were given a processor or had it taken away.
pub(crate) fn switches(pids: &[i32]) -> f64 {
    let tasks = pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten());
    tasks
        .map(|task| {
            let status = task.path().join("status");
            let of = |kind: &str| number(status.to_str().unwrap(), kind);
            of("voluntary_ctxt_switches:") + of("nonvoluntary_ctxt_switches:")
        })
        .sum()
}

/// The number behind a word at the beginning of a line.
fn number(file: &str, word: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find(|line| line.starts_with(word)).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}
