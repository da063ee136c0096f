//! What happens when a supervisor is killed: who goes on, who cleans up.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::boot_sector::Guest;
use crate::support::chance::{Chance, repetitions};
use crate::support::orphan::{detached, kill, kill_supervisor, lasting, shuts_down_clean};
use crate::support::processes::{self, Process, eventually, send, within};
use crate::support::sandbox::{Done, Foreground, Sandbox, wait_with_patience};

/// Until this long after its start a VM is killed at random: about when the guest has greeted on a busy machine.
const START: Duration = Duration::from_millis(1200);
/// Every other time until this: about when the guest's processors begin to run.
const EARLY: Duration = Duration::from_millis(150);

/// Uses all kinds of changes; leaves a keyboard, a disk and a forward.
fn drive(sandbox: &Sandbox) {
    sandbox.ctl(["usb-add", "usb-kbd", "--id", "keys"]).ok();
    sandbox.ctl(["disk-add", "data.qcow2,size=1M,id=data"]).ok();
    let port: u16 = sandbox.ctl(["port-add", "0:80"]).line().parse().unwrap();
    assert!(port > 0);
    sandbox.ctl(["pause"]).ok();
    assert_eq!(sandbox.ctl_json(["status"])["state"], "paused");
    sandbox.ctl(["resume"]).ok();
    let status = sandbox.ctl_json(["status"]);
    assert_eq!(status["state"], "running");
    assert_eq!(status["slots_used"], 2, "the USB controller and the disk: {status}");
}

/// QEMU's own word for how far it is; none if it is not there.
fn run_state(sandbox: &Sandbox) -> Option<String> {
    let mut monitor = UnixStream::connect(sandbox.runtime().join("orphan/qmp")).ok()?;
    monitor.write_all(b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-status\"}").ok()?;
    let messages = serde_json::Deserializer::from_reader(monitor).into_iter::<Value>();
    messages.map_while(Result::ok).find_map(|said| Some(said["return"]["status"].as_str()?.to_owned()))
}

#[test]
fn at_any_moment_of_a_detached_start_the_supervisor_can_be_killed() {
    let mut chance = Chance::new();
    let (mut taken_over, mut unborn) = (0, 0);
    for round in 0..repetitions(6) {
        let delay = chance.delay(if round % 2 == 0 { EARLY } else { START });
        println!("round {round}: killed after {delay:?}");
        let sandbox = Sandbox::new();
        let image = sandbox.boot_sector(Guest::ReactsToButton);
        let arguments = ["qemu", "--detached", "--name", "orphan", "--publish", "0:22"];
        let start = |stdio: fn() -> Stdio| {
            let mut command = sandbox.vmrun();
            command.args(arguments).arg(&image).stdout(stdio()).stderr(stdio());
            command.spawn().unwrap()
        };
        let mut launcher = start(Stdio::piped);
        let began = Instant::now();
        while began.elapsed() < delay {
            std::thread::sleep(Duration::from_millis(1));
        }
        // the supervisor leads a session of its own; before it exists there is nothing to kill
        let leads = |process: &Process| {
            let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(process.pid)));
            !process.is_qemu() && session.is_ok_and(|session| session.as_raw() == process.pid)
        };
        let supervisor = || {
            processes::of(sandbox.path()).into_iter().find(|process| leads(process)).map(|found| found.pid)
        };
        let mut found = None;
        eventually("there is a supervisor", || {
            found = supervisor();
            found.is_some()
        });
        kill(found.unwrap());
        let launched = wait_with_patience(&mut launcher).success();
        let log = std::fs::read_to_string(sandbox.file("guest-state/console.log")).unwrap_or_default();
        let run_state = run_state(&sandbox);
        let listed = sandbox.run(["ls", "--json"]).json();
        match listed[0]["name"].as_str() {
            Some(name) => {
                assert_eq!(name, "orphan");
                // nobody has compared yet what such a one has opened
                assert_ne!(run_state.as_deref(), Some("prelaunch"), "a guest was let run unseen");
                taken_over += 1;
            }
            None => {
                assert!(!launched && log.is_empty(), "a guest was lost: {launched} {log:?}");
                unborn += 1;
                // a child that the supervisor was just starting dies a moment after it, and has its lock until then
                eventually("the next command cleans up", || {
                    sandbox.run(["ls"]).ok();
                    std::fs::read_dir(sandbox.runtime()).into_iter().flatten().next().is_none()
                });
                sandbox.is_clean();
                let mut again = start(Stdio::null);
                assert!(wait_with_patience(&mut again).success());
            }
        }
        sandbox.booted("orphan");
        drive(&sandbox);
        // once more, with everything in the inventory
        let before = lasting(sandbox.ctl_json(["status"]));
        kill_supervisor(&sandbox);
        let after = sandbox.ctl(["--json", "status"]);
        if after.code != 0 {
            let outcome = std::fs::read_to_string(sandbox.file("guest-state/outcome.json"));
            panic!("{after:#?}, outcome {outcome:?}, left {:#?}", processes::of(sandbox.path()));
        }
        assert_eq!(lasting(after.json()), before);
        // this guest has no driver for anything
        eventually("it is known again that the guest has not taken what was plugged", || {
            let status = sandbox.ctl_json(["status"]);
            let disks = status["disks"].as_array().unwrap();
            disks.iter().any(|disk| disk["id"] == "data" && disk["taken"] == false)
        });
        sandbox.ctl(["usb-remove", "keys"]).ok();
        shuts_down_clean(&sandbox);
        let state: Vec<String> = std::fs::read_dir(sandbox.file("guest-state"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(!state.iter().any(|name| name.contains("overlay")), "{state:?}");
    }
    println!("taken over {taken_over}, nothing to take over {unborn}");
}

#[test]
fn at_any_moment_a_killed_foreground_vm_leaves_nothing() {
    let mut chance = Chance::new();
    for round in 0..repetitions(6) {
        let delay = chance.delay(if round % 2 == 0 { EARLY } else { START });
        println!("round {round}: killed after {delay:?}");
        let sandbox = Sandbox::new();
        let image = sandbox.boot_sector(Guest::IgnoresButton);
        let mut command = sandbox.vmrun();
        command.args(["qemu", "--ephemeral", "--name", "front"]).arg(&image);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut vm = command.spawn().unwrap();
        std::thread::sleep(delay);
        vm.kill().unwrap();
        vm.wait().unwrap();
        let gone = within(Duration::from_secs(1), || processes::of(sandbox.path()).is_empty());
        assert!(gone, "{:#?}", processes::of(sandbox.path()));
        if round % 4 >= 2 {
            assert_eq!(sandbox.run(["ls", "--json"]).json(), json!([]));
        }
        // the next start finds the name and the image free, and removes what was left
        {
            let mut command = sandbox.vmrun();
            command.args(["qemu", "--ephemeral", "--name", "front"]).arg(&image);
            let next = Foreground::start(command);
            next.wait_for(Guest::IgnoresButton.greeting());
            sandbox.ctl(["shutdown", "--force"]).ok();
            next.end();
            assert!(!sandbox.file("guest-state").exists(), "the overlay is gone");
        }
        assert_eq!(sandbox.run(["ls", "--json"]).json(), json!([]));
        sandbox.is_clean();
    }
}

#[test]
fn an_orphan_gets_one_supervisor_however_many_ask() {
    let sandbox = detached(Guest::ReactsToButton, &[]);
    for _ in 0..3 {
        kill_supervisor(&sandbox);
        let asking: Vec<Foreground> = (0..4)
            .map(|number| {
                let mut command = sandbox.vmrun();
                match number {
                    0 => command.args(["ls", "--json"]),
                    _ => command.args(["ctl", "--vm", "orphan", "--json", "status"]),
                };
                Foreground::start(command)
            })
            .collect();
        for asker in asking {
            let ended = asker.end();
            assert_eq!(ended.code(), 0, "{ended:#?}");
            let told: Value = serde_json::from_str(&ended.stdout).unwrap();
            let status = if told.is_array() { &told[0] } else { &told };
            assert_eq!(status["state"], "running", "{told}");
        }
        let supervisors = processes::of(sandbox.path()).into_iter().filter(|process| !process.is_qemu());
        assert_eq!(supervisors.count(), 1);
    }
    shuts_down_clean(&sandbox);
}

#[test]
fn when_qemu_is_dead_too_the_leftovers_go() {
    for way in ["ls", "ctl", "start"] {
        let sandbox = detached(Guest::ReactsToButton, &["--ephemeral"]);
        let qemu = processes::qemu_of(sandbox.path());
        let supervisor = sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap();
        kill(i32::try_from(supervisor).unwrap());
        kill(qemu);
        match way {
            "ls" => assert_eq!(sandbox.run(["ls", "--json"]).json(), json!([])),
            "ctl" => {
                let status = sandbox.ctl_json(["--vm", "orphan", "status"]);
                assert_eq!(status["outcome"]["ending"], "unknown", "{status}");
                assert_eq!(sandbox.run(["ls"]).line(), "");
            }
            _ => {
                let image = sandbox.file("guest.img");
                sandbox.detached(["--name", "orphan", "--ephemeral", image.to_str().unwrap()]);
                sandbox.booted("orphan");
                sandbox.ctl(["shutdown", "--timeout", "30s"]).ok();
            }
        }
        sandbox.is_clean();
        assert!(!sandbox.file("guest-state").exists(), "{way}: the overlay is gone");
    }
}

#[test]
fn a_vm_that_died_unwatched_has_an_outcome() {
    let sandbox = detached(Guest::ReactsToButton, &[]);
    let qemu = processes::qemu_of(sandbox.path());
    kill_supervisor(&sandbox);
    kill(qemu);
    assert_eq!(sandbox.run(["ls", "--json"]).json(), json!([]));
    let outcome = sandbox.outcome();
    assert_eq!((&outcome["ending"], &outcome["exit_code"]), (&"unknown".into(), &11.into()), "{outcome}");
}

#[test]
fn an_end_after_a_takeover_is_told_as_ever() {
    for (guest, code, ending) in [(Guest::PanicsOnButton, 10, "panicked"), (Guest::IgnoresButton, 12, "quit")]
    {
        let sandbox = detached(guest, &[]);
        kill_supervisor(&sandbox);
        let done = sandbox.ctl(["--json", "shutdown", "--timeout", "1s"]);
        assert_eq!(done.code, code, "{done:#?}");
        assert_eq!(sandbox.outcome()["ending"], ending);
        sandbox.is_clean();
    }
    let sandbox = detached(Guest::ReactsToButton, &[]);
    let qemu = processes::qemu_of(sandbox.path());
    kill_supervisor(&sandbox);
    let mut waiting = sandbox.vmrun();
    waiting.args(["ctl", "--vm", "orphan", "--json", "wait", "exit"]);
    let waiting = Foreground::start(waiting);
    eventually("the waiting one has taken it over", || {
        let list = sandbox.run(["ls", "--json"]).json();
        list[0]["state"] == "running"
    });
    send(qemu, Signal::SIGSEGV);
    let _ = waiting.end();
    let outcome = sandbox.outcome();
    assert_eq!(outcome["ending"], "crashed", "{outcome}");
    sandbox.is_clean();
}

#[test]
fn what_was_kept_after_a_panic_stays_so() {
    let sandbox = detached(Guest::PanicsOnButton, &["--on-panic", "pause"]);
    sandbox.ctl(["powerdown"]).ok();
    sandbox.ctl(["wait", "paused", "--timeout", "60s"]);
    eventually("it panics", || sandbox.ctl_json(["status"])["state"] == "panicked");
    let before = lasting(sandbox.ctl_json(["status"]));
    kill_supervisor(&sandbox);
    assert_eq!(lasting(sandbox.ctl_json(["status"])), before);
    let done = sandbox.ctl(["--json", "shutdown", "--force"]);
    assert_eq!(done.code, 10, "{done:#?}");
    sandbox.is_clean();
}

#[test]
fn an_orphans_name_is_taken_and_its_image_safe() {
    let sandbox = detached(Guest::ReactsToButton, &[]);
    kill_supervisor(&sandbox);
    let image = sandbox.file("guest.img");
    let image = image.to_str().unwrap();
    let again = sandbox.run(["qemu", "--detached", "--name", "orphan", image]);
    again.fails(1, &["orphan"]);
    let other = sandbox.run(["qemu", "--detached", "--name", "other", image]);
    assert_eq!(other.code, 1, "{other:#?}");
    assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
    shuts_down_clean(&sandbox);
}

#[test]
fn the_overlay_of_an_orphan_is_not_swept_away() {
    let sandbox = detached(Guest::ReactsToButton, &["--ephemeral"]);
    let state = sandbox.ctl_json(["status"])["state_directory"].as_str().unwrap().to_owned();
    kill_supervisor(&sandbox);
    let image = sandbox.file("guest.img");
    sandbox.detached(["--name", "other", "--ephemeral", image.to_str().unwrap()]);
    assert!(std::fs::exists(&state).unwrap(), "{state}");
    for name in ["orphan", "other"] {
        sandbox.booted(name);
        let done: Done = sandbox.ctl(["--vm", name, "shutdown", "--timeout", "30s"]);
        done.ok();
    }
    sandbox.is_clean();
    assert!(!sandbox.file("guest-state").exists());
}

/// A clock that was set by a day since the start: what was written down then is from the future now, or from long ago.
#[test]
fn a_clock_that_was_set_meanwhile_changes_nothing() {
    const DAY_MS: i64 = 24 * 3600 * 1000;
    for shift in [DAY_MS, -DAY_MS] {
        let sandbox = detached(Guest::ReactsToButton, &[]);
        let greeting = Guest::ReactsToButton.greeting();
        sandbox.ctl(["wait", &format!("console={greeting}")]).ok();
        let uptime = |status: &Value| status["uptime_ms"].as_i64().unwrap();
        let before = uptime(&sandbox.ctl_json(["status"]));
        let stamp = Instant::now();
        kill_supervisor(&sandbox);
        let file = sandbox.runtime().join("orphan/vm.json");
        let mut facts: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let started = facts["facts"]["started_unix_ms"].as_i64().unwrap();
        facts["facts"]["started_unix_ms"] = json!(started + shift);
        std::fs::write(&file, facts.to_string()).unwrap();

        let after = uptime(&sandbox.ctl_json(["status"]));
        let passed = i64::try_from(stamp.elapsed().as_millis()).unwrap();
        // ticks of 10 ms, and what a busy machine does between two of these lines
        assert!((before - 1000..=before + passed + 1000).contains(&after), "{before} + {passed}: {after}");
        sandbox.ctl(["wait", &format!("console={greeting}"), "--timeout", "10s"]).ok();
        assert!(sandbox.run(["logs", "orphan"]).ok().stdout.contains(greeting));
        shuts_down_clean(&sandbox);
    }
}
