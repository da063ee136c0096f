//! VMs that end by themselves: with the process that started them, or when their time is over.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::boot_sector::Guest;
use crate::support::processes::{eventually, send};
use crate::support::sandbox::Sandbox;

fn ended_by_the_button(sandbox: &Sandbox) {
    eventually("the VM has ended", || sandbox.file("guest-state/outcome.json").exists());
    assert_eq!(sandbox.outcome()["ending"], "asked_acpi");
    sandbox.is_clean();
}

#[test]
fn a_vm_is_shut_down_when_its_time_is_over() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let began = Instant::now();
    let vm = sandbox.foreground(["--max-lifetime", "2s", image.to_str().unwrap()]);
    vm.wait_for_error("has run for 2s, which is its lifetime");
    assert!(began.elapsed() >= Duration::from_secs(2));
    let ended = vm.end();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    ended_by_the_button(&sandbox);
}

#[test]
fn a_new_supervisor_knows_how_long_the_vm_may_run() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    sandbox.detached(["--max-lifetime", "4s", image.to_str().unwrap()]);
    let supervisor = sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap();
    send(i32::try_from(supervisor).unwrap(), Signal::SIGKILL);
    let status = sandbox.ctl_json(["status"]);
    assert_ne!(status["supervisor_pid"].as_i64(), Some(supervisor), "{status}");
    ended_by_the_button(&sandbox);
}

/// Before there is a VM of its own, there is one that is booted for the template.
#[test]
fn the_boot_for_a_template_ends_with_it_too() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let vmrun = sandbox.vmrun();
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$0\" qemu --die-with-parent --warm console=never \"$1\"; exit 3"]);
    shell.arg(vmrun.get_program()).arg(&image);
    shell.envs(vmrun.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut shell = shell.current_dir(sandbox.path()).spawn().unwrap();
    eventually("a VM is booted", || sandbox.ctl(["status"]).code == 0);
    shell.kill().unwrap();
    shell.wait().unwrap();
    sandbox.is_clean();
}

#[test]
fn a_vm_ends_with_the_process_that_started_it() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    let vmrun = sandbox.vmrun();
    let mut shell = Command::new("sh");
    // a command after it keeps the shell
    shell.args(["-c", "\"$0\" qemu --die-with-parent \"$1\"; exit 3"]).arg(vmrun.get_program()).arg(&image);
    shell.envs(vmrun.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut shell = shell.current_dir(sandbox.path()).spawn().unwrap();
    eventually("the VM runs", || sandbox.ctl(["status"]).code == 0);
    sandbox.ctl(["wait", &format!("console={}", Guest::ReactsToButton.greeting())]).ok();
    shell.kill().unwrap();
    shell.wait().unwrap();
    ended_by_the_button(&sandbox);
    sandbox
        .run(["qemu", "--detached", "--die-with-parent", "x"])
        .fails(2, &["--die-with-parent", "--detached"]);
}
