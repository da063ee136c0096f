//! How a VM with a real guest ends when it is asked to.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::linux::Linux;
use crate::support::sandbox::{Sandbox, linux_guest};

const KILL_AGENT: &str = "kill $(cat /run/agent.pid) && while [ -e /proc/$(cat /run/agent.pid) ]; do :; done";

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
    let vm = Linux::boot::<&str>([]);
    vm.sees("add port org.qemu.guest_agent.0");
    vm.until("the agent has answered", |vm| {
        // the guest's own log says when: the supervisor's first call is `guest-sync`
        vm.run("ls /proc/$(cat /run/agent.pid)/fd | wc -l") != "0"
    });
    assert_eq!(shut_down(vm, &[], 0), "asked_agent");
}

#[test]
fn without_an_agent_the_button_is_pressed() {
    let vm = Linux::boot::<&str>([]);
    vm.sees("power button ready");
    vm.run(KILL_AGENT);
    assert_eq!(shut_down(vm, &["--timeout", "60s"], 0), "asked_acpi");
}

#[test]
fn a_guest_that_ignores_the_button_is_forced_off() {
    let sandbox = Sandbox::new();
    let prefix = with_options(&sandbox, "vmrun.ignore-power");
    let vm = Linux::boot_in(sandbox, &prefix, ["--name", "stubborn"]);
    vm.sees("power button ready");
    vm.run(KILL_AGENT);
    vm.ctl(["powerdown"]);
    vm.sees("power button pressed");
    assert_eq!(vm.run("echo still here"), "still here");
    assert_eq!(vm.status()["state"], "running");
    assert_eq!(shut_down(vm, &["--timeout", "3s"], 12), "quit");
}

#[test]
fn the_guests_own_power_off_is_the_good_end() {
    let vm = Linux::boot::<&str>([]);
    let _ = vm.ask("poweroff");
    let (ended, sandbox) = vm.end();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    assert_eq!(std::fs::read_dir(sandbox.runtime()).unwrap().count(), 0);
}
