//! A whole VM in a file and back: memory, disks, what was plugged, addresses and forwards go on.

use serde_json::json;

use crate::support::http;
use crate::support::linux::{Linux, port};
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
    let before = lasting(&vm.sandbox);

    assert!(vm.ctl(["save", "vm.saved"]).ends_with("vm.saved"));
    let (ended, sandbox) = vm.end();
    assert_eq!(ended.code(), 0);
    let outcome = std::fs::read_to_string(sandbox.file("state/outcome.json")).unwrap();
    assert!(outcome.contains("\"saved\""), "{outcome}");
    sandbox.is_clean();
    let file = sandbox.file("vm.saved");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o7777, 0o600);

    sandbox.detached(["--restore", "vm.saved"]);
    assert_eq!(lasting(&sandbox), before);
    let port = port(&sandbox.ctl_json(["port-list"])[0]);
    assert_eq!(run(port, "cat /tmp/mark"), "here");
    assert_eq!(run(port, &format!("head -c 5 /dev/{disk}")), "early");
    sandbox.ctl(["wait", "agent", "--timeout", "60s"]).ok();
    sandbox.ctl(["exec", "--", "true"]).ok();
    // all of it can be changed, and saved again
    for remove in [["usb-remove", "keys"], ["disk-remove", "hot"], ["disk-remove", "b"]] {
        sandbox.ctl(remove).ok();
    }
    sandbox.ctl(["pause"]).ok();
    sandbox.ctl(["save", "again.saved"]).ok();
    assert_eq!(sandbox.detached(["--restore", "again.saved", "--name", "other"]), "other");
    let status = sandbox.ctl_json(["status"]);
    assert_eq!((&status["name"], &status["state"]), (&json!("other"), &json!("paused")));
    sandbox.ctl(["resume"]).ok();
    assert_eq!(run(port, "cat /tmp/mark"), "here");
    sandbox.ctl(["shutdown", "--timeout", "60s"]).ok();
    // its disks are not those of then any more
    let refused = sandbox.run(["qemu", "--restore", "again.saved"]);
    refused.fails(1, &["disk.qcow2", "changed or replaced since", "hint: "]);
    sandbox.is_clean();
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

#[test]
fn an_ephemeral_vm_is_not_saved() {
    let vm = Linux::boot(["--ephemeral"]);
    vm.try_ctl(["save", "x"]).fails(4, &["ephemeral", "thrown away"]);
    vm.quit();
}
