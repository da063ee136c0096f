//! Fifty forks of one template, and commands and copies in forks.

use std::process::Stdio;

use super::boot::ready;
use super::idle::pss_megabytes;
use super::linuxkit::{self, LINUXKIT, Options};
use super::measure::{Series, in_turn_after, time, time_of, warm_up};
use super::qemu::CommandLine;
use super::report::{Beside, Goal, Row};
use super::support::boot_sector::Guest;
use super::support::processes;
use super::support::sandbox::{Sandbox, linux_guest};

const RUNS: usize = 10;
const FORKS: usize = 50;
const MEMORY: [&str; 2] = ["--mem", "512"];
/// What the VM has in memory beyond what it needs itself, so that about 150 MB are copied.
const FILLED: &str = "head -c 60000000 /dev/urandom > /tmp/filled";

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = many();
    rows.extend(runs());
    rows.push(pause());
    rows
}

fn many() -> Vec<Row> {
    let sandbox = Sandbox::new();
    let guest = linux_guest();
    let boot = ["qemu", "--detached", "--ephemeral", "--forkable", "--name", "base", "--wait", "agent"];
    sandbox.run(boot.iter().chain(&MEMORY).chain(&[guest.to_str().unwrap()])).ok();
    sandbox.ctl(["freeze", "template"]).ok();
    let image = sandbox.boot_sector(Guest::Halted);
    let command_line = CommandLine::of(&sandbox, &MEMORY, &image);
    // in turn, so that a machine that gets slower gets slower for both
    let (mut ours, mut theirs, mut bare) = (0.0, 0.0, Vec::new());
    for number in 0..FORKS {
        let words = ["qemu", "--detached", "--paused", "--from", "template", "--name"];
        ours += time_of(sandbox.vmrun().args(words).arg(format!("fork{number}")));
        let folder = sandbox.file(format!("bare{number}"));
        std::fs::create_dir(&folder).unwrap();
        // an image may be open only once
        let own = sandbox.file(format!("bare{number}.img"));
        std::fs::copy(&image, &own).unwrap();
        let command_line = command_line.clone().with_image(&image, &own);
        theirs += time(|| {
            let started = command_line.start(&folder, Stdio::null());
            drop(started.monitor());
            bare.push(started);
        });
    }
    // our QEMUs and their supervisors
    let bare_pids: Vec<i32> = bare.iter().map(|bare| bare.child.id().cast_signed()).collect();
    let all = processes::of(sandbox.path()).into_iter().map(|process| process.pid);
    let own: Vec<i32> = all.filter(|pid| !bare_pids.contains(pid)).collect();
    let megabytes = |pids: &[i32]| Series::exactly(pss_megabytes(pids) / FORKS as f64);
    let (own, theirs_megabytes) = (megabytes(&own), megabytes(&bare_pids));
    for number in 0..FORKS {
        sandbox.ctl(["--vm", &format!("fork{number}"), "shutdown", "--force"]);
    }
    let rate = |milliseconds: f64| Series::exactly(FORKS as f64 * 1e3 / milliseconds);
    let beside = |series| Beside::Peer("QEMU, same arguments, paused", series);
    vec![
        Row::new("50 forks: starts", "/s", &rate(ours), beside(rate(theirs)), Goal::TimesTheRate(0.7)),
        Row::new(
            "50 forks: memory of each (PSS), supervisor included",
            "MB",
            &own,
            beside(theirs_megabytes),
            Goal::TimesTheTime(1.3),
        ),
    ]
}

fn runs() -> Vec<Row> {
    let sandbox = Sandbox::new();
    let guest = linux_guest();
    let mut run = || {
        let words = ["run", "--mem", "1024"];
        time_of(sandbox.vmrun().args(words).arg(&guest).args(["--", "true"]).stderr(Stdio::null()))
    };
    let mut boot = || {
        time(|| {
            let options = Options { prefix: &guest, folder: sandbox.path(), disk: None, port: None };
            ready(&mut linuxkit::start(&options).0);
        })
    };
    let [run, boot] = in_turn_after(warm_up, RUNS, [&mut run, &mut boot]);
    let beside = Beside::Peer(LINUXKIT, boot);
    vec![Row::new("vmrun run -- true, beside a boot", "ms", &run, beside, Goal::TimesFaster(8.0))]
}

fn pause() -> Row {
    let sandbox = Sandbox::new();
    let guest = linux_guest();
    let boot = ["qemu", "--detached", "--ephemeral", "--forkable", "--name", "base", "--wait", "agent"];
    sandbox.run(boot.iter().chain(&MEMORY).chain(&[guest.to_str().unwrap()])).ok();
    sandbox.ctl(["exec", "--", "sh", "-c", FILLED]).ok();
    let mut pause = || {
        let made = sandbox.ctl_json(["--vm", "base", "fork", "--name", "fork"]);
        sandbox.ctl(["--vm", "fork-1", "shutdown", "--force"]);
        made["paused_ms"].as_f64().unwrap()
    };
    let [pause] = in_turn_after(warm_up, RUNS, [&mut pause]);
    Row::new("ctl fork: the VM's pause, 150 MB resident", "ms", &pause, Beside::Nobody, Goal::AtMost(150.0))
}
