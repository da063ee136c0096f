//! Starts that do not let the guest run, and what arguments behind `--` make of a VM.

use std::fs::File;
use std::path::Path;

use serde_json::Value;

use crate::support::boot_sector::Guest;
use crate::support::sandbox::Sandbox;

fn qemu_says(sandbox: &Sandbox, command: &str) -> Value {
    serde_json::from_str(&sandbox.ctl(["qmp", command]).ok().stdout).unwrap()
}

#[test]
fn a_paused_start_runs_no_guest_until_it_is_told_to() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    sandbox.detached(["--paused".as_ref(), image.as_os_str()]);
    assert_eq!(sandbox.ctl_json(["status"])["state"], "paused");
    assert_eq!(qemu_says(&sandbox, "query-status")["running"], false);
    sandbox.ctl(["wait", "paused"]).ok();
    sandbox.ctl(["wait", "running", "--timeout", "1ms"]).fails(5, &[]);
    sandbox.ctl(["resume"]).ok();
    sandbox.ctl(["wait", "running"]).ok();
    let greeting = format!("console={}", Guest::ReactsToButton.greeting());
    sandbox.ctl(["wait", &greeting]).ok();
    assert_eq!(qemu_says(&sandbox, "query-status")["running"], true);
    sandbox.ctl(["shutdown"]).ok();
}

#[test]
fn a_paused_start_stays_paused_under_a_new_supervisor() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    sandbox.detached(["--paused".as_ref(), image.as_os_str()]);
    let supervisor = i32::try_from(sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    assert_eq!(sandbox.ctl_json(["status"])["state"], "paused");
    assert_eq!(qemu_says(&sandbox, "query-status")["running"], false);
    sandbox.ctl(["shutdown", "--force"]);
}

#[test]
fn a_restored_vm_stays_paused_until_it_is_told_to_run() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    sandbox.detached(["--name", "vm", image.to_str().unwrap()]);
    let greeting = format!("console={}", Guest::ReactsToButton.greeting());
    sandbox.ctl(["wait", &greeting]).ok();
    sandbox.ctl(["save", "vm.saved"]).ok();
    assert_eq!(sandbox.detached(["--restore", "vm.saved", "--paused"]), "vm");
    assert_eq!(sandbox.ctl_json(["status"])["state"], "paused");
    assert_eq!(qemu_says(&sandbox, "query-status")["running"], false);
    // no press can be missed: the guest reacts to the button when it runs
    sandbox.ctl(["powerdown"]).fails(4, &["the guest does not run"]);
    sandbox.ctl(["resume"]).ok();
    assert_eq!(qemu_says(&sandbox, "query-status")["running"], true);
    sandbox.ctl(["shutdown", "--timeout", "1m"]).ok();
    sandbox.is_clean();
}

#[test]
fn what_would_be_undone_is_refused_with_the_flag_for_it() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let done = sandbox.vmrun().arg("qemu").arg(&image).args(["--", "-S"]).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.code() == Some(2) && said.contains("hint: `--paused`"), "{said}");
    sandbox.is_clean();
}

#[test]
fn what_arguments_behind_the_dashes_decide_is_told_as_qemu_has_it() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    File::create(sandbox.file("theirs.img")).unwrap().set_len(1 << 20).unwrap();
    let raw = "-m 256 -smp 3 -drive if=none,id=x,format=raw,file=theirs.img -device virtio-blk-pci,drive=x,id=theirs";
    let arguments = [image.to_str().unwrap(), "--"].into_iter().chain(raw.split(' '));
    sandbox.detached(arguments);
    let status = sandbox.ctl_json(["status"]);
    assert_eq!((&status["cpus"], &status["memory_bytes"]), (&3.into(), &(256u64 << 20).into()));
    let disk = status["disks"].as_array().unwrap().iter().find(|disk| disk["id"] == "theirs").unwrap();
    assert_eq!(disk["file"], sandbox.file("theirs.img").to_str().unwrap());
    // it can be driven, and its image stays the user's
    sandbox.ctl(["disk-throttle", "theirs", "--iops", "100"]).ok();
    let saved = sandbox.file("saved");
    sandbox.ctl([Path::new("save"), &saved]).ok();
    let restore = ["--restore".as_ref(), saved.as_os_str(), "--".as_ref()];
    sandbox.detached(restore.into_iter().chain(raw.split(' ').map(AsRef::as_ref)));
    assert_eq!(sandbox.ctl_json(["status"])["cpus"], 3);
    sandbox.ctl(["shutdown", "--force"]);
}
