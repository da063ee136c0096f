//! How a VM with a real guest ends when it is asked to.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::linux::Linux;
use crate::support::sandbox::{Sandbox, linux_guest};

/// Not politely: qemu-ga loses a SIGTERM that comes before its main loop runs.
/// Nobody takes the agent's exit status in this guest: what is left of it is a process without a program.
pub(crate) const KILL_AGENT: &str =
    "kill -9 $(cat /run/agent.pid) && while readlink /proc/$(cat /run/agent.pid)/exe > /dev/null; do :; done";

/// The guest with more options on the kernel's command line.
pub(crate) fn with_options(sandbox: &Sandbox, options: &str) -> PathBuf {
    let guest = linux_guest();
    let suffixed = |suffix: &str| PathBuf::from(format!("{}{suffix}", guest.display()));
    for suffix in ["-kernel", "-initrd.img"] {
        symlink(suffixed(suffix), sandbox.file(format!("own{suffix}"))).unwrap();
    }
    let cmdline = std::fs::read_to_string(suffixed("-cmdline")).unwrap();
    std::fs::write(sandbox.file("own-cmdline"), format!("{} {options}\n", cmdline.trim())).unwrap();
    sandbox.file("own")
}

/// Runs `shutdown --json` and waits for the end: the outcome's `ending`.
fn shut_down(vm: Linux, options: &[&str], code: i32) -> String {
    let done = vm.try_ctl([&["--json", "shutdown"], options].concat());
    assert_eq!(done.code, code, "{done:#?}");
    let outcome: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(outcome["exit_code"], code, "{outcome}");
    assert!(outcome["after_ms"].as_u64().is_some_and(|after| after > 0), "{outcome}");
    let (ended, sandbox) = vm.end();
    assert_eq!(ended.code(), code, "{ended:#?}");
    assert_eq!(std::fs::read_dir(sandbox.runtime()).unwrap().count(), 0, "the run directory is gone");
    let powered_off = ended.stdout.contains("Power down");
    assert_eq!(powered_off, code == 0, "{ended:#?}");
    outcome["ending"].as_str().unwrap().to_owned()
}

#[test]
fn the_agent_is_asked_first() {
    let vm = Linux::boot(["--qmp-log", "qmp.log"]);
    let log = vm.file("qmp.log");
    // the supervisor's own transcript has both monitors: its first call to the agent, and the answer
    vm.until("the agent has answered", |_| {
        let log = std::fs::read_to_string(&log).unwrap();
        let mut sync = log.lines().skip_while(|line| !line.contains("guest-sync"));
        sync.any(|line| line.contains(r#""dir":"in""#) && line.contains("return"))
    });
    assert_eq!(shut_down(vm, &[], 0), "asked_agent");
}

#[test]
fn without_an_agent_the_button_is_pressed() {
    let vm = Linux::boot::<&str>([]);
    vm.sees("power button ready");
    vm.sees("add port org.qemu.guest_agent.0");
    vm.run(KILL_AGENT);
    assert_eq!(shut_down(vm, &["--timeout", "60s"], 0), "asked_acpi");
}

#[test]
fn a_guest_that_ignores_the_button_is_forced_off() {
    let sandbox = Sandbox::new();
    let prefix = with_options(&sandbox, "vmrun.ignore-power");
    let vm = Linux::boot_in(sandbox, &prefix, ["--name", "stubborn"]);
    vm.sees("power button ready");
    vm.sees("add port org.qemu.guest_agent.0");
    vm.run(KILL_AGENT);
    vm.ctl(["powerdown"]);
    vm.sees("power button pressed");
    assert_eq!(vm.run("echo still here"), "still here");
    assert_eq!(vm.status()["state"], "running");
    assert_eq!(shut_down(vm, &["--timeout", "3s"], 12), "quit");
}

#[test]
fn a_guest_that_boots_is_asked_again_soon() {
    let sandbox = Sandbox::new();
    let guest = linux_guest();
    // right after the start nothing in the guest listens yet
    sandbox.detached([guest.to_str().unwrap()]);
    let outcome = sandbox.ctl(["--json", "shutdown", "--timeout", "200s"]).ok().json();
    // without that the second press would come after half of the time
    assert!(outcome["after_ms"].as_u64().unwrap() < 90_000, "{outcome}");
    assert!(["asked_agent", "asked_acpi"].contains(&outcome["ending"].as_str().unwrap()), "{outcome}");
    sandbox.is_clean();
}

#[test]
fn the_guests_own_power_off_is_the_good_end() {
    let vm = Linux::boot::<&str>([]);
    let _ = vm.ask("poweroff");
    let (ended, sandbox) = vm.end();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    assert_eq!(std::fs::read_dir(sandbox.runtime()).unwrap().count(), 0);
}
