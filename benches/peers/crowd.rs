//! Two hundred VMs at once.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use super::measure::{RUNS, Series, milliseconds, time, time_of};
use super::qemu::{Bare, CommandLine};
use super::report::{Beside, Goal, Row};
use super::support::boot_sector::Guest;
use super::support::sandbox::Sandbox;

const BATCHES: usize = 10;
const BATCH: usize = 20;

pub(crate) fn rows() -> Vec<Row> {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let command_line = CommandLine::of(&sandbox, &["--mem", "64"], &image);
    // each its own, since an image may be open only once
    (0..BATCHES * BATCH).for_each(|number| copy(&sandbox, &image, &name(number)));
    (0..BATCH).for_each(|number| copy(&sandbox, &image, &format!("bare{number}")));

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for batch in 0..BATCHES {
        ours.push(rate((0..BATCH).map(|number| start(&sandbox, &name(batch * BATCH + number)))));
        // beside as many VMs as ours; gone again before the next of ours
        let mut started = Vec::new();
        bare.push(rate((0..BATCH).map(|number| {
            let (taken, qemu) = start_bare(&sandbox, &command_line, &image, &format!("bare{number}"));
            started.push(qemu);
            taken
        })));
    }
    // a machine with more VMs on it is slower for everyone: what counts is whether we get slower beside QEMU
    let ratios: Vec<f64> = ours.iter().zip(&bare).map(|(ours, bare)| ours / bare).collect();
    let (first, second) = ratios.split_at(BATCHES / 2);
    let linear = Series::new(second.to_vec()).median() / Series::new(first.to_vec()).median();

    let ls = Series::new((0..=RUNS).map(|_| time_of(sandbox.vmrun().arg("ls"))).skip(1).collect());
    let status = all(|name| time_of(sandbox.vmrun().args(["ctl", "--vm", name, "status"])));
    let shutdown = all(|name| {
        time(|| {
            sandbox.ctl(["--vm", name, "shutdown", "--force"]).ok();
        })
    });
    let beside = Beside::Peer("QEMU, same arguments", Series::new(bare));
    let row = |figure, unit, ours: &Series, goal| Row::new(figure, unit, ours, Beside::Nobody, goal);
    vec![
        Row::new("200 VMs: starts", "/s", &Series::new(ours), beside, Goal::TimesTheRate(0.9)),
        row(
            "200 VMs: starts of the second 100 per first 100",
            "×",
            &Series::exactly(linear),
            Goal::AtLeast(0.9),
        ),
        row("200 VMs: ls", "ms", &ls, Goal::AtMost(60.0)),
        row("200 VMs: ctl status of each", "ms", &status, Goal::AtMost(3.0)),
        row("200 VMs: ctl shutdown --force of each", "ms", &shutdown, Goal::None),
    ]
}

fn copy(sandbox: &Sandbox, image: &Path, name: &str) {
    std::fs::copy(image, sandbox.file(format!("{name}.img"))).unwrap();
    std::fs::create_dir(sandbox.file(name)).unwrap();
}

/// Milliseconds until it runs; then it is paused, for two hundred that boot would leave nothing to measure with.
fn start(sandbox: &Sandbox, name: &str) -> f64 {
    let mut command = sandbox.vmrun();
    command.args(["qemu", "--detached", "--mem", "64", "--name", name]).arg(format!("{name}.img"));
    let taken = time_of(&mut command);
    sandbox.ctl(["--vm", name, "pause"]).ok();
    taken
}

/// Milliseconds until its monitor is ready; its guest does not run.
fn start_bare(sandbox: &Sandbox, command_line: &CommandLine, image: &Path, name: &str) -> (f64, Bare) {
    let command_line = command_line.clone().with_image(image, &sandbox.file(format!("{name}.img")));
    let begun = Instant::now();
    let bare = command_line.start(&sandbox.file(name), Stdio::null());
    let _monitor = bare.monitor();
    (milliseconds(begun.elapsed()), bare)
}

fn name(number: usize) -> String {
    format!("vm{number}")
}

fn all(one: impl Fn(&str) -> f64) -> Series {
    Series::new((0..BATCHES * BATCH).map(|number| one(&name(number))).collect())
}

/// How many a second, one after the other.
fn rate(times: impl Iterator<Item = f64>) -> f64 {
    BATCH as f64 * 1e3 / times.sum::<f64>()
}
