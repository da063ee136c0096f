//! Forks of a booted VM.

use super::measure::{in_turn_after, time, time_of, warm_up};
use super::qemu::CommandLine;
use super::report::{Beside, Goal, Row};
use super::start::until_qmp;
use super::support::boot_sector::Guest;
use super::support::sandbox::{Sandbox, linux_guest};

/// A cold boot takes seconds.
const RUNS: usize = 10;
const MEMORY: [&str; 2] = ["--mem", "512"];

pub(crate) fn rows() -> Vec<Row> {
    let sandbox = Sandbox::new();
    let guest = linux_guest();
    let guest = guest.to_str().unwrap();
    let boot = ["qemu", "--detached", "--ephemeral", "--forkable", "--name", "base", "--wait", "agent"];
    sandbox.run(boot.iter().chain(&MEMORY).chain(&[guest])).ok();
    let mut freeze = || {
        let taken = time(|| drop(sandbox.ctl(["freeze", "--keep-running", "again"]).ok()));
        std::fs::remove_dir_all(sandbox.file("again")).unwrap();
        taken
    };
    let [freeze] = in_turn_after(warm_up, RUNS, [&mut freeze]);
    sandbox.ctl(["freeze", "template"]).ok();

    let from = ["qemu", "--detached", "--name", "fork", "--from", "template"];
    let image = sandbox.boot_sector(Guest::Halted);
    let command_line = CommandLine::of(&sandbox, &MEMORY, &image);
    let mut fork = || {
        let taken = time_of(sandbox.vmrun().args(from));
        sandbox.ctl(["shutdown", "--force"]);
        taken
    };
    let mut bare = || until_qmp(&sandbox, &command_line);
    let mut forked_command = || {
        let taken = time(|| {
            sandbox.run(from).ok();
            sandbox.ctl(["exec", "--", "true"]).ok();
        });
        sandbox.ctl(["shutdown", "--force"]);
        taken
    };
    let mut booted_command = || {
        let words = ["qemu", "--detached", "--ephemeral", "--name", "boot", "--wait", "agent"];
        let taken = time(|| {
            sandbox.run(words.iter().chain(&MEMORY).chain(&[guest])).ok();
            sandbox.ctl(["exec", "--", "true"]).ok();
        });
        sandbox.ctl(["shutdown", "--force"]);
        taken
    };
    let measured: [&mut dyn FnMut() -> f64; 4] =
        [&mut fork, &mut bare, &mut forked_command, &mut booted_command];
    let [fork, bare, forked_command, booted_command] = in_turn_after(warm_up, RUNS, measured);
    let beside_bare = Beside::Peer("QEMU, until QMP is ready", bare);
    let beside_boot = Beside::Peer("a boot", booted_command);
    vec![
        Row::new("start of a fork, whole process", "ms", &fork, beside_bare, Goal::TimesTheTime(2.0)),
        Row::new("fork and a command in it", "ms", &forked_command, beside_boot, Goal::TimesFaster(12.0)),
        Row::new("ctl freeze --keep-running", "ms", &freeze, Beside::Nobody, Goal::None),
    ]
}
