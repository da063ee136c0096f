//! How long after QEMU's end those know of it who wait for it.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use vmrun::host::sys::pidfd_open;

use super::line::Line;
use super::measure::{RUNS, Series, milliseconds};
use super::report::{Beside, Goal, Row};
use super::support::boot_sector::Guest;
use super::support::processes;
use super::support::sandbox::Sandbox;

pub(crate) fn rows() -> Vec<Row> {
    let sandbox = Sandbox::new();
    let (ours, event): (Vec<f64>, Vec<f64>) = (0..=RUNS).map(|_| shutdown(&sandbox)).skip(1).unzip();
    let beside = Beside::Peer("SHUTDOWN event until QEMU's end", Series::new(event));
    vec![Row::new(
        "QEMU's end until ctl shutdown returns",
        "ms",
        &Series::new(ours),
        beside,
        Goal::AtMost(10.0),
    )]
}

/// One guest that obeys the power button: from the end of QEMU's process to that of `ctl shutdown`, and from QEMU's event
/// to the end of its process.
fn shutdown(sandbox: &Sandbox) -> (f64, f64) {
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let monitor = sandbox.file("monitor");
    let options = ["--name", "vm", "--qmp"].map(std::ffi::OsStr::new);
    sandbox.detached(options.into_iter().chain([monitor.as_os_str(), image.as_os_str()]));
    sandbox.ctl(["wait", &format!("console={}", Guest::ReactsToButton.greeting())]).ok();
    let process = pidfd_open(Pid::from_raw(processes::qemu_of(sandbox.path()))).unwrap();
    let mut monitor = Line::qmp(&monitor);
    monitor.negotiate();
    std::thread::scope(|scope| {
        let event = scope.spawn(move || {
            monitor.wait_for("\"SHUTDOWN\"");
            Instant::now()
        });
        let end = scope.spawn(move || {
            let mut readable = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
            poll(&mut readable, PollTimeout::NONE).unwrap();
            Instant::now()
        });
        sandbox.ctl(["shutdown"]).ok();
        let returned = Instant::now();
        let (event, end) = (event.join().unwrap(), end.join().unwrap());
        (milliseconds(returned - end), milliseconds(end - event))
    })
}
