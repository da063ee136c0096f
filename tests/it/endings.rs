//! Callers of every kind while a VM ends in every way: each gets an answer, and it is how the VM ended.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::boot_sector::Guest;
use crate::support::chance::Chance;
use crate::support::orphan::kill;
use crate::support::processes::{eventually, qemu_of, send};
use crate::support::sandbox::Sandbox;
use crate::support::varlink::Raw;

/// How a VM is made to end.
#[derive(Debug, Clone, Copy)]
enum Way {
    HmpQuit,
    GuestOff,
    Panic,
    KillQemu,
    TermSupervisor,
    ResetWithoutReboot,
}

const WAYS: [Way; 6] =
    [Way::HmpQuit, Way::GuestOff, Way::Panic, Way::KillQemu, Way::TermSupervisor, Way::ResetWithoutReboot];

impl Way {
    fn start(self, sandbox: &Sandbox) -> String {
        let guest = if let Self::Panic = self { Guest::PanicsOnButton } else { Guest::ReactsToButton };
        let image = sandbox.boot_sector(guest);
        let mut arguments = vec![image.to_str().unwrap()];
        if let Self::ResetWithoutReboot = self {
            arguments.push("--no-reboot");
        }
        let name = sandbox.detached(arguments);
        sandbox.booted(&name);
        name
    }

    fn end(self, sandbox: &Sandbox, name: &str, qemu: i32, supervisor: i32) {
        let ctl = |words: &[&str]| drop(sandbox.ctl([&["--vm", name], words].concat()));
        match self {
            Self::HmpQuit => ctl(&["hmp", "quit"]),
            Self::GuestOff | Self::Panic => ctl(&["powerdown"]),
            Self::KillQemu => send(qemu, Signal::SIGKILL),
            Self::TermSupervisor => send(supervisor, Signal::SIGTERM),
            Self::ResetWithoutReboot => ctl(&["reset"]),
        }
    }
}

fn method(name: &str) -> String {
    format!("io.vmrun.Machine.{name}")
}

fn frame(name: &str, parameters: &Value, more: bool) -> Vec<u8> {
    json!({ "method": method(name), "parameters": parameters, "more": more }).to_string().into_bytes()
}

/// Four calls in one go, the first of which is answered when the VM has ended; what each says of its end.
fn pipelined(mut client: Raw) -> Vec<Value> {
    let calls = [
        ("Wait", json!({ "conditions": ["exit"] })),
        ("GetStatus", json!({})),
        ("Shutdown", json!({})),
        ("AddUsb", json!({ "selector": "usb-kbd" })),
    ];
    for (name, parameters) in &calls {
        client.send(&frame(name, parameters, false));
    }
    let replies: Vec<Value> = calls
        .iter()
        .map(|call| client.receive().unwrap_or_else(|| panic!("no answer to {call:?}")))
        .collect();
    assert_eq!(replies[1]["parameters"]["status"]["state"], "ended", "{replies:?}");
    assert!(replies[3]["error"].is_string(), "{replies:?}");
    vec![
        replies[0]["parameters"]["came_true"][0]["details"]["outcome"].clone(),
        replies[1]["parameters"]["status"]["outcome"].clone(),
        replies[2]["parameters"]["outcome"].clone(),
        replies[3]["parameters"]["outcome"].clone(),
    ]
}

/// Waits for what never comes true.
fn in_vain(mut client: Raw) -> Vec<Value> {
    let reply = client.call(&method("Wait"), json!({ "conditions": ["console=what it never says"] }));
    assert!(reply["error"].is_string(), "{reply}");
    vec![reply["parameters"]["outcome"].clone()]
}

/// Follows the events to their proper end.
fn follows(mut client: Raw) -> Vec<Value> {
    client.send(&frame("Events", &json!({}), true));
    while client.receive().expect("the stream's last reply")["continues"] == true {}
    Vec::new()
}

/// Connects, and sends something only when another client has got the VM's end.
fn hesitates(mut client: Raw, other: Raw) -> Vec<Value> {
    in_vain(other);
    let reply = client.call(&method("Wait"), json!({ "conditions": ["exit"] }));
    vec![reply["parameters"]["came_true"][0]["details"]["outcome"].clone()]
}

/// Clients that connect one after the other, until none can connect any more.
fn arrivals(control: &Path) -> Vec<Value> {
    let mut outcomes = Vec::new();
    while let Some(mut client) = Raw::try_connect(control) {
        let status = client.call(&method("GetStatus"), json!({}))["parameters"]["status"].clone();
        assert!(status["state"].is_string(), "{status}");
        if status["state"] == "ended" {
            outcomes.push(status["outcome"].clone());
        }
    }
    outcomes
}

#[test]
fn everybody_who_has_connected_is_told_how_it_ended() {
    let mut chance = Chance::new();
    for way in WAYS {
        let sandbox = Sandbox::new();
        let name = way.start(&sandbox);
        let supervisor = sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap();
        let qemu = qemu_of(sandbox.path());
        let control: PathBuf = sandbox.runtime().join(&name).join("control");
        let mut callers = Vec::new();
        for _ in 0..3 {
            for caller in [pipelined, in_vain, follows] {
                let client = Raw::connect(&control);
                callers.push(thread::spawn(move || caller(client)));
            }
            let (client, other) = (Raw::connect(&control), Raw::connect(&control));
            callers.push(thread::spawn(move || hesitates(client, other)));
        }
        let arriving = control.clone();
        callers.push(thread::spawn(move || arrivals(&arriving)));
        thread::sleep(Duration::from_millis(chance.below(60)));
        way.end(&sandbox, &name, qemu, i32::try_from(supervisor).unwrap());
        let told: Vec<Value> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
        eventually("the outcome is written down", || sandbox.file("guest-state/outcome.json").exists());
        let outcome = sandbox.outcome();
        assert!(told.iter().all(|told| *told == outcome), "{way:?} {outcome}: {told:#?}");
        sandbox.is_clean();
    }
}

/// A VM by name, run under a name that is not only the image's.
fn named(sandbox: &Sandbox, options: &[&str]) {
    named_with(sandbox, Guest::ReactsToButton, options);
}

fn named_with(sandbox: &Sandbox, guest: Guest, options: &[&str]) {
    let image = sandbox.boot_sector(guest);
    let mut arguments = vec![image.to_str().unwrap(), "--name", "web"];
    arguments.extend(options);
    sandbox.detached(arguments);
    sandbox.booted("web");
    let greeting = format!("console={}", guest.greeting());
    sandbox.ctl(["wait", &greeting, "--timeout", "1m"]).ok();
}

#[test]
fn whoever_comes_after_the_end_is_told_how_it_ended() {
    for options in [&[][..], &["--ephemeral"]] {
        let sandbox = Sandbox::new();
        named(&sandbox, options);
        sandbox.run(["forget", "web"]).fails(3, &["`vmrun stop web`"]);
        sandbox.ctl(["hmp", "quit"]);
        sandbox.is_clean();
        let vm = |words: &[&str]| sandbox.ctl([&["--vm", "web"], words].concat());
        assert_eq!(vm(&["wait", "exit"]).code, 12);
        assert_eq!(vm(&["shutdown"]).code, 12);
        vm(&["usb-add", "usb-kbd"]).fails(3, &["VM 'web' has ended: QEMU was told to quit"]);
        let status = vm(&["--json", "status"]).json();
        assert_eq!(status["state"], "ended", "{status}");
        assert_eq!(status["outcome"]["ending"], "quit", "{status}");
        assert!(vm(&["status"]).ok().stdout.contains("QEMU was told to quit"));
        let logs = sandbox.run(["logs", "web"]).ok().stdout;
        assert!(logs.contains(Guest::ReactsToButton.greeting()), "{logs}");
        let list = sandbox.run(["ls", "--all", "--json"]).json();
        assert_eq!((&list[0]["name"], &list[0]["state"]), (&json!("web"), &json!("ended")), "{list}");
        assert_eq!(list[0]["state_directory"].is_string(), options.is_empty(), "{list}");
        assert_eq!(sandbox.run(["ls", "--json"]).json(), json!([]));
        let all = if options.is_empty() { "web" } else { "--all" };
        sandbox.run(["forget", all]).ok();
        vm(&["status"]).fails(3, &["no VM 'web' is running"]);
        sandbox.run(["forget", "web"]).fails(3, &["no record", "`vmrun ls --all`"]);
    }
}

#[test]
fn the_only_vm_that_has_just_ended_needs_no_name() {
    let sandbox = Sandbox::new();
    sandbox.ctl(["status"]).fails(3, &["no VM is running"]);
    named(&sandbox, &[]);
    sandbox.ctl(["hmp", "quit"]);
    sandbox.is_clean();
    assert_eq!(sandbox.ctl(["wait", "exit"]).code, 12);
    assert_eq!(sandbox.ctl(["shutdown"]).code, 12);
    assert!(sandbox.run(["logs"]).ok().stdout.contains(Guest::ReactsToButton.greeting()));
    // whether one runs, as scripts ask, is another question
    for asked in [&["status"][..], &["usb-add", "usb-kbd"]] {
        let words = ["no VM is running", "VM 'web' has just ended: QEMU was told to quit", "--vm web"];
        sandbox.ctl(asked).fails(3, &words);
    }
    // one that runs is meant before any that does not
    named(&sandbox, &[]);
    assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
    sandbox.ctl(["hmp", "quit"]);
    sandbox.is_clean();
    // with two of them it is unclear which is meant
    sandbox.ctl(["wait", "exit"]).fails(3, &["no VM is running"]);
    sandbox.ctl(["--vm", "web", "wait", "exit"]).fails(12, &[]);
}

#[test]
fn a_name_is_answered_for_by_its_last_run() {
    let sandbox = Sandbox::new();
    named(&sandbox, &[]);
    sandbox.ctl(["hmp", "quit"]);
    sandbox.is_clean();
    named(&sandbox, &[]);
    assert_eq!(sandbox.ctl_json(["--vm", "web", "status"])["state"], "running");
    sandbox.ctl(["shutdown"]).ok();
    sandbox.is_clean();
    assert_eq!(sandbox.ctl(["--vm", "web", "wait", "exit"]).code, 0);
    assert_eq!(sandbox.run(["ls", "--all", "--json"]).json().as_array().unwrap().len(), 2);
}

#[test]
fn a_vm_that_was_killed_with_its_supervisor_has_a_record() {
    let sandbox = Sandbox::new();
    named(&sandbox, &[]);
    let supervisor = sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap();
    let qemu = qemu_of(sandbox.path());
    let mut waiting = sandbox.vmrun();
    waiting.args(["ctl", "--vm", "web", "wait", "exit", "--timeout", "1m"]);
    let waiting = waiting.spawn().unwrap();
    kill(i32::try_from(supervisor).unwrap());
    kill(qemu);
    assert_eq!(waiting.wait_with_output().unwrap().status.code(), Some(11));
    let done = sandbox.ctl(["--vm", "web", "wait", "exit"]);
    assert_eq!(done.code, 11, "{done:#?}");
    assert!(sandbox.run(["logs", "web"]).ok().stdout.contains(Guest::ReactsToButton.greeting()));
    sandbox.is_clean();
}

#[test]
fn the_death_of_a_supervisor_is_not_told_as_the_vms() {
    let mut chance = Chance::new();
    let sandbox = Sandbox::new();
    // one press of the button may be the old supervisor's last act, and the power-off after it would have no witness
    named_with(&sandbox, Guest::SecondPress, &[]);
    for round in 0..4 {
        let supervisor = sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap();
        let exit = sandbox.vmrun().args(["ctl", "wait", "exit", "--timeout", "1500ms"]).spawn().unwrap();
        let event =
            sandbox.vmrun().args(["ctl", "wait", "event=NEVER", "--timeout", "1500ms"]).spawn().unwrap();
        thread::sleep(Duration::from_millis(chance.below(300)));
        kill(i32::try_from(supervisor).unwrap());
        for waiting in [exit, event] {
            let done = waiting.wait_with_output().unwrap();
            assert_eq!(done.status.code(), Some(5), "round {round}: {done:?}");
        }
    }
    // a shutdown goes on, too
    let supervisor = sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap();
    let shutdown = sandbox.vmrun().args(["ctl", "shutdown", "--timeout", "20s"]).spawn().unwrap();
    kill(i32::try_from(supervisor).unwrap());
    assert_eq!(shutdown.wait_with_output().unwrap().status.code(), Some(0));
    sandbox.is_clean();
}

#[test]
fn a_store_that_cannot_be_written_does_not_stop_a_vm() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.state_home(), "no folder").unwrap();
    let image = sandbox.boot_sector(Guest::PowersOff);
    let done = sandbox.run(["qemu", image.to_str().unwrap()]).ok();
    let told: Vec<_> = done.stderr.lines().filter(|line| line.contains("will not be recorded")).collect();
    assert_eq!(told.len(), 1, "{done:#?}");
    assert!(told[0].contains("XDG_STATE_HOME"), "{done:#?}");
}

#[test]
#[cfg_attr(lacks = "mount", ignore = "needs mount")]
fn a_store_that_is_full_or_read_only_is_told_of_at_the_start() {
    for (options, words) in [("size=64k", "No space left on device"), ("ro", "Read-only file system")] {
        let sandbox = Sandbox::new();
        let store = Store::mount(sandbox.state_home());
        let image = sandbox.boot_sector(Guest::PowersOff);
        let image = image.to_str().unwrap();
        let start = |detached: bool| {
            let mode: &[&str] = if detached { &["--detached"] } else { &[] };
            sandbox.run([&["qemu"], mode, &[image]].concat()).ok()
        };
        // the store and its folders are there
        assert!(!start(false).stderr.contains("recorded"));
        if options.starts_with("size") {
            std::fs::write(store.0.join("fill"), vec![1; 1 << 20]).unwrap_err();
        }
        store.again(options);
        for detached in [false, true] {
            let done = start(detached);
            let told: Vec<_> = done.stderr.lines().filter(|line| line.contains("not be recorded")).collect();
            assert_eq!(told.len(), 1, "{done:#?}");
            assert!(told[0].contains(words) && told[0].contains("XDG_STATE_HOME"), "{done:#?}");
            sandbox.is_clean();
        }
    }
}

/// A file system of its own for the user's store; taken away at the end.
struct Store(PathBuf);

impl Store {
    fn mount(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        let store = Self(at);
        store.done(&["-t", "tmpfs", "-o", "size=64k,mode=700", "none"]);
        store
    }

    fn again(&self, options: &str) {
        self.done(&["-o", &format!("remount,{options}")]);
    }

    fn done(&self, arguments: &[&str]) {
        let done = std::process::Command::new("mount").args(arguments).arg(&self.0).status().unwrap();
        assert!(done.success(), "{arguments:?}");
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
