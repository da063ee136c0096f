//! A whole boot: from the start of the program until Linux in the VM is ready.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::linuxkit::{self, LINUXKIT, Options};
use super::measure::{in_turn_after, milliseconds, warm_up};
use super::report::{Beside, Goal, Row};
use super::support::sandbox::{PATIENCE, Sandbox, linux_guest};

/// Each takes seconds.
const RUNS: usize = 10;
/// The guest says this when its first process has set everything up.
const READY: &str = "vmrun-guest: ready";

pub(crate) fn rows() -> Vec<Row> {
    let sandbox = Sandbox::new();
    let prefix = guest(&sandbox);
    let mut ours = || vmrun(&sandbox, &prefix, &[]);
    let mut microvm = || vmrun(&sandbox, &prefix, &["--machine", "microvm"]);
    let mut theirs = || {
        let begun = Instant::now();
        let options = Options { prefix: &prefix, folder: sandbox.path(), disk: None, port: None };
        let mut vm = linuxkit::start(&options);
        ready(&mut vm.0);
        milliseconds(begun.elapsed())
    };
    let bare = |machine: &str| {
        let begun = Instant::now();
        let mut vm = linuxkit::start_kernel(&prefix, machine);
        ready(&mut vm.0);
        milliseconds(begun.elapsed())
    };
    let (mut bare_q35, mut bare_microvm) = (|| bare("q35,sata=off"), || bare("microvm"));
    let measured: [&mut dyn FnMut() -> f64; 5] =
        [&mut ours, &mut theirs, &mut microvm, &mut bare_q35, &mut bare_microvm];
    let [ours, theirs, microvm, bare_q35, bare_microvm] = in_turn_after(warm_up, RUNS, measured);
    let beside = Beside::Peer(LINUXKIT, theirs);
    vec![
        Row::new("boot of Linux", "ms", &ours, beside.clone(), Goal::TimesFaster(1.2)),
        Row::new("boot of Linux, microvm", "ms", &microvm, beside.clone(), Goal::TimesFaster(1.4)),
        Row::new("boot of Linux, QEMU with no device at all", "ms", &bare_q35, beside.clone(), Goal::None),
        Row::new("boot of Linux, microvm with no device at all", "ms", &bare_microvm, beside, Goal::None),
    ]
}

/// The guest of the tests, told how fast its clock is: without that Linux measures it on a microvm, and where there is no KVM that
/// does not end every other time.
fn guest(sandbox: &Sandbox) -> PathBuf {
    let (from, to) = (linux_guest(), sandbox.file("guest"));
    let beside = |prefix: &Path, part: &str| PathBuf::from(format!("{}-{part}", prefix.display()));
    for part in ["kernel", "initrd.img"] {
        std::os::unix::fs::symlink(beside(&from, part), beside(&to, part)).unwrap();
    }
    let line = std::fs::read_to_string(beside(&from, "cmdline")).unwrap();
    std::fs::write(beside(&to, "cmdline"), format!("{} tsc_early_khz=1000000\n", line.trim_end())).unwrap();
    to
}

fn vmrun(sandbox: &Sandbox, prefix: &Path, options: &[&str]) -> f64 {
    let mut command = sandbox.vmrun();
    command.args(["qemu", "--state", "state"]).args(options).arg(prefix);
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    ready(&mut child);
    let taken = milliseconds(begun.elapsed());
    sandbox.ctl(["shutdown", "--force"]);
    child.wait().unwrap();
    taken
}

/// Reads until the guest is ready; what comes after that is read, too, so that it does not stop. A guest that hangs is killed.
pub(crate) fn ready(vm: &mut Child) {
    let mut console = BufReader::new(vm.stdout.take().unwrap());
    let pid = Pid::from_raw(vm.id().cast_signed());
    let (is_ready, waiting) = channel::<()>();
    std::thread::spawn(move || {
        if waiting.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    let mut line = Vec::new();
    while !String::from_utf8_lossy(&line).contains(READY) {
        line.clear();
        let read = console.read_until(b'\n', &mut line).unwrap();
        assert!(read > 0, "the VM ended, or hung for {} s, before it was ready", PATIENCE.as_secs());
    }
    drop(is_ready);
    std::thread::spawn(move || std::io::copy(&mut console, &mut std::io::sink()));
}
