//! QEMU dies while something waits: whatever it is, it ends with QEMU, and says so.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::guest_exec::with_agent;
use crate::support::boot_sector::Guest;
use crate::support::chance::{Chance, repetitions};
use crate::support::processes::{eventually, qemu_of, send};
use crate::support::sandbox::{Done, Sandbox};

/// What is promised, on a machine with nothing else to do.
const PROMISED: Duration = Duration::from_millis(50);
/// What a machine that runs other tests meanwhile may add: enough for any delay but that of a timer that had to run out.
const BUSY_MACHINE: Duration = Duration::from_millis(950);

/// A command that waits for something that does not come.
struct Waiting {
    what: String,
    code: i32,
    words: &'static str,
    end: JoinHandle<(Done, Instant)>,
}

/// Starts it, and returns when it sleeps with its question asked.
fn start(mut command: Command, code: i32, words: &'static str) -> Waiting {
    let what: Vec<OsString> = command.get_args().map(ToOwned::to_owned).collect();
    let what = what.join(" ".as_ref()).to_string_lossy().into_owned();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("it waits for its answer", || sleeps_at_a_socket(&child));
    let end = std::thread::spawn(move || {
        let done = Done::of(child.wait_with_output().unwrap());
        (done, Instant::now())
    });
    Waiting { what, code, words, end }
}

fn sleeps_at_a_socket(child: &Child) -> bool {
    let process = Path::new("/proc").join(child.id().to_string());
    let state = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    let asleep = state.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'));
    let files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    asleep && links.into_iter().any(|link| link.to_string_lossy().starts_with("socket:"))
}

/// Kills QEMU and checks how, and when, each of them ends.
#[track_caller]
fn all_end(sandbox: &Sandbox, waiting: Vec<Waiting>) {
    let qemu = i32::try_from(sandbox.ctl_json(["status"])["qemu_pid"].as_i64().unwrap()).unwrap();
    let killed = Instant::now();
    send(qemu, Signal::SIGKILL);
    let mut worst = Duration::ZERO;
    for Waiting { what, code, words, end } in waiting {
        let (done, ended) = end.join().unwrap();
        let took = ended.saturating_duration_since(killed);
        println!("{:6.1} ms  {what}", took.as_secs_f64() * 1000.0);
        assert_eq!(done.code, code, "{what}: {done:#?}");
        assert!(done.stderr.contains(words), "{what}: no '{words}' in {done:#?}");
        worst = worst.max(took);
    }
    assert!(worst <= PROMISED + BUSY_MACHINE, "the last ended after {worst:?}");
}

#[test]
fn what_asks_the_guest_ends_with_qemu() {
    let vm = with_agent(&["--name", "doomed"]);
    let big = vm.file("big");
    std::fs::File::create(&big).unwrap().set_len(1 << 30).unwrap();
    let ctl = |arguments: &[&str], code, words| {
        let mut command = vm.sandbox.vmrun();
        command.arg("ctl").args(arguments);
        start(command, code, words)
    };
    let plain = |arguments: &[&str]| {
        let mut command = vm.sandbox.vmrun();
        command.args(arguments);
        start(command, 0, "")
    };
    let ended = "ended";
    let waiting = vec![
        ctl(&["wait", "console=never"], 3, ended),
        ctl(&["wait", "--any", "event=NEVER", "paused", "--timeout", "1h"], 3, ended),
        ctl(&["wait", "port=4321"], 3, ended),
        ctl(&["wait", "exit"], 11, ""),
        ctl(&["exec", "sleep", "4326"], 3, ended),
        ctl(&["copy-to", "big", "/tmp/big"], 3, ended),
        ctl(&["copy-from", "/dev/zero", "zeros"], 3, ended),
        ctl(&["type", &"a".repeat(1000), "--delay", "1s"], 3, ended),
        ctl(&["events"], 0, ""),
        plain(&["logs", "--follow"]),
    ];
    all_end(&vm.sandbox, waiting);
    let left: Vec<_> =
        std::fs::read_dir(vm.sandbox.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("zeros")), "{left:?}");
    let (end, sandbox) = vm.end();
    assert_eq!(end.code(), 11, "{end:?}");
    sandbox.is_clean();
}

#[test]
fn what_asks_the_machine_ends_with_qemu() {
    let sandbox = Sandbox::new();
    let vm = sandbox.foreground([sandbox.boot_sector(Guest::IgnoresButton)]);
    vm.wait_for(Guest::IgnoresButton.greeting());
    let disk = sandbox.ctl(["disk-add", "data.qcow2,size=1M"]).line();
    let ctl = |arguments: &[&str], code, words| {
        let mut command = sandbox.vmrun();
        command.arg("ctl").args(arguments);
        start(command, code, words)
    };
    let waiting = vec![
        ctl(&["disk-remove", &disk, "--timeout", "1h"], 3, "ended"),
        ctl(&["shutdown", "--timeout", "1h"], 11, ""),
    ];
    all_end(&sandbox, waiting);
    assert_eq!(vm.end().code(), 11);
    sandbox.is_clean();
}

/// The real QEMU, killed at a random moment: the file and the outcome always agree, and nothing is left of an incomplete file.
#[test]
fn a_save_that_is_cut_off_has_one_of_two_ends() {
    let mut chance = Chance::new();
    let mut saved = 0;
    let rounds = repetitions(8);
    for round in 0..rounds {
        let sandbox = Sandbox::new();
        let vm = sandbox.foreground([sandbox.boot_sector(Guest::IgnoresButton)]);
        vm.wait_for(Guest::IgnoresButton.greeting());
        let qemu = qemu_of(sandbox.path());
        let mut command = sandbox.vmrun();
        command.args(["ctl", "save", "vm.saved"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let saving = command.spawn().unwrap();
        std::thread::sleep(chance.delay(Duration::from_millis(300)));
        let killed = round % 2 == 0;
        match killed {
            // it may have ended by itself
            true => drop(nix::sys::signal::kill(nix::unistd::Pid::from_raw(qemu), Signal::SIGKILL)),
            false => drop(sandbox.ctl(["shutdown", "--timeout", "100ms"])),
        }
        let done = Done::of(saving.wait_with_output().unwrap());
        let ended = vm.end();
        let outcome = sandbox.outcome();
        let what = format!("killed: {killed}, {done:?}, {outcome}");
        let whole = sandbox.file("vm.saved").exists();
        saved += u32::from(whole);
        assert!(!sandbox.file("vm.saved.part").exists(), "{what}");
        assert_eq!(whole, outcome["ending"] == "saved", "{what}");
        let code = if whole {
            0
        } else if killed {
            11
        } else {
            12
        };
        assert_eq!(ended.code(), code, "{what}");
        assert!(matches!((done.code, whole), (0, true) | (3 | 4, false)), "{what}");
        sandbox.is_clean();
        if whole {
            sandbox.detached(["--restore", "vm.saved"]);
            sandbox.ctl(["shutdown", "--force"]);
        }
    }
    println!("{saved} of {rounds} were saved");
}
