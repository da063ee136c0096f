//! Many clients at once, clients that leave, and supervisors that do not answer: none of them locks the others out.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::boot_sector::Guest;
use crate::support::processes::{eventually, qemu_of, send};
use crate::support::sandbox::{Done, PATIENCE, Sandbox};
use crate::support::varlink::Raw;

const STATUS: &str = "io.vmrun.Machine.GetStatus";
/// Far more than a command takes, and far less than for ever, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// A VM whose supervisor was started with a limit of open files (`soft:hard`).
struct Vm {
    sandbox: Sandbox,
    supervisor: i32,
}

impl Vm {
    fn start(limit: &str) -> Self {
        let sandbox = Sandbox::new();
        let image = sandbox.boot_sector(Guest::Halted);
        let mut command = sandbox.program("prlimit");
        command.arg(format!("--nofile={limit}")).arg("--").arg(env!("CARGO_BIN_EXE_vmrun"));
        command.args(["qemu", "--detached", "--name", "guest"]).arg(image);
        Done::of(command.output().unwrap()).ok();
        let supervisor = supervisor(&sandbox, "guest");
        Self { sandbox, supervisor }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.sandbox.runtime().join("guest").join(name)
    }

    fn connect(&self) -> Raw {
        Raw::connect(&self.socket("control"))
    }

    /// What the kernel says that the supervisor has open.
    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.supervisor)).unwrap().count()
    }

    /// Everybody gets their turn: a status, a change, the list of VMs, a command on the shared QMP socket.
    #[track_caller]
    fn serves_everybody(&self) {
        let began = Instant::now();
        assert_eq!(self.sandbox.ctl_json(["status"])["state"], "running");
        let id = self.sandbox.ctl_json(["usb-add", "usb-kbd"])["id"].as_str().unwrap().to_owned();
        self.sandbox.ctl(["usb-remove", &id]).ok();
        assert_eq!(self.sandbox.run(["ls", "--json"]).json()[0]["state"], "running");
        let mut qmp = BufReader::new(UnixStream::connect(self.socket("qmp-shared")).unwrap());
        qmp.get_ref().set_read_timeout(Some(SOON)).unwrap();
        qmp.get_mut().write_all(b"{\"execute\":\"qmp_capabilities\"}\n").unwrap();
        let mut line = String::new();
        for _ in 0..2 {
            qmp.read_line(&mut line).unwrap();
        }
        assert!(line.contains("\"return\""), "{line}");
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}

#[track_caller]
fn supervisor(sandbox: &Sandbox, name: &str) -> i32 {
    let status = sandbox.ctl_json(["--vm", name, "status"]);
    i32::try_from(status["supervisor_pid"].as_i64().unwrap()).unwrap()
}

/// Room for the crowd in this process.
fn room() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard >= 2048, "this test needs 2,048 open files, and may have {hard}");
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(8192), hard).unwrap();
}

/// The soft limit of open files of a process, as the kernel tells it.
fn limit(pid: &str) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_ascii_whitespace().nth(3).unwrap().to_owned()
}

#[test]
fn silent_clients_on_both_sockets_keep_nobody_out() {
    room();
    let vm = Vm::start("1024:1024");
    let mut silent = Vec::new();
    for _ in 0..512 {
        for socket in ["control", "qmp-shared"] {
            silent.push(UnixStream::connect(vm.socket(socket)).unwrap());
        }
    }
    vm.serves_everybody();
    drop(silent);
    vm.sandbox.ctl(["shutdown", "--force"]);
}

/// Whether something has come for a client that it has not read.
fn has_answer(client: &Raw) -> bool {
    let mut waiting = [PollFd::new(client.stream.as_fd(), PollFlags::POLLIN)];
    poll(&mut waiting, PollTimeout::ZERO).unwrap() > 0
}

#[test]
fn clients_that_wait_keep_nobody_out_and_one_too_many_is_told() {
    room();
    let vm = Vm::start("1024:1024");
    for call in [
        r#"{"method":"io.vmrun.Machine.Wait","parameters":{"conditions":["console=never"]}}"#,
        r#"{"method":"io.vmrun.Machine.Events","parameters":{},"more":true}"#,
    ] {
        let mut crowd: Vec<Raw> = (0..520).map(|_| vm.connect()).collect();
        crowd.iter_mut().for_each(|client| client.send(call.as_bytes()));
        vm.serves_everybody();
        // those that are too many are answered, and know why; which they are is the scheduler's choice
        let mut refused = 0;
        eventually("some are too many", || {
            for client in crowd.iter_mut().filter(|client| has_answer(client)) {
                let answer = client.receive().unwrap();
                refused += usize::from(answer["error"] == "io.vmrun.Machine.NotNow");
            }
            refused > 0
        });
        let words = ["wait", "exit"];
        vm.sandbox.ctl(words).fails(4, &["clients wait for something", "hint: "]);
        // the others wait on
        assert!(refused < crowd.len() / 2, "{refused} were refused");
        drop(crowd);
        eventually("their share is free again", || {
            vm.sandbox.ctl(["wait", "running", "--timeout", "10s"]).code == 0
        });
    }
    vm.sandbox.ctl(["shutdown", "--force"]);
}

#[test]
fn clients_that_left_are_noticed_in_every_kind_of_call() {
    let vm = Vm::start("1024:1024");
    let call = |method: &str, parameters: Value, flag: &str| {
        json!({ "method": format!("io.vmrun.Machine.{method}"), "parameters": parameters, flag: true })
            .to_string()
    };
    let never = json!({ "conditions": ["console=never"] });
    let before = vm.descriptors();
    let mut clients = Vec::new();
    for frames in [
        vec![call("Wait", never.clone(), "oneway")],
        // more calls behind the one that waits
        vec![call("Wait", never.clone(), "parallel"); 3],
        vec![call("Events", json!({}), "more"), call("GetStatus", json!({}), "parallel")],
        vec![call("Wait", never, "oneway"), call("Events", json!({}), "more")],
        vec![call("RemoveUsb", json!({ "id": "none" }), "oneway"); 3],
    ] {
        for half_closed in [false, true] {
            let mut client = vm.connect();
            frames.iter().for_each(|frame| client.send(frame.as_bytes()));
            if half_closed {
                client.stream.shutdown(Shutdown::Write).unwrap();
            }
            clients.push(client);
        }
    }
    eventually("they are all connected", || vm.descriptors() >= before + 8);
    drop(clients);
    eventually("all have been noticed", || vm.descriptors() <= before);
    vm.sandbox.ctl(["shutdown", "--force"]);
}

#[test]
fn what_a_client_wanted_that_left_at_once_happens() {
    let vm = Vm::start("1024:1024");
    let pause = br#"{"method":"io.vmrun.Machine.Pause","oneway":true}"#;
    let resume = br#"{"method":"io.vmrun.Machine.Resume","oneway":true}"#;
    let mut client = vm.connect();
    for call in [&pause[..], resume, pause] {
        client.send(call);
    }
    drop(client);
    eventually("it is paused", || vm.sandbox.ctl_json(["status"])["state"] == "paused");
    vm.sandbox.ctl(["shutdown", "--force"]);
}

#[test]
fn who_has_said_the_last_word_gets_every_reply() {
    let vm = Vm::start("1024:1024");
    // a stream: what comes later, too
    let mut events = vm.connect();
    events.send(br#"{"method":"io.vmrun.Machine.Events","parameters":{"names":["STOP"]},"more":true}"#);
    events.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(events.receive().unwrap()["continues"], true);
    vm.sandbox.ctl(["pause"]).ok();
    assert_eq!(events.receive().unwrap()["parameters"]["event"]["name"], "STOP");
    // several calls in one go
    let mut calls = vm.connect();
    let status = format!("{{\"method\":\"{STATUS}\"}}");
    for call in [status.as_bytes(), br#"{"method":"io.vmrun.Machine.Resume"}"#, status.as_bytes()] {
        calls.send(call);
    }
    calls.stream.shutdown(Shutdown::Write).unwrap();
    let replies: Vec<Value> = std::iter::from_fn(|| calls.receive()).collect();
    let states = [&replies[0], &replies[2]].map(|reply| &reply["parameters"]["status"]["state"]);
    assert_eq!((replies.len(), states), (3, [&json!("paused"), &json!("running")]), "{replies:#?}");
    // the shared QMP socket, to the last byte
    let mut qmp = UnixStream::connect(vm.socket("qmp-shared")).unwrap();
    qmp.set_read_timeout(Some(PATIENCE)).unwrap();
    qmp.write_all(b"{\"execute\":\"qmp_capabilities\"}\r\n{\"execute\":\"query-status\"}\r\nnonsense")
        .unwrap();
    qmp.shutdown(Shutdown::Write).unwrap();
    let mut all = String::new();
    qmp.read_to_string(&mut all).unwrap();
    let answers: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answers: Vec<&Value> = answers.iter().filter(|answer| answer.get("event").is_none()).collect();
    assert_eq!(answers.len(), 4, "{all}");
    assert!(answers[2]["return"]["running"].is_boolean() && answers[3]["error"].is_object(), "{all}");
    vm.sandbox.ctl(["shutdown", "--force"]);
}

#[test]
fn the_limit_of_open_files_is_raised_for_the_supervisor_alone() {
    let vm = Vm::start("200:4000");
    assert_eq!(limit(&vm.supervisor.to_string()), "4000");
    let qemu = limit(&qemu_of(vm.sandbox.path()).to_string());
    // newer QEMUs raise their own by themselves
    let raises = vm.sandbox.ctl_json(["status"])["qemu_version"]
        .as_str()
        .unwrap()
        .split('.')
        .next()
        .unwrap()
        .parse::<u32>()
        .unwrap()
        >= 9;
    assert_eq!(qemu, if raises { "4000" } else { "200" });
    vm.sandbox.ctl(["shutdown", "--force"]);
}

#[tokio::test]
async fn the_limit_of_open_files_of_a_program_stays_as_it_is() {
    use vmrun::{Machine, Request};

    let sandbox = Sandbox::new();
    let before = limit("self");
    let request = Request {
        runtime: Some(sandbox.path().join("run")),
        accel: Some("tcg".parse().unwrap()),
        ..Request::of(sandbox.boot_sector(Guest::Halted))
    };
    let vm = Machine::launch(request).await.unwrap();
    assert_eq!(limit("self"), before);
    vm.kill().await.unwrap();
}

/// Lets a stopped process go on, however the test ends.
struct Stopped(i32);

impl Stopped {
    fn now(pid: i32) -> Self {
        send(pid, Signal::SIGSTOP);
        eventually("it is stopped", || {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ")
        });
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        send(self.0, Signal::SIGCONT);
    }
}

#[test]
fn a_stopped_supervisor_is_named_and_holds_up_nobody() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    for name in ["one", "two"] {
        sandbox.detached(["--name", name, "--ephemeral", image.to_str().unwrap()]);
    }
    let pid = supervisor(&sandbox, "one");
    let stopped = Stopped::now(pid);
    let told = format!("process {pid}");
    let cont = format!("kill -CONT {pid}");
    std::fs::write(sandbox.file("file"), "x").unwrap();
    let lists = || {
        let began = Instant::now();
        let list = sandbox.run(["ls", "--json"]).json();
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        let (one, two) = (&list[0], &list[1]);
        assert_eq!((&one["name"], &one["state"]), (&json!("one"), &json!("not answering")), "{list:#}");
        assert_eq!(one["supervisor_pid"], pid, "{list:#}");
        assert!(one["reason"].as_str().unwrap().contains("stopped"), "{list:#}");
        assert_eq!((&two["name"], &two["state"]), (&json!("two"), &json!("running")), "{list:#}");
    };
    lists();
    for command in [
        &["ctl", "--vm", "one", "status"][..],
        &["ctl", "--vm", "one", "shutdown", "--timeout", "2s"],
        &["ctl", "--vm", "one", "wait", "exit"],
        &["ctl", "--vm", "one", "events"],
        &["ctl", "--vm", "one", "usb-add", "usb-kbd"],
        &["ctl", "--vm", "one", "exec", "true"],
        &["ctl", "--vm", "one", "copy-to", "file", "/tmp/file"],
        &["ctl", "--vm", "one", "copy-from", "/etc/passwd", "copy"],
        &["logs", "one"],
        &["console", "one"],
    ] {
        let began = Instant::now();
        sandbox.run(command).fails(5, &["does not answer", "stopped", &told, &cont]);
        assert!(began.elapsed() < SOON, "{command:?}: {:?}", began.elapsed());
    }
    // whose queue is full, too
    let waiting: Vec<UnixStream> = (0..300)
        .map_while(|_| {
            let socket = connect_at_once(&sandbox.runtime().join("one/control"));
            socket.ok()
        })
        .collect();
    assert!(waiting.len() < 300, "the queue has no end");
    lists();
    sandbox.run(["ctl", "--vm", "one", "status"]).fails(5, &["does not answer", &told]);
    drop((waiting, stopped));
    // no other process has taken it over meanwhile
    eventually("it answers again", || sandbox.run(["ctl", "--vm", "one", "status"]).code == 0);
    assert_eq!(supervisor(&sandbox, "one"), pid);
    for name in ["one", "two"] {
        sandbox.ctl(["--vm", name, "shutdown", "--force"]);
    }
}

/// Connects unless the queue is full.
fn connect_at_once(path: &std::path::Path) -> nix::Result<UnixStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    use std::os::fd::AsRawFd;

    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket.into())
}
