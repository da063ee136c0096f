//! Under a service manager: its notifications, its folders, and the example of a unit.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::boot_sector::Guest;
use crate::support::processes::qemu_of;
use crate::support::sandbox::{Foreground, PATIENCE, Sandbox};

/// A service manager as far as services see it.
struct Manager(UnixDatagram);

impl Manager {
    fn new(sandbox: &Sandbox) -> Self {
        let socket = UnixDatagram::bind(sandbox.file("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The next message.
    #[track_caller]
    fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        let count = self.0.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_owned()).unwrap()
    }

    /// Waits for a message with this line; returns it.
    #[track_caller]
    fn hears_of(&self, line: &str) -> String {
        loop {
            let message = self.hears();
            if message.lines().any(|said| said.starts_with(line)) {
                return message;
            }
        }
    }
}

#[test]
fn it_is_told_of_readiness_and_of_the_end() {
    let sandbox = Sandbox::new();
    let manager = Manager::new(&sandbox);
    let image = sandbox.boot_sector(Guest::IgnoresButton);
    let greeting = Guest::IgnoresButton.greeting();
    let mut command = sandbox.vmrun();
    command.env("NOTIFY_SOCKET", sandbox.file("notify"));
    command.args(["qemu", "--stop-timeout", "2s", "--wait", &format!("console={greeting}")]).arg(&image);
    let vm = Foreground::start(command);
    let ready = manager.hears();
    assert!(ready.lines().any(|line| line == "READY=1"), "the first thing: {ready}");
    assert!(ready.contains("STATUS=guest") && ready.contains(&format!("MAINPID={}", vm.pid())), "{ready}");
    // it was not notified before the condition was met
    assert!(std::fs::read_to_string(sandbox.file("guest-state/console.log")).unwrap().contains(greeting));
    let environment = std::fs::read(format!("/proc/{}/environ", qemu_of(sandbox.path()))).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("NOTIFY_SOCKET"));
    sandbox.ctl(["pause"]).ok();
    manager.hears_of("STATUS=paused");
    sandbox.ctl(["resume"]).ok();
    manager.hears_of("STATUS=running");
    vm.signal(Signal::SIGTERM);
    manager.hears_of("STOPPING=1");
    manager.hears_of("EXTEND_TIMEOUT_USEC=");
    assert_eq!(vm.end().code(), 12);
    sandbox.is_clean();
}

#[test]
fn without_a_condition_it_is_ready_when_the_guest_runs() {
    let sandbox = Sandbox::new();
    let manager = Manager::new(&sandbox);
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let mut command = sandbox.vmrun();
    command.env("NOTIFY_SOCKET", sandbox.file("notify")).args(["qemu", "--detached"]).arg(&image);
    assert!(command.output().unwrap().status.success());
    let ready = manager.hears_of("READY=1");
    let supervisor = sandbox.ctl_json(["status"])["supervisor_pid"].to_string();
    assert!(ready.contains(&format!("MAINPID={supervisor}")), "{ready}");
    sandbox.booted("guest");
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    manager.hears_of("STOPPING=1");
    sandbox.is_clean();
}

#[test]
fn a_condition_that_never_holds_is_never_told_as_ready() {
    let sandbox = Sandbox::new();
    let manager = Manager::new(&sandbox);
    let image = sandbox.boot_sector(Guest::PowersOff);
    let mut command = sandbox.vmrun();
    command.env("NOTIFY_SOCKET", sandbox.file("notify"));
    command.args(["qemu", "--wait", "console=never"]).arg(&image);
    Foreground::start(command).end();
    manager.0.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(count) = manager.0.recv(&mut buffer) {
        let message = String::from_utf8_lossy(&buffer[..count]);
        assert!(!message.contains("READY"), "{message}");
    }
}

#[test]
fn a_manager_that_is_not_there_or_does_not_read_is_no_error() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::PowersOff);
    let _deaf = UnixDatagram::bind(sandbox.file("deaf")).unwrap();
    for socket in ["nowhere", "deaf", "@abstract-and-nowhere", ""] {
        let socket =
            if socket.starts_with('@') || socket.is_empty() { socket.into() } else { sandbox.file(socket) };
        let mut command = sandbox.vmrun();
        command.env("NOTIFY_SOCKET", &socket).arg("qemu").arg(&image);
        let ended = Foreground::start(command).end();
        assert_eq!(ended.code(), 0, "{socket:?} {ended:#?}");
    }
}

#[test]
fn the_managers_folders_are_used() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let runtime = sandbox.file("runtime");
    std::fs::create_dir(&runtime).unwrap();
    std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o700)).unwrap();
    let there = |mut command: Command| {
        command.env_remove("VMRUN_RUNTIME_DIR").env("RUNTIME_DIRECTORY", &runtime);
        command.env("STATE_DIRECTORY", &runtime);
        command
    };
    let mut start = there(sandbox.vmrun());
    start.arg("qemu").arg(&image);
    let vm = Foreground::start(start);
    vm.wait_for(Guest::ReactsToButton.greeting());
    assert!(runtime.join("vmrun/guest").exists());
    let mut status = there(sandbox.vmrun());
    assert!(status.args(["ctl", "status"]).output().unwrap().status.success());
    vm.signal(Signal::SIGTERM);
    assert_eq!(vm.end().code(), 0);
    assert!(runtime.join("guest-state/outcome.json").exists() && !sandbox.file("guest-state").exists());
}

#[test]
#[cfg_attr(lacks = "systemd-analyze", ignore = "needs systemd-analyze")]
fn the_examples_of_units_are_valid() {
    unit_is_valid("vmrun@.service", &[]);
    unit_is_valid("user/vmrun@.service", &["--user"]);
}

fn unit_is_valid(name: &str, options: &[&str]) {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/systemd").join(name);
    let text = std::fs::read_to_string(unit).unwrap();
    for setting in ["Type=notify", "KillMode=mixed", "NotifyAccess=main"] {
        assert!(text.lines().any(|line| line == setting), "{setting}");
    }
    let sandbox = Sandbox::new();
    // the program is looked for where the unit says
    let installed = text.replace("/usr/local/bin/vmrun", env!("CARGO_BIN_EXE_vmrun"));
    assert_ne!(installed, text);
    let copy = sandbox.file("vmrun@.service");
    std::fs::write(&copy, installed).unwrap();
    let verify =
        Command::new("systemd-analyze").arg("verify").args(options).arg("--man=no").arg(&copy).output();
    let verify = verify.expect("systemd-analyze");
    let said = String::from_utf8_lossy(&verify.stderr).into_owned();
    // without a running systemd it complains of that, and of units that are none of ours
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("vmrun")).collect();
    assert!(ours.is_empty(), "{said}");
}
