//! The console without a terminal: pipes, files, nothing at all; `vmrun console` and `vmrun logs`.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::boot_sector::{Guest, says};
use crate::support::chance::repetitions;
use crate::support::processes::{eventually, memory_kib, send};
use crate::support::sandbox::{Foreground, Sandbox, wait_with_patience};
use crate::support::varlink::Raw;

/// A detached guest that has greeted.
fn detached(guest: Guest, options: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(guest);
    let wait = format!("console={}", guest.greeting());
    let mut arguments = vec!["--name", "it", "--wait", &wait];
    arguments.extend(options);
    arguments.push(image.to_str().unwrap());
    sandbox.detached(arguments);
    sandbox
}

fn off(sandbox: &Sandbox) {
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    sandbox.is_clean();
}

#[test]
fn what_is_piped_in_goes_to_the_guest_and_its_end_is_not_the_vms() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::EchoesConsole);
    let mut vm = sandbox.foreground([&image]);
    vm.wait_for(Guest::EchoesConsole.greeting());
    // an escape key is for people
    vm.type_in("hello \x01x\r\n");
    assert_eq!(vm.wait_for("HELLO"), "HELLO \x01X");
    drop(vm.stdin.take());
    assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
    vm.signal(Signal::SIGTERM);
    vm.wait_for(says::OFF);
    assert_eq!(vm.end().code(), 0);
    sandbox.is_clean();
}

#[test]
fn standard_input_can_be_anything() {
    for input in ["closed", "null", "file", "folder"] {
        let sandbox = Sandbox::new();
        let image = sandbox.boot_sector(Guest::EchoesConsole);
        let output = sandbox.file("output");
        let mut command = sandbox.program("sh");
        let redirect = match input {
            "closed" => "<&-",
            "null" => "< /dev/null",
            "file" => "< text",
            _ => "< .",
        };
        std::fs::write(sandbox.file("text"), "from a file\n").unwrap();
        command.args(["-c", &format!("exec \"$0\" qemu \"$1\" {redirect}")]);
        command.arg(env!("CARGO_BIN_EXE_vmrun")).arg(&image);
        let mut vm = command.stdout(File::create(&output).unwrap()).stderr(Stdio::null()).spawn().unwrap();
        let printed = || std::fs::read_to_string(&output).unwrap();
        eventually("the guest greets", || printed().contains(Guest::EchoesConsole.greeting()));
        assert_eq!(sandbox.ctl_json(["status"])["state"], "running", "{input}");
        sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
        assert!(wait_with_patience(&mut vm).success(), "{input}");
        assert!(printed().ends_with(&format!("{}\r\n", says::OFF)), "{input}: {:?}", printed());
        sandbox.is_clean();
    }
}

#[test]
fn nobody_needs_to_read_the_output() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::FloodsConsole);
    let mut command = sandbox.vmrun();
    command.arg("qemu").arg(&image).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut vm = command.spawn().unwrap();
    // EPIPE from now on
    drop(vm.stdout.take());
    sandbox.ctl(["wait", "console=line 00000100"]);
    eventually("it is there", || sandbox.ctl(["status"]).code == 0);
    sandbox.ctl(["wait", "console=line 00002000"]).ok();
    off(&sandbox);
    assert!(wait_with_patience(&mut vm).success());

    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let mut command = sandbox.program("sh");
    command.args(["-c", "exec \"$0\" qemu \"$1\" >&- 2>&- <&-"]);
    let mut vm = command.arg(env!("CARGO_BIN_EXE_vmrun")).arg(&image).spawn().unwrap();
    eventually("it is there", || sandbox.ctl(["status"]).code == 0);
    sandbox.ctl(["wait", &format!("console={}", Guest::ReactsToButton.greeting())]).ok();
    off(&sandbox);
    assert!(wait_with_patience(&mut vm).success());
}

#[test]
fn consoles_on_pipes_read_and_write() {
    let sandbox = detached(Guest::EchoesConsole, &[]);
    let console = |options: &[&str]| {
        let mut command = sandbox.vmrun();
        command.arg("console").args(options);
        let console = Foreground::start(command);
        console.wait_for(Guest::EchoesConsole.greeting());
        console
    };
    let mut one = console(&[]);
    let mut two = console(&["it"]);
    let mut reads = console(&["--read-only"]);
    reads.type_in("not this\r\n");
    one.type_in("from one\r\n");
    for console in [&one, &two, &reads] {
        console.wait_for("FROM ONE");
    }
    two.type_in("from two\r\n");
    for console in [&one, &two, &reads] {
        console.wait_for("FROM TWO");
    }
    off(&sandbox);
    for console in [one, two, reads] {
        let ended = console.end();
        assert_eq!(ended.code(), 0, "{ended:#?}");
        assert!(ended.stdout.contains(says::OFF) && !ended.stdout.contains("NOT THIS"), "{ended:#?}");
    }
}

#[test]
fn logs_show_the_past_and_follow() {
    let sandbox = detached(Guest::EchoesConsole, &[]);
    let greeting = Guest::EchoesConsole.greeting();
    assert!(sandbox.run(["logs"]).line().contains(greeting));
    let mut following = sandbox.vmrun();
    following.args(["logs", "it", "--follow"]);
    let following = Foreground::start(following);
    following.wait_for(greeting);
    let mut console = Foreground::start({
        let mut command = sandbox.vmrun();
        command.arg("console");
        command
    });
    console.type_in("more\r\n");
    following.wait_for("MORE");
    // the last lines, and what follows them
    let last = sandbox.run(["logs", "--tail", "1"]).ok().stdout;
    assert!(last.contains("MORE") && !last.contains(greeting), "{last:?}");
    let mut tail = sandbox.vmrun();
    tail.args(["logs", "-f", "-n", "1"]);
    let tail = Foreground::start(tail);
    assert!(tail.wait_for("MORE").contains("MORE"));
    console.type_in("later\r\n");
    tail.wait_for("LATER");
    // a reader that stops reading is no error
    let mut piped = sandbox.program("sh");
    piped.args(["-c", "\"$0\" logs --follow | head -n 1"]).arg(env!("CARGO_BIN_EXE_vmrun"));
    let mut piped = piped.stdout(Stdio::null()).spawn().unwrap();
    console.type_in("enough\r\nenough\r\n");
    assert!(wait_with_patience(&mut piped).success());
    // a console that is read by a program, too
    let mut piped = sandbox.program("sh");
    piped.args(["-c", "\"$0\" console < /dev/null | head -n 1"]).arg(env!("CARGO_BIN_EXE_vmrun"));
    let mut piped = piped.stdout(Stdio::null()).spawn().unwrap();
    assert!(wait_with_patience(&mut piped).success());
    off(&sandbox);
    let ended = following.end();
    assert_eq!(ended.code(), 0);
    assert!(ended.stdout.contains(says::OFF), "{ended:#?}");
    let tail = tail.end();
    assert!(tail.code() == 0 && !tail.stdout.contains(greeting), "{tail:#?}");
    // of a VM that has ended, too
    assert_eq!(sandbox.run(["logs", "it", "--tail", "1"]).ok().stdout.trim(), says::OFF);
    let log = std::fs::read_to_string(sandbox.file("guest-state/console.log")).unwrap();
    assert!(log.contains(greeting) && log.contains("MORE"), "{log}");
}

#[test]
fn the_past_is_there_after_a_takeover() {
    let sandbox = detached(Guest::EchoesConsole, &[]);
    let mut console = sandbox.vmrun();
    console.args(["console"]);
    let mut console = Foreground::start(console);
    console.type_in("before\r\n");
    console.wait_for("BEFORE");
    let supervisor = sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap();
    send(i32::try_from(supervisor).unwrap(), Signal::SIGKILL);
    let ended = console.end();
    assert_ne!(ended.code(), 0, "it is told that the supervisor has gone: {ended:#?}");
    let mut console = sandbox.vmrun();
    console.arg("console");
    let mut console = Foreground::start(console);
    console.wait_for("BEFORE");
    console.type_in("after\r\n");
    console.wait_for("AFTER");
    for options in [&["logs"][..], &["logs", "--since-start"]] {
        let text = sandbox.run(options).line();
        let once = |word: &str| assert_eq!(text.matches(word).count(), 1, "{word}: {text}");
        once(Guest::EchoesConsole.greeting());
        once("BEFORE");
        once("AFTER");
    }
    sandbox.ctl(["wait", "console=BEFORE", "--timeout", "60s"]).ok();
    off(&sandbox);
}

#[test]
fn the_log_is_rotated_and_the_start_is_told_as_far_as_it_is_there() {
    let sandbox = detached(Guest::FloodsConsole, &["--log-size", "1M"]);
    sandbox.ctl(["wait", "console=line 00100000", "--from-now", "--timeout", "120s"]).ok();
    sandbox.ctl(["pause"]).ok();
    let size = |name: &str| std::fs::metadata(sandbox.file(format!("guest-state/{name}"))).unwrap().len();
    // what the guest has printed last is gathered for a moment
    let mut before = 0;
    eventually("all is in the log", || std::mem::replace(&mut before, size("console.log")) == before);
    let (now, older) = (size("console.log"), size("console.log.1"));
    assert!(now <= 512 << 10 && older <= 512 << 10 && older > 256 << 10, "{now} {older}");
    let all = sandbox.run(["logs", "--since-start"]).ok().stdout;
    assert_eq!(all.len() as u64, now + older);
    let recent = sandbox.run(["logs"]).ok().stdout;
    assert!(recent.len() >= 256 << 10 && all.ends_with(&recent));
    let supervisor = sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap();
    send(i32::try_from(supervisor).unwrap(), Signal::SIGKILL);
    eventually("it is taken over", || sandbox.run(["ls", "--json"]).json()[0]["state"] == "paused");
    assert!(sandbox.run(["logs", "--since-start"]).ok().stdout == all);
    assert!(sandbox.run(["logs"]).ok().stdout == recent);
    sandbox.ctl(["shutdown", "--force"]).ok();
    sandbox.is_clean();
}

/// What is gathered is not lost when QEMU ends meanwhile.
#[test]
fn the_last_words_are_in_the_log_when_the_end_is_told() {
    for _ in 0..repetitions(5) {
        let sandbox = detached(Guest::ReactsToButton, &[]);
        off(&sandbox);
        let log = std::fs::read_to_string(sandbox.file("guest-state/console.log")).unwrap();
        assert!(log.ends_with(&format!("{}\r\n", says::OFF)), "{log}");
    }
}

#[test]
fn the_log_of_a_run_is_not_that_of_the_run_before() {
    let sandbox = detached(Guest::EchoesConsole, &[]);
    let mut console = sandbox.vmrun();
    console.arg("console");
    let mut console = Foreground::start(console);
    console.type_in("first run\r\n");
    console.wait_for("FIRST RUN");
    off(&sandbox);
    drop(console);
    let image = sandbox.file("guest.img");
    sandbox.detached([image.to_str().unwrap()]);
    sandbox.ctl(["wait", &format!("console={}", Guest::EchoesConsole.greeting())]).ok();
    assert!(!sandbox.run(["logs", "--since-start"]).line().contains("FIRST RUN"));
    let older = std::fs::read_to_string(sandbox.file("guest-state/console.log.1")).unwrap();
    assert!(older.contains("FIRST RUN"));
    off(&sandbox);
}

#[test]
fn a_file_keeps_what_it_had() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::PowersOff);
    let mut output = File::create(sandbox.file("output")).unwrap();
    output.write_all(b"before\n").unwrap();
    let mut command: Command = sandbox.vmrun();
    let mut vm = command.arg("qemu").arg(&image).stdout(output.try_clone().unwrap()).spawn().unwrap();
    assert!(wait_with_patience(&mut vm).success());
    output.write_all(b"after\n").unwrap();
    let text = std::fs::read_to_string(sandbox.file("output")).unwrap();
    assert!(text.starts_with("before\n") && text.ends_with(&format!("{}\r\nafter\n", says::OFF)), "{text:?}");
}

/// Each `console=` once kept the line that has not ended: 64 KiB for each expression of each client.
#[test]
fn many_that_wait_for_a_line_hold_none_of_the_output() {
    const CLIENTS: usize = 5;
    const LINE: usize = 30 << 10;
    let sandbox = detached(Guest::EchoesConsole, &[]);
    let supervisor = i32::try_from(sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap()).unwrap();
    let connect = || Raw::connect(&sandbox.runtime().join("it/control"));
    let mut typist = connect();
    for _ in 0..LINE / 1024 {
        let data = BASE64.encode("x".repeat(1024));
        typist.call("io.vmrun.Machine.WriteConsole", json!({ "data": data }));
    }
    typist.call("io.vmrun.Machine.WriteConsole", json!({ "data": BASE64.encode("END") }));
    sandbox.ctl(["wait", "console=END$", "--timeout", "60s"]).ok();
    let before = memory_kib(supervisor);
    let waiting: Vec<Raw> = (0..CLIENTS)
        .map(|client| {
            let conditions: Vec<String> =
                (0..100).map(|number| format!("console=y{client}{number}")).collect();
            let mut waiting = connect();
            let call =
                json!({ "method": "io.vmrun.Machine.Wait", "parameters": { "conditions": conditions } });
            waiting.send(call.to_string().as_bytes());
            waiting
        })
        .collect();
    // one that comes later has found what it looks for when those before it have read as much, since each has its turn
    sandbox.ctl(["wait", "console=END$", "--timeout", "60s"]).ok();
    let after = memory_kib(supervisor);
    eprintln!("{before} KiB before, {after} KiB with {} searches of {LINE} bytes", waiting.len() * 100);
    assert!(after < before + 6 * 1024, "{before} KiB before, {after} KiB after");
    drop(waiting);
    off(&sandbox);
}
