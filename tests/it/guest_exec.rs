//! Commands inside the guest, through its agent.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::guest_shutdown::KILL_AGENT;
use crate::support::linux::Linux;
use crate::support::pty::OnTerminal;
use crate::support::sandbox::{Done, wait_with_patience};

/// A guest whose agent answers.
pub(crate) fn with_agent(options: &[&str]) -> Linux {
    let vm = Linux::boot(options);
    vm.ctl(["wait", "agent", "--timeout", "60s"]);
    vm
}

fn exec_command(vm: &Linux, arguments: &[&str]) -> Command {
    let mut command = vm.sandbox.vmrun();
    command.args(["ctl", "exec"]).args(arguments);
    command
}

fn sleeps(vm: &Linux, seconds: &str) -> bool {
    vm.run("ps").lines().any(|line| line.ends_with(&format!("sleep {seconds}")))
}

#[test]
fn exec_is_as_if_it_ran_here() {
    let vm = with_agent(&[]);
    let exec = |arguments: &[&str]| Done::of(exec_command(&vm, arguments).output().unwrap());

    // large output, byte for byte
    let numbers: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(exec(&["seq", "1", "200000"]).ok().stdout == numbers);
    // all bytes, the streams apart, the code
    let done = exec_command(&vm, &["--", "sh", "-c", r"printf '\0\377\n\200'; printf err >&2; exit 42"]);
    let output = { done }.output().unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"\0\xff\n\x80"[..], &b"err"[..]));
    assert_eq!(output.status.code(), Some(42));
    // arguments are not looked at by a shell; flags after the command are the command's
    assert_eq!(exec(&["echo", "--json", "$HOME *", ""]).ok().stdout, "--json $HOME * \n");

    exec(&["--", "sh", "-c", "kill -15 $$"]).fails(143, &[]);
    exec(&["no-such-command"]).fails(127, &["no-such-command"]);
    exec(&["/etc"]).fails(126, &["/etc"]);
    exec(&["false"]).fails(1, &[]);

    // the environment, standard input
    let env = exec(&["--env", "A=1=2", "--env", "B=", "env"]).ok().stdout;
    assert!(env.contains("A=1=2\n") && env.contains("B=\n") && env.contains("PATH="), "{env}");
    let mut cat = exec_command(&vm, &["--stdin", "sha256sum"]);
    let mut child = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&vec![b'x'; 512 << 10]).unwrap();
    let sum = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(
        sum.split(' ').next(),
        Some("ec8bb338811bbf800a8b5e507d06e08a1d9d05bde74294f6f7388f3bbfba82e5")
    );
    assert_eq!(exec(&["cat"]).ok().stdout, "", "without --stdin there is nothing to read");

    let facts = vm.sandbox.ctl_json(["exec", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((&facts["stdout"], &facts["stderr"]), (&"out\n".into(), &"err\n".into()), "{facts}");

    // over the time: killed, with what it has started
    exec(&["--timeout", "300ms", "--", "sh", "-c", "sleep 4321 & sleep 4322"]).fails(5, &["300ms", "killed"]);
    vm.until("both are killed", |vm| !sleeps(vm, "4321") && !sleeps(vm, "4322"));
    // the caller hung up
    let mut child = exec_command(&vm, &["sleep", "4323"]).spawn().unwrap();
    vm.until("it runs", |vm| sleeps(vm, "4323"));
    // others have their turn meanwhile
    exec(&["true"]).ok();
    child.kill().unwrap();
    child.wait().unwrap();
    vm.until("it is killed", |vm| !sleeps(vm, "4323"));

    // bad usage needs no guest
    exec(&["--env", "=1", "true"]).fails(2, &["NAME=VALUE"]);
    exec(&["--timeout", "0", "true"]).fails(2, &["more than 0"]);
    exec(&[]).fails(2, &[]);

    // a guest that stands still, and one without an agent
    vm.ctl(["pause"]);
    exec(&["true"]).fails(4, &["paused", "resume"]);
    vm.ctl(["resume"]);
    let mut waiting = exec_command(&vm, &["sleep", "4324"]);
    let waiting = waiting.stderr(Stdio::piped()).spawn().unwrap();
    vm.until("it runs", |vm| sleeps(vm, "4324"));
    vm.run(KILL_AGENT);
    Done::of(waiting.wait_with_output().unwrap()).fails(4, &["agent has ended"]);
    let gone = ["agent has ended", "waited 1s", "hint: ", "qemu-guest-agent", "ctl wait agent"];
    exec(&["--agent-timeout", "1s", "true"]).fails(4, &gone);
    vm.quit();
}

/// A stream that takes nothing.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn output_of_the_guest_that_cannot_be_written_is_a_failure() {
    let vm = with_agent(&[]);
    let command = |words: &[&str]| {
        let mut command = vm.sandbox.vmrun();
        command.arg("ctl").args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let ends = |command: &mut Command| Done::of(command.spawn().unwrap().wait_with_output().unwrap());
    // the command's own code says nothing about what has been lost
    let both = ["exec", "--", "sh", "-c", "echo out; echo err >&2; exit 42"];
    let json: Vec<&str> = ["--json"].into_iter().chain(both).collect();
    let unwritten = "standard output cannot be written: No space left on device";
    for words in
        [&both[..], &json, &["copy-from", "/proc/version", "-"], &["copy-from", "/proc/version", "x"]]
    {
        ends(command(words).stdout(full())).fails(1, &[unwritten]);
    }
    ends(command(&["copy-to", "/proc/version", "/tmp/x"]).stdout(full())).fails(1, &[unwritten]);
    let done = ends(command(&both).stderr(full()));
    assert_eq!((done.code, done.stdout.as_str()), (1, "out\n"), "{done:#?}");
    // nothing is lost of a command that says nothing there
    assert_eq!(ends(command(&["exec", "--", "sh", "-c", "echo out; exit 42"]).stderr(full())).code, 42);
    assert_eq!(ends(command(&["exec", "--", "sh", "-c", "echo err >&2; exit 42"]).stdout(full())).code, 42);
    // as here, nothing more can be written without a reader
    for stream in [Command::stdout::<Stdio>, Command::stderr::<Stdio>] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(ends(stream(&mut command(&both), Stdio::from(writer))).code, 128 + 13);
    }
    // what the failed commands have begun has ended with them
    assert!(!vm.run("ps").contains("echo out"), "{}", vm.run("ps"));
    assert_eq!(vm.run("ls /tmp | grep -c vmrun-stdin || true"), "0");
    vm.quit();
}

#[test]
fn a_command_ends_when_its_reader_has_gone() {
    let vm = with_agent(&["--name", "guest"]);
    // `ctl exec` and `exec`; one that floods, and one that writes now and then
    for (words, script) in [
        (&["ctl", "exec"][..], "exec yes"),
        (&["exec", "guest"], "exec cat /dev/urandom"),
        (&["exec", "guest"], "while echo 4326; do sleep 0.1; done"),
    ] {
        let mut command = vm.sandbox.vmrun();
        command.args(words).args(["--", "sh", "-c", script]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut reader = child.stdout.take().unwrap();
        reader.read_exact(&mut [0]).unwrap();
        drop(reader);
        assert_eq!(wait_with_patience(&mut child).code(), Some(128 + 13), "{script}");
    }
    let runs = |vm: &Linux| {
        let processes = vm.run("ps");
        ["yes", "cat /dev/urandom", "while echo 4326"].iter().any(|command| processes.contains(command))
    };
    vm.until("the commands have ended", |vm| !runs(vm));
    vm.quit();
}

#[test]
fn vmruns_own_ports_are_not_reported_by_the_guest() {
    let vm = with_agent(&[]);
    vm.ctl(["exec", "true"]);
    assert_eq!(vm.run("cat /run/ports"), "org.qemu.guest_agent.0");
    vm.quit();
}

#[test]
fn data_on_a_terminal_has_no_progress_in_it() {
    let vm = with_agent(&[]);
    let mut command = vm.sandbox.vmrun();
    command.args(["ctl", "copy-from", "/proc/version", "-"]);
    let (status, shown) = OnTerminal::start(&command).end_with_output();
    assert_eq!(status.code(), Some(0));
    // the terminal prints capitals: see OLCUC
    assert!(shown.to_lowercase().starts_with("linux version"), "{shown:?}");
    assert!(!shown.contains('\x1b'), "{shown:?}");
    vm.quit();
}

#[test]
fn exec_ends_with_qemu() {
    let vm = with_agent(&["--name", "doomed"]);
    let mut waiting = exec_command(&vm, &["sleep", "4325"]);
    let waiting = waiting.stderr(Stdio::piped()).spawn().unwrap();
    vm.until("it runs", |vm| sleeps(vm, "4325"));
    let qemu = i32::try_from(vm.status()["qemu_pid"].as_i64().unwrap()).unwrap();
    let killed = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(qemu), nix::sys::signal::Signal::SIGKILL).unwrap();
    Done::of(waiting.wait_with_output().unwrap()).fails(3, &["ended"]);
    eprintln!("exec ended {:?} after QEMU", killed.elapsed());
    vm.end();
}
