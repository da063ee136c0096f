//! The texts that `vmrun::qemu::refusals` recognises, said by the QEMU that is installed.
//!
//! Not provoked here: a locked tray needs a guest that locks it (`guest_disks::media_are_changed_and_ejected`), the agent's texts need an
//! agent (`guest_copy`, `guest_exec`), and a QEMU without windows or SPICE is another build.

use std::io::Write;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::{Value, json};
use vmrun::qemu::refusals::Refusal::{self, *};

use crate::support::sandbox::Sandbox;

fn qemu(folder: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-nodefaults", "-display", "none", "-S", "-m", "64"]).args(arguments).current_dir(folder);
    command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What QEMU answers to these commands, each its text or the description of its error.
fn answers(folder: &Path, arguments: &[&str], commands: &[Value]) -> Vec<String> {
    let mut child = qemu(folder, &[&["-qmp", "stdio"], arguments].concat());
    let mut input = child.stdin.take().unwrap();
    for command in [&json!({ "execute": "qmp_capabilities" })].into_iter().chain(commands) {
        writeln!(input, "{command}").unwrap();
    }
    writeln!(input, "{}", json!({ "execute": "quit" })).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |line: Value| match (&line["return"], &line["error"]["desc"]) {
        (_, Value::String(desc)) => Some(desc.clone()),
        (Value::String(text), _) => Some(text.clone()),
        (Value::Null, _) => None,
        (other, _) => Some(other.to_string()),
    };
    // the first answer is that to qmp_capabilities
    let answers: Vec<String> = lines.filter_map(text).skip(1).take(commands.len()).collect();
    assert_eq!(answers.len(), commands.len(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    answers
}

fn hmp(line: &str) -> Value {
    json!({ "execute": "human-monitor-command", "arguments": { "command-line": line } })
}

#[track_caller]
fn means(refusal: Refusal, said: &str) {
    assert!(refusal.is_in(said), "this QEMU's text is not recognised as {refusal:?}: {said}");
}

fn words(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_the_monitors_refuse() {
    let sandbox = Sandbox::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let arguments = [
        "-netdev",
        "user,id=net0",
        "-netdev",
        "hubport,hubid=1,id=hub",
        "-M",
        "q35",
        "-device",
        "ide-cd,id=cd",
    ];
    let expected = [
        (hmp(&format!("hostfwd_add net0 tcp:127.0.0.1:{port}-:22")), ForwardNotBound),
        (hmp("hostfwd_remove net0 tcp:127.0.0.1:1"), NoForward),
        (hmp("hostfwd_add none tcp:127.0.0.1:1-:1"), NoUserNetwork),
        (hmp("hostfwd_remove hub tcp:127.0.0.1:1"), NoUserNetwork),
        (hmp("no-such-command"), NoCommand),
        (json!({ "execute": "screendump", "arguments": { "filename": "x" } }), NoDisplay),
        (json!({ "execute": "blockdev-remove-medium", "arguments": { "id": "cd" } }), TrayClosed),
    ];
    let commands: Vec<Value> = expected.iter().map(|(command, _)| command.clone()).collect();
    for (said, (_, refusal)) in answers(sandbox.path(), &arguments, &commands).iter().zip(expected) {
        means(refusal, said);
    }
    let commands = [
        hmp(&format!("hostfwd_add net0 tcp:127.0.0.1:{free}-:22")),
        hmp(&format!("hostfwd_remove net0 tcp:127.0.0.1:{free}")),
    ];
    let done = answers(sandbox.path(), &arguments, &commands);
    assert_eq!(done[0], "");
    means(ForwardRemoved, &done[1]);
}

#[test]
fn a_lock_on_an_image() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.file("a.img"), [0; 4096]).unwrap();
    let mut holder = qemu(sandbox.path(), &["-qmp", "stdio", "-drive", "file=a.img,format=raw,if=virtio"]);
    // its greeting comes when it has its images
    let mut greeting = std::io::BufReader::new(holder.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut greeting, &mut String::new()).unwrap();
    let other = qemu(sandbox.path(), &["-drive", "file=a.img,format=raw,if=virtio"]);
    let other = words(&other.wait_with_output().unwrap());
    let mut resize = Command::new("qemu-img");
    resize.args(["resize", "-f", "raw", "a.img", "8192"]).current_dir(sandbox.path());
    let resized = words(&resize.output().unwrap());
    holder.kill().unwrap();
    holder.wait().unwrap();
    means(ImageLocked, &other);
    means(ImageLocked, &resized);
}

#[test]
fn what_ends_a_start() {
    let sandbox = Sandbox::new();
    let ends = |arguments: &[&str]| words(&qemu(sandbox.path(), arguments).wait_with_output().unwrap());
    means(StdioTaken, &ends(&["-qmp", "stdio", "-serial", "stdio"]));
    // without its windows it says that they are not there, with them that it has no desktop
    for display in ["gtk", "sdl"] {
        let said = ends(&["-display", display]);
        assert!(Refusal::first(&[NoWindows, NoDesktop], &said).is_some(), "{said}");
    }
    // the other side has hung up
    let (socket, _) = UnixStream::pair().unwrap();
    let socket = OwnedFd::from(socket);
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let chardev = format!("socket,id=c,fd={}", socket.as_raw_fd());
    let memory = "memory-backend-memfd,id=m,size=64M,share=on";
    let device = "vhost-user-fs-pci,chardev=c,tag=x";
    let arguments = ["-object", memory, "-numa", "node,memdev=m", "-chardev", &chardev, "-device", device];
    means(VhostUser, &ends(&arguments));
}
