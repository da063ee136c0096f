//! A whole VM saved to a file and restored: memory, disks, plugged devices, addresses and forwards are kept.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::boot_sector::Guest;
use crate::support::http;
use crate::support::linux::{Linux, port};
use crate::support::orphan::forget_taken;
use crate::support::processes::{eventually, send};
use crate::support::sandbox::{PATIENCE, Sandbox};

/// Runs a script in a guest that was restored.
#[track_caller]
fn run(port: u16, script: &str) -> String {
    let sent = http::send(port, "POST", "/cgi-bin/sh", script).unwrap();
    let body = sent.answer(PATIENCE).unwrap();
    let (output, code) = body.trim_end().rsplit_once("exit=").unwrap();
    assert_eq!(code, "0", "{script}: {output}");
    output.trim_end().to_owned()
}

/// What of a status goes on.
fn lasting(sandbox: &Sandbox) -> serde_json::Value {
    let mut status = sandbox.ctl_json(["status"]);
    let facts = status.as_object_mut().unwrap();
    for changing in ["uptime_ms", "supervisor_pid", "qemu_pid", "machine", "detached", "accel_reason"] {
        facts.remove(changing).unwrap();
    }
    forget_taken(&mut status);
    status
}

#[test]
fn a_vm_goes_on_where_it_was() {
    let vm = Linux::boot(["--disk", "disk.qcow2,size=64M,serial=KEPT,id=kept"]);
    vm.sees_disk("KEPT");
    // places that QEMU gives out differently to a machine that has all of it from the start
    vm.ctl(["usb-add", "usb-tablet", "--id", "gone"]);
    vm.ctl(["usb-add", "usb-kbd", "--id", "keys"]);
    vm.ctl(["usb-remove", "gone"]);
    for name in ["a", "b"] {
        vm.ctl(["disk-add", &format!("{name}.img,size=8M,bus=scsi,id={name},serial=S-{name}")]);
        vm.sees_disk(&format!("S-{name}"));
    }
    vm.ctl(["disk-remove", "a"]);
    vm.ctl(["disk-add", "hot.qcow2,size=8M,id=hot,serial=HOT"]);
    let (disk, _) = vm.sees_disk("HOT");
    vm.run(&format!("mkdir -p /tmp; echo here > /tmp/mark; printf early | dd of=/dev/{disk} conv=notrunc"));
    vm.run("date -s @1000000000");
    let before = lasting(&vm.sandbox);
    // a file decides neither folders nor addresses
    let published = format!("{}:80", port(&vm.sandbox.ctl_json(["port-list"])[0]));
    let words = ["--state", "state", "--publish", &published];

    assert!(vm.ctl(["save", "vm.saved"]).ends_with("vm.saved"));
    let (ended, sandbox) = vm.end();
    assert_eq!(ended.code(), 0);
    let outcome = std::fs::read_to_string(sandbox.file("state/outcome.json")).unwrap();
    assert!(outcome.contains("\"saved\""), "{outcome}");
    sandbox.is_clean();
    let file = sandbox.file("vm.saved");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o7777, 0o600);

    sandbox.detached(["--restore", "vm.saved"].into_iter().chain(words));
    assert_eq!(lasting(&sandbox), before);
    let port = port(&sandbox.ctl_json(["port-list"])[0]);
    assert_eq!(run(port, "cat /tmp/mark"), "here");
    assert_eq!(run(port, &format!("head -c 5 /dev/{disk}")), "early");
    sandbox.ctl(["wait", "agent", "--timeout", "60s"]).ok();
    sandbox.ctl(["exec", "--", "true"]).ok();
    // its clock is right, though no client asked for that
    eventually("the clock is set", || run(port, "date +%s").parse::<u64>().unwrap() > 1_700_000_000);
    // all of it can be changed, and saved again
    for remove in [["usb-remove", "keys"], ["disk-remove", "hot"], ["disk-remove", "b"]] {
        sandbox.ctl(remove).ok();
    }
    sandbox.ctl(["pause"]).ok();
    sandbox.ctl(["save", "again.saved"]).ok();
    let again = ["--restore", "again.saved", "--name", "other"].into_iter().chain(words);
    assert_eq!(sandbox.detached(again), "other");
    let status = sandbox.ctl_json(["status"]);
    assert_eq!((&status["name"], &status["state"]), (&json!("other"), &json!("paused")));
    sandbox.ctl(["resume"]).ok();
    assert_eq!(run(port, "cat /tmp/mark"), "here");
    run(port, "printf later | dd of=/dev/vda conv=notrunc,fsync");
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    // its disks are not those of then any more
    let refused = sandbox.run(["qemu", "--restore", "again.saved"]);
    refused.fails(1, &["disk.qcow2", "changed or replaced since", "hint: "]);
    sandbox.is_clean();
}

#[test]
fn pulled_cables_and_limits_stay_so() {
    let vm = Linux::boot(["--disk", "cold.qcow2,size=8M,id=cold"]);
    vm.ctl(["disk-add", "hot.qcow2,size=8M,id=hot,bus=usb"]);
    vm.ctl(["disk-throttle", "cold", "--iops", "100"]);
    vm.ctl(["disk-throttle", "hot", "--bps-read", "5M", "--bps-write", "3M"]);
    let limits = |sandbox: &Sandbox| -> Vec<serde_json::Value> {
        let disks = sandbox.ctl_json(["disk-list"]);
        disks.as_array().unwrap().iter().map(|disk| disk["limits"].clone()).collect()
    };
    let limited = limits(&vm.sandbox);
    assert_eq!(limited[0]["iops"], 100, "{limited:?}");
    vm.ctl(["nic-add", "user,id=lan"]);
    vm.sees("add net eth1");
    vm.ctl(["nic-add", "user,id=other"]);
    vm.sees("add net eth2");
    vm.ctl(["wait", "agent", "--timeout", "60s"]);
    vm.ctl(["link", "down", "lan"]);
    vm.ctl(["link", "down", "nic0"]);
    vm.ctl(["link", "up", "nic0"]);
    vm.ctl(["save", "vm.saved"]);
    let (_, sandbox) = vm.end();
    sandbox.detached(["--restore", "vm.saved", "--state", "state"]);
    let links = || -> Vec<(String, bool)> {
        let nics = sandbox.ctl_json(["nic-list"]);
        let link = |nic: &serde_json::Value| {
            (nic["id"].as_str().unwrap().to_owned(), nic["link_up"].as_bool().unwrap())
        };
        nics.as_array().unwrap().iter().map(link).collect()
    };
    let pulled = [("nic0", true), ("lan", false), ("other", true)].map(|(id, up)| (id.to_owned(), up));
    assert_eq!(links(), pulled);
    assert_eq!(limits(&sandbox), limited);
    // under any supervisor
    let supervisor = sandbox.ctl_json(["status"])["supervisor_pid"].as_i64().unwrap();
    send(i32::try_from(supervisor).unwrap(), Signal::SIGKILL);
    eventually("there is another supervisor", || {
        let done = sandbox.ctl(["--json", "status"]);
        done.code == 0 && done.json()["supervisor_pid"] != supervisor
    });
    assert_eq!(links(), pulled);
    sandbox.ctl(["wait", "agent", "--timeout", "60s"]).ok();
    let carrier =
        || sandbox.ctl(["exec", "--", "cat", "/sys/class/net/eth1/carrier"]).stdout.trim().to_owned();
    assert_eq!(carrier(), "0");
    sandbox.ctl(["link", "up", "lan"]).ok();
    eventually("the carrier is back", || carrier() == "1");
    sandbox.ctl(["shutdown", "--force"]).ok();
}

#[test]
fn what_cannot_be_saved_goes_on() {
    let vm = Linux::boot::<&str>([]);
    std::fs::write(vm.file("there"), "mine").unwrap();
    vm.try_ctl(["save", "there"]).fails(4, &["there exists already", "hint: "]);
    vm.try_ctl(["save", "no/such/folder"]).fails(1, &["no/such/folder", "No such file"]);
    vm.ctl(["usb-add", "usb-uas", "--id", "uas"]);
    vm.try_ctl(["save", "x"]).fails(4, &["usb-uas", "unplug it first: uas"]);
    vm.ctl(["usb-remove", "uas"]);
    vm.ctl(["qmp", r#"{"execute":"device_add","arguments":{"driver":"usb-kbd","id":"raw"}}"#]);
    vm.try_ctl(["save", "x"]).fails(4, &["'raw'", "not by vmrun"]);
    vm.ctl(["usb-remove", "raw"]);
    assert_eq!(vm.status()["state"], "running");
    assert_eq!(std::fs::read(vm.file("there")).unwrap(), b"mine");
    assert!(!vm.file("x").exists() && !vm.file("x.part").exists());
    vm.run("true");
    vm.quit();
}

/// What one saw of a file, and changes of it.
#[test]
fn only_a_whole_file_of_a_fitting_qemu_is_restored() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::ReactsToButton);
    sandbox.detached(["--name", "vm", image.to_str().unwrap()]);
    sandbox.booted("vm");
    let version = sandbox.ctl_json(["status"])["qemu_version"].as_str().unwrap().to_owned();
    sandbox.ctl(["save", "vm.saved"]).ok();
    let whole = std::fs::read(sandbox.file("vm.saved")).unwrap();
    let refused = |name: &str, bytes: &[u8], words: &[&str]| {
        std::fs::write(sandbox.file(name), bytes).unwrap();
        // whatever the umask: what others can write is refused for that alone
        std::fs::set_permissions(sandbox.file(name), Permissions::from_mode(0o600)).unwrap();
        sandbox.run(["qemu", "--restore", name]).fails(1, words);
        sandbox.is_clean();
    };
    refused("short", &whole[..whole.len() - 1], &["short is cut off"]);
    refused("image", &std::fs::read(&image).unwrap(), &["image is not a saved VM", "hint: ", "ctl save"]);
    // one digit more makes it newer than any
    let newer =
        replaced(&whole, &format!("\"{version}\""), &format!("\"9{}\"", &version[..version.len() - 1]));
    let newer_version = format!("saved by QEMU 9{}", &version[..1]);
    refused("newer", &newer, &[&newer_version, "hint: ", "--qemu"]);
    // and something else where QEMU's own words begin
    let mut foreign = whole.clone();
    foreign[256 << 10..(256 << 10) + 4].copy_from_slice(b"XXXX");
    refused("foreign", &foreign, &[]);
    assert_eq!(sandbox.detached(["--restore", "vm.saved"]), "vm");
    sandbox.ctl(["shutdown", "--timeout", "30s"]).ok();
    sandbox.run(["qemu", "--restore", "none"]).fails(1, &["none: No such file"]);
    sandbox.run(["qemu", "--restore", "vm.saved", "x.img"]).fails(2, &["--restore"]);
    sandbox.run(["qemu", "--restore", "vm.saved", "--mem", "1G"]).fails(2, &["--restore", "--mem"]);
    sandbox.is_clean();
}

/// The bytes with a text replaced by one of the same length.
fn replaced(bytes: &[u8], old: &str, new: &str) -> Vec<u8> {
    let at = bytes.windows(old.len()).position(|window| window == old.as_bytes()).unwrap();
    let mut changed = bytes.to_vec();
    changed[at..at + new.len()].copy_from_slice(new.as_bytes());
    changed
}

#[test]
fn an_ephemeral_vm_is_not_saved() {
    let vm = Linux::boot(["--ephemeral"]);
    vm.try_ctl(["save", "x"]).fails(4, &["ephemeral", "thrown away"]);
    vm.quit();
}
