//! Every way in which a VM can end: outcome, exit code, message, and that nothing is left.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::boot_sector::{Guest, says};
use crate::support::processes::{qemu_of, send};
use crate::support::sandbox::{Foreground, Sandbox};

/// A foreground VM that has greeted.
fn greeted(guest: Guest, options: &[&str]) -> (Sandbox, Foreground) {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(guest);
    let mut command = sandbox.vmrun();
    // a group of its own, as a shell gives it
    command.process_group(0).arg("qemu").args(options).arg(image);
    let vm = Foreground::start(command);
    vm.wait_for(guest.greeting());
    (sandbox, vm)
}

/// Checks exit code, outcome, a word of the message, and that nothing is left.
#[track_caller]
fn ends(sandbox: &Sandbox, vm: Foreground, code: i32, ending: &str, word: &str) {
    let ended = vm.end();
    assert_eq!(ended.code(), code, "{ended:#?}");
    let outcome = sandbox.outcome();
    assert_eq!(outcome["ending"], ending, "{outcome}");
    assert_eq!(outcome["exit_code"], code, "{outcome}");
    assert!(outcome["message"].as_str().unwrap().contains(word), "{outcome}");
    // the plain good ends are not worth a word
    assert_eq!(ended.stderr.contains(word), code != 0, "{ended:#?}");
    sandbox.is_clean();
}

/// The same for a VM whose own messages are not of interest.
#[track_caller]
fn ends_as(sandbox: &Sandbox, vm: Foreground, code: i32, ending: &str) {
    let ended = vm.end();
    assert_eq!(ended.code(), code, "{ended:#?}");
    assert_eq!(sandbox.outcome()["ending"], ending);
    sandbox.is_clean();
}

#[track_caller]
fn shutdown(sandbox: &Sandbox, options: &[&str], code: i32) -> Value {
    let done = sandbox.ctl([&["--json", "shutdown"], options].concat());
    assert_eq!(done.code, code, "{done:#?}");
    serde_json::from_str(&done.stdout).unwrap()
}

#[test]
fn a_guest_that_ignores_the_button_is_made_to_quit() {
    let (sandbox, vm) = greeted(Guest::IgnoresButton, &[]);
    let outcome = shutdown(&sandbox, &["--timeout", "1s"], 12);
    assert_eq!(outcome["ending"], "quit");
    assert!((1000..20_000).contains(&outcome["after_ms"].as_u64().unwrap()), "{outcome}");
    ends(&sandbox, vm, 12, "quit", "told to quit");
}

#[test]
fn a_guest_that_reacts_late_is_waited_for() {
    let (sandbox, vm) = greeted(Guest::ReactsLate { seconds: 2 }, &[]);
    let outcome = shutdown(&sandbox, &["--timeout", "60s"], 0);
    assert!(outcome["after_ms"].as_u64().unwrap() > 1500, "{outcome}");
    ends(&sandbox, vm, 0, "asked_acpi", "power button");
}

#[test]
fn the_button_is_pressed_again_for_a_guest_that_missed_it() {
    let (sandbox, vm) = greeted(Guest::SecondPress, &[]);
    shutdown(&sandbox, &["--timeout", "4s"], 0);
    ends(&sandbox, vm, 0, "asked_acpi", "power button");
    let (sandbox, vm) = greeted(Guest::SecondPress, &[]);
    shutdown(&sandbox, &["--timeout", "1s", "--no-repeat"], 12);
    ends(&sandbox, vm, 12, "quit", "told to quit");
}

#[test]
fn a_paused_guest_is_resumed_to_be_asked() {
    let (sandbox, vm) = greeted(Guest::ReactsToButton, &[]);
    sandbox.ctl(["pause"]).ok();
    shutdown(&sandbox, &["--timeout", "60s"], 0);
    ends(&sandbox, vm, 0, "asked_acpi", "power button");
}

#[test]
fn a_panic_ends_with_10() {
    let (sandbox, vm) = greeted(Guest::Panics, &[]);
    ends(&sandbox, vm, 10, "panicked", "panicked");
}

#[test]
fn after_a_panic_the_vm_can_be_kept_and_reset() {
    let (sandbox, vm) = greeted(Guest::PanicsOnButton, &["--on-panic", "pause"]);
    sandbox.ctl(["powerdown"]).ok();
    sandbox.ctl(["wait", "--any", "event=GUEST_PANICKED", "paused", "--timeout", "60s"]).ok();
    let status = sandbox.ctl_json(["status"]);
    assert_eq!(status["state"], "panicked", "{status}");
    assert!(status["reason"].as_str().unwrap().contains("panicked"), "{status}");
    sandbox.ctl(["wait", "running"]).fails(10, &["panicked"]);
    sandbox.ctl(["reset"]).ok();
    sandbox.ctl(["resume"]).ok();
    vm.wait_for(Guest::PanicsOnButton.greeting());
    let status = sandbox.ctl_json(["status"]);
    assert_eq!((&status["state"], &status["reason"]), (&"running".into(), &Value::Null));
    // it panicked once and was reset: that is not how it ends
    shutdown(&sandbox, &["--force"], 0);
    ends(&sandbox, vm, 12, "quit", "told to quit");
}

#[test]
fn a_panic_can_reset_the_guest() {
    let (sandbox, vm) = greeted(Guest::PanicsOnButton, &["--on-panic", "reset"]);
    for _ in 0..2 {
        sandbox.ctl(["powerdown"]).ok();
        vm.wait_for(Guest::PanicsOnButton.greeting());
        assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
    }
    shutdown(&sandbox, &["--force"], 0);
    ends(&sandbox, vm, 12, "quit", "told to quit");
}

#[test]
fn too_many_resets_end_with_13() {
    let (sandbox, vm) = greeted(Guest::ResetsForEver, &["--max-resets", "3"]);
    vm.wait_for(Guest::ResetsForEver.greeting());
    ends(&sandbox, vm, 13, "too_many_resets", "reset too often");
}

#[test]
fn as_many_resets_as_allowed_do_not_end_it() {
    let (sandbox, vm) = greeted(Guest::Resets { times: 3 }, &["--max-resets", "3"]);
    for _ in 0..3 {
        vm.wait_for(Guest::Resets { times: 3 }.greeting());
    }
    shutdown(&sandbox, &["--timeout", "60s"], 0);
    ends(&sandbox, vm, 0, "asked_acpi", "power button");
}

#[test]
fn a_reset_ends_a_vm_without_reboot() {
    let (sandbox, vm) = greeted(Guest::ResetsForEver, &["--no-reboot"]);
    ends(&sandbox, vm, 0, "guest_reset", "reset");
}

#[test]
fn a_crash_of_qemu_is_told_by_its_signal() {
    for signal in [Signal::SIGSEGV, Signal::SIGKILL] {
        let (sandbox, vm) = greeted(Guest::IgnoresButton, &[]);
        send(qemu_of(sandbox.path()), signal);
        ends(&sandbox, vm, 11, "crashed", signal.as_str());
    }
}

#[test]
fn qemu_does_not_end_on_signals_to_itself() {
    let (sandbox, vm) = greeted(Guest::ReactsToButton, &[]);
    let qemu = qemu_of(sandbox.path());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        send(qemu, signal);
    }
    // QEMU would have ended before it answers this
    assert!(sandbox.ctl(["hmp", "info status"]).line().contains("running"));
    shutdown(&sandbox, &["--timeout", "60s"], 0);
    ends(&sandbox, vm, 0, "asked_acpi", "power button");
}

#[test]
fn each_signal_asks_the_guest() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let (sandbox, vm) = greeted(Guest::ReactsToButton, &[]);
        vm.signal(signal);
        vm.wait_for(says::BUTTON);
        ends(&sandbox, vm, 0, "asked_acpi", "power button");
    }
}

#[test]
fn a_signal_to_the_whole_group_ends_with_the_guests_own_power_off() {
    let (sandbox, vm) = greeted(Guest::ReactsToButton, &[]);
    let group = Pid::from_raw(vm.pid());
    let qemu = Pid::from_raw(qemu_of(sandbox.path()));
    assert_eq!(nix::unistd::getpgid(Some(qemu)).unwrap(), group, "QEMU gets the signal, too");
    killpg(group, Signal::SIGTERM).unwrap();
    vm.wait_for(says::BUTTON);
    vm.wait_for(says::OFF);
    ends(&sandbox, vm, 0, "asked_acpi", "power button");
}

/// Lets the time pass in which signals belong to one request; nothing happens at its end that could be awaited.
fn a_request_later() {
    std::thread::sleep(std::time::Duration::from_millis(1100));
}

#[test]
fn signals_that_come_together_are_one_request() {
    for (first, second) in [
        (Signal::SIGTERM, Signal::SIGTERM),
        (Signal::SIGHUP, Signal::SIGHUP),
        (Signal::SIGINT, Signal::SIGINT),
        (Signal::SIGTERM, Signal::SIGHUP),
    ] {
        let (sandbox, vm) = greeted(Guest::ReactsToButton, &["-v"]);
        vm.signal(first);
        // taken note of: the second is one of its own for the kernel
        vm.wait_for_error("pressing the power button");
        vm.signal(second);
        ends_as(&sandbox, vm, 0, "asked_acpi");
    }
}

#[test]
fn a_second_signal_quits_and_a_third_kills() {
    let (sandbox, vm) = greeted(Guest::IgnoresButton, &["-v"]);
    vm.signal(Signal::SIGTERM);
    vm.wait_for_error("pressing the power button");
    a_request_later();
    vm.signal(Signal::SIGTERM);
    ends(&sandbox, vm, 12, "quit", "told to quit");

    let (sandbox, vm) = greeted(Guest::IgnoresButton, &["-v"]);
    // a QEMU that hears nothing any more
    send(qemu_of(sandbox.path()), Signal::SIGSTOP);
    vm.signal(Signal::SIGTERM);
    vm.wait_for_error("pressing the power button");
    a_request_later();
    vm.signal(Signal::SIGINT);
    vm.wait_for_error("telling QEMU to quit");
    a_request_later();
    vm.signal(Signal::SIGHUP);
    ends(&sandbox, vm, 12, "killed", "killed");
}

#[test]
fn the_budget_of_a_signal_is_a_flag() {
    let (sandbox, vm) = greeted(Guest::IgnoresButton, &["--stop-timeout", "500ms"]);
    vm.signal(Signal::SIGTERM);
    ends(&sandbox, vm, 12, "quit", "told to quit");
}

#[test]
fn who_waits_for_the_end_of_a_detached_vm_is_told_how_it_ended() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::PanicsOnButton);
    sandbox.detached([&image]);
    sandbox.ctl(["wait", &format!("console={}", Guest::PanicsOnButton.greeting())]).ok();
    let mut command = sandbox.vmrun();
    command.args(["ctl", "--json", "wait", "exit"]);
    let waiting = Foreground::start(command);
    sandbox.ctl(["powerdown"]).ok();
    let told = waiting.end();
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told[0]["details"]["outcome"]["ending"], "panicked", "{told}");
    assert_eq!(sandbox.outcome()["ending"], "panicked");
    sandbox.is_clean();
}

/// A small tmpfs in the test's folder.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Self {
        std::fs::create_dir(&path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&path).output();
        assert!(mounted.is_ok_and(|mount| mount.status.success()), "a tmpfs cannot be mounted here");
        Self(path)
    }

    fn grow(&self) {
        let grown = Command::new("mount").args(["-o", "remount,size=16m"]).arg(&self.0).status().unwrap();
        assert!(grown.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // lazily, for a test that failed half-way has a QEMU in it
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
#[cfg_attr(lacks = "mount", ignore = "needs mount")]
fn a_full_disk_pauses_the_vm_until_there_is_room() {
    let sandbox = Sandbox::new();
    let small = SmallDisk::mount(sandbox.file("small"));
    let image = sandbox.boot_sector(Guest::WritesDisk);
    let disk = format!("{},size=4M,format=raw,id=data", small.0.join("data.img").display());
    let mut command = sandbox.vmrun();
    command.arg("qemu").arg(&image).args(["--disk", &disk]);
    let vm = Foreground::start(command);
    let error = vm.wait_for_error("no space left");
    assert!(error.contains("data"), "{error}");
    sandbox.ctl(["wait", "paused", "--timeout", "60s"]).ok();
    let full = |status: &Value| {
        assert_eq!(status["state"], "io_error", "{status}");
        let reason = status["reason"].as_str().unwrap();
        assert!(reason.contains("no space left") && reason.contains("'data'"), "{status}");
    };
    full(&sandbox.ctl_json(["status"]));
    let written = sandbox.counter();
    // without room it stops again
    sandbox.ctl(["resume"]).ok();
    vm.wait_for_error("no space left");
    sandbox.ctl(["wait", "paused", "--timeout", "60s"]).ok();
    full(&sandbox.ctl_json(["status"]));
    small.grow();
    sandbox.ctl(["resume"]).ok();
    // once around the whole disk
    while !vm.wait_for("wrote").contains("wrote 00010240") {}
    let status = sandbox.ctl_json(["status"]);
    assert_eq!((&status["state"], &status["reason"]), (&"running".into(), &Value::Null));
    assert!(sandbox.counter() > written);
    shutdown(&sandbox, &["--timeout", "60s"], 0);
    ends(&sandbox, vm, 0, "asked_acpi", "power button");
}
