//! From the start of the program to a VM that can be talked to.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Instant;

use super::libvirt::{Libvirt, VIRSH};
use super::measure::{RUNS, in_turn, in_turn_after, milliseconds, time_of, warm_up};
use super::qemu::CommandLine;
use super::report::{Beside, Goal, Row};
use super::support::boot_sector::Guest;
use super::support::sandbox::Sandbox;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = to_monitor();
    rows.extend(to_status());
    rows
}

/// Until QMP has been negotiated; the guest's processors do not run yet.
fn to_monitor() -> Vec<Row> {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let command_line = CommandLine::of(&sandbox, &[], &image);
    let mut vmrun = || {
        let mut command = sandbox.vmrun();
        command.args(["qemu", "-v"]).arg(&image).stdout(Stdio::null()).stderr(Stdio::piped());
        let begun = Instant::now();
        let mut child = command.spawn().unwrap();
        let ready = ready(&mut child, begun);
        sandbox.ctl(["shutdown", "--force"]);
        child.wait().unwrap();
        ready
    };
    let mut bare = || until_qmp(&sandbox, &command_line);
    let [ours, limit] = in_turn(2 * RUNS, [&mut vmrun, &mut bare]);
    let beside = Beside::Peer("QEMU, same arguments", limit);
    let row = |goal| Row::new("start until QMP is ready", "ms", &ours, beside.clone(), goal);
    vec![row(Goal::AtMostMore(5.0)), row(Goal::TimesTheTime(1.15))]
}

/// QEMU by itself, with our arguments.
pub(crate) fn until_qmp(sandbox: &Sandbox, command_line: &CommandLine) -> f64 {
    let begun = Instant::now();
    let bare = command_line.start(sandbox.path(), Stdio::null());
    let _monitor = bare.monitor();
    milliseconds(begun.elapsed())
}

/// It says so on stderr, and then goes on.
fn ready(child: &mut Child, begun: Instant) -> f64 {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains("QEMU answers")).expect("it starts");
    let taken = milliseconds(begun.elapsed());
    // whoever writes to a pipe that nobody reads gets an error
    std::thread::spawn(move || lines.for_each(drop));
    taken
}

/// Until a second command has told the VM's state. Ours runs by then, libvirt's is paused.
fn to_status() -> Vec<Row> {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let libvirt = Libvirt::start(&image);
    let mut vmrun = || {
        let taken = time_of(sandbox.vmrun().args(["qemu", "--detached"]).arg(&image))
            + time_of(sandbox.vmrun().args(["ctl", "status"]));
        sandbox.ctl(["shutdown", "--force"]);
        taken
    };
    let command_line = CommandLine::of(&sandbox, &[], &image);
    let mut bare = || until_qmp(&sandbox, &command_line);
    let mut virsh = || {
        let Some(libvirt) = &libvirt else { return f64::NAN };
        let taken = time_of(&mut libvirt.virsh(&["start", "--paused", "peer"]))
            + time_of(&mut libvirt.virsh(&["domstate", "peer"]));
        libvirt.run(&["destroy", "peer"]);
        // it is busy with the end of a domain for a while, which would be the next one's loss
        libvirt.settles();
        taken
    };
    let [ours, bare, theirs] = in_turn_after(warm_up, RUNS, [&mut vmrun, &mut bare, &mut virsh]);
    let beside = libvirt.as_ref().map_or(Beside::Missing(VIRSH), |_| Beside::Peer(VIRSH, theirs));
    vec![
        Row::new("start and status", "ms", &ours, beside.clone(), Goal::TimesFaster(8.0)),
        Row::new("start, QEMU alone", "ms", &bare, beside, Goal::None),
    ]
}
