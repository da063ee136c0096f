//! Commands to a VM that make no sense for it, or that come at the wrong time.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{Bad, NOBODY};
use crate::support::boot_sector::Guest;
use crate::support::sandbox::Done;

#[test]
fn no_vm_several_vms_and_names_that_do_not_run() {
    let bad = Bad::new();
    bad.ctl(&["status"], 3, &["no VM is running", "hint: ", "vmrun qemu IMAGE"]);
    bad.ctl(&["--vm", "x", "status"], 3, &["no VM 'x' is running"]);
    bad.sandbox.detached(["--name", "one", "guest.img"]);
    bad.ctl(&["--vm", "x", "status"], 3, &["no VM 'x' is running; running: one", "hint: ", "vmrun ls"]);
    bad.image("two.img");
    bad.sandbox.detached(["--name", "two", "two.img"]);
    for command in [&["status"][..], &["usb-add", "usb-kbd"], &["shutdown", "--force"]] {
        bad.ctl(command, 2, &["several VMs are running: one, two", "hint: ", "--vm one"]);
    }
}

#[test]
fn a_stale_vm_is_told_from_one_that_runs() {
    let bad = Bad::new();
    let vm = bad.sandbox.foreground(["--name", "vm", "guest.img"]);
    vm.wait_for(Guest::IgnoresButton.greeting());
    let qemu = bad.sandbox.ctl_json(["status"])["qemu_pid"].as_i64().unwrap();
    vm.signal(Signal::SIGKILL);
    vm.end();
    // its QEMU dies with it
    let folder = format!("/proc/{qemu}");
    for _ in 0..500 {
        if !std::fs::exists(&folder).unwrap() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(!std::fs::exists(&folder).unwrap());
    let ended = bad.sandbox.ctl_json(["--vm", "vm", "status"]);
    assert_eq!(ended["state"], "ended", "{ended:#}");
    bad.ctl(&["--vm", "vm", "pause"], 3, &["'vm'"]);
    bad.ctl(&["status"], 3, &["no VM is running"]);
    assert_eq!(bad.sandbox.run(["ls", "--json"]).json(), json!([]));
    assert_eq!(std::fs::read_dir(bad.sandbox.runtime()).unwrap().count(), 0);
    bad.sandbox.detached(["--name", "vm", "guest.img"]);
    assert_eq!(bad.sandbox.ctl_json(["status"])["state"], "running");
}

#[test]
fn another_users_vm() {
    let bad = Bad::running();
    // their own folder of VMs has none, and ours is not theirs to look into
    bad.refused_as(&mut bad.as_nobody(), &["ctl", "status"], 3, &["no VM is running"]);
    let mut theirs = bad.as_nobody();
    theirs.env("VMRUN_RUNTIME_DIR", bad.sandbox.file("run"));
    bad.refused_as(&mut theirs, &["ctl", "--vm", "vm", "status"], 1, &["run", "Permission denied"]);
    // the other way round: root must refuse a folder that another user prepared
    let mut ours = bad.sandbox.vmrun();
    ours.env("VMRUN_RUNTIME_DIR", bad.sandbox.file("nobody"));
    let words = [&format!("nobody belongs to another user (uid {NOBODY})"), "hint: "];
    bad.refused_as(&mut ours, &["ctl", "--vm", "vm", "status"], 1, &words);
}

#[test]
fn usb_devices_that_cannot_be_plugged() {
    let bad = Bad::running();
    bad.file("empty.img", "");
    bad.qcow2("stick.qcow2", "1M");
    std::fs::create_dir(bad.sandbox.file("folder")).unwrap();
    for (arguments, code, words) in [
        (&["usb-add", "dead:beef"][..], 1, &["no USB device dead:beef"][..]),
        (&["usb-add", "255.127"], 1, &["no USB device", "255.127"]),
        (&["usb-add", "file=none"], 1, &["none does not exist"]),
        (&["usb-add", "file=folder"], 1, &["folder is a directory"]),
        (&["usb-add", "file=empty.img"], 1, &["empty.img is empty"]),
        (&["usb-add", "file=guest.img"], 4, &["guest.img is in use already, by 'disk0'"]),
        (&["usb-add", "usb-nonsense"], 4, &["'usb-nonsense' is not a valid device"]),
        (&["usb-add", "usb-kbd,nonsense=1"], 2, &["usb-kbd has no property 'nonsense'"]),
        (&["usb-add", "usb-kbd", "--id", "disk0"], 4, &["'disk0' is taken"]),
        (&["usb-add", "usb-kbd", "--id", "slot1"], 4, &["'slot1' is reserved"]),
        (&["usb-remove", "none"], 4, &["no USB device 'none'"]),
        (&["usb-remove", "disk0"], 4, &["no USB device 'disk0'"]),
    ] {
        bad.ctl(arguments, code, words);
    }
    let id = bad.sandbox.ctl(["usb-add", "file=stick.qcow2"]).line();
    bad.ctl(&["usb-add", "file=stick.qcow2"], 4, &["stick.qcow2 is in use already", &id]);
    bad.ctl(&["disk-add", "stick.qcow2"], 4, &["stick.qcow2 is in use already", &id]);
    bad.ctl(&["usb-add", "usb-kbd", "--id", &id], 4, &["is taken"]);
}

#[test]
fn a_machine_without_usb() {
    let bad = Bad::new();
    bad.sandbox.detached(["--machine", "microvm", "guest.img"]);
    bad.ctl(&["usb-add", "usb-kbd"], 4, &["microvm", "USB", "hint: "]);
    bad.ctl(&["disk-add", "new.img,size=1,bus=usb"], 4, &["microvm", "hint: ", "--usb"]);
    bad.ctl(&["disk-add", "new.img,size=1"], 4, &["microvm", "no virtio disk", "hint: use bus=scsi"]);
    bad.sandbox.ctl(["shutdown", "--force"]);
    // the hint is true
    bad.sandbox.detached(["--machine", "microvm", "--disk", "a.img,size=1,bus=scsi", "guest.img"]);
    bad.sandbox.ctl(["disk-add", "new.img,size=1,bus=scsi"]).ok();
}

#[test]
fn disks_that_cannot_be_plugged_resized_or_removed() {
    let bad = Bad::running();
    bad.file("empty.img", "");
    bad.image("disk.img");
    std::os::unix::fs::symlink("guest.img", bad.sandbox.file("link.img")).unwrap();
    for (arguments, code, words) in [
        (&["disk-add", "guest.img"][..], 4, &["guest.img is in use already, by 'disk0'"][..]),
        (&["disk-add", "link.img"], 4, &["link.img is in use already, by 'disk0'"]),
        (&["disk-add", "size=1"], 2, &["needs a file"]),
        (&["disk-add", "none.img"], 1, &["none.img does not exist", "hint: ", "size=10G"]),
        (&["disk-add", "no/where.img,size=1"], 1, &["no/where.img", "No such file"]),
        (&["disk-add", "/"], 1, &["/ is a directory"]),
        (&["disk-add", "empty.img"], 1, &["empty.img is empty"]),
        (&["disk-add", "disk.img,bus=sata"], 4, &["no sata disk while it runs", "hint: ", "virtio"]),
        (&["disk-add", "new.img,size=1,bus=sata"], 4, &["sata", "hint: "]),
        (&["disk-add", "disk.img,id=disk0"], 4, &["'disk0' is taken"]),
        (&["disk-add", "new.img,size=1,id=slot1"], 4, &["'slot1' is reserved"]),
        (&["disk-add", "disk.img,format=qcow2"], 2, &["disk.img is raw, not qcow2", "hint: "]),
        (&["disk-resize", "disk0", "1K"], 2, &["would lose data", "hint: "]),
        (&["disk-resize", "none", "1G"], 4, &["no disk 'none'"]),
        (&["disk-remove", "none"], 4, &["no disk 'none'"]),
        (&["disk-remove", "disk0"], 4, &["'disk0' is built into the machine", "hint: "]),
        (&["device-remove", "none"], 4, &["no device 'none'"]),
        (&["device-remove", "disk0"], 4, &["'disk0' is built into the machine"]),
        (&["media-change", "disk0", "disk.img"], 4, &["'disk0' is not a CD-ROM drive"]),
        (&["media-change", "none", "disk.img"], 4, &["no CD-ROM drive 'none'"]),
        (&["media-eject", "disk0"], 4, &["'disk0' is not a CD-ROM drive"]),
        (&["media-eject", "none"], 4, &["no CD-ROM drive 'none'"]),
        (&["device-add", "nonsense"], 4, &["'nonsense' is not a valid device"]),
        (&["device-add", "virtio-rng-pci,nonsense=1"], 2, &["no property 'nonsense'"]),
        (&["device-add", "virtio-rng-pci,id=disk0"], 4, &["'disk0' is taken"]),
        (
            &["device-add", "virtio-rng-pci,bus=none"],
            4,
            &["has no bus 'none'", "hint: leave out `bus=`", "slot1"],
        ),
        (&["device-add", "usb-kbd,bus=none"], 4, &["has no bus 'none'", "hint: leave out `bus=`"]),
        (&["qmp", "nonsense"], 4, &["nonsense has not been found"]),
        (&["hmp", "nonsense 1"], 4, &["unknown command: 'nonsense'", "hint: "]),
        (&["port-add", "0:80", "--nic", "nic9"], 4, &["no network card 'nic9'", "hint: "]),
        (&["qmp", "{\"execute\": \"query-block\", \"arguments\": []}"], 2, &["'arguments'"]),
        (&["qmp", "{\"execute\": \"query-block\", \"x\": 1}"], 2, &["'x'"]),
    ] {
        bad.ctl(arguments, code, words);
    }
    // nothing of all that stayed: no device, no slot, no block node
    let status = bad.sandbox.ctl_json(["status"]);
    assert_eq!(status["disks"].as_array().unwrap().len(), 1, "{status:#}");
    assert_eq!(
        (&status["devices"], &status["usb"], &status["slots_used"]),
        (&json!([]), &json!([]), &json!(0))
    );
    let nodes = bad.sandbox.ctl_json(["qmp", "query-named-block-nodes"]);
    assert_eq!(nodes.as_array().unwrap().len(), 2, "{nodes:#}");
}

#[test]
fn no_free_slot() {
    let bad = Bad::new();
    bad.sandbox.detached(["--hotplug-slots", "1", "guest.img"]);
    bad.sandbox.ctl(["device-add", "virtio-rng-pci"]).ok();
    let words = ["slot", "hint: ", "--hotplug-slots", "bus=scsi"];
    bad.ctl(&["disk-add", "new.img,size=1"], 4, &words);
    bad.ctl(&["usb-add", "usb-kbd"], 4, &words);
}

/// What other clients than ours may get wrong.
#[test]
fn methods_over_the_socket() {
    let bad = Bad::running();
    let stream = UnixStream::connect(bad.sandbox.runtime().join("vm/control")).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut call = |method: &str, parameters: Value| -> Value {
        let mut frame =
            json!({ "method": format!("io.vmrun.Machine.{method}"), "parameters": parameters }).to_string();
        frame.push('\0');
        (&stream).write_all(frame.as_bytes()).unwrap();
        let mut answer = Vec::new();
        reader.read_until(0, &mut answer).unwrap();
        answer.pop();
        serde_json::from_slice(&answer).unwrap()
    };
    for (method, parameters, parameter) in [
        ("AddDisk", json!({ "file": "disk.img", "size_bytes": 1024 }), "file"),
        ("AddDisk", json!({ "file": "/x", "size_bytes": -1 }), "size_bytes"),
        ("AddDisk", json!({ "file": "/x", "bus": "ide" }), "bus"),
        ("AddDisk", json!({ "file": "/x", "id": "a b" }), "id"),
        ("AddUsb", json!({ "selector": "file=disk.img" }), "selector"),
        ("AddUsb", json!({ "selector": "" }), "selector"),
        ("ChangeMedia", json!({ "id": "disk0", "file": "disk.img" }), "file"),
        ("AddForward", json!({ "host_port": 65536, "guest_port": 1 }), "host_port"),
        ("AddForward", json!({ "host_port": -1, "guest_port": 1 }), "host_port"),
        ("AddForward", json!({ "host_port": 0, "guest_port": 0 }), "guest_port"),
        ("AddForward", json!({ "host_port": 0, "guest_port": 1, "address": "::1" }), "address"),
        ("ResizeDisk", json!({ "id": "disk0", "size_bytes": 0 }), "size_bytes"),
        ("RemoveDisk", json!({ "id": "disk0", "timeout_ms": -1 }), "timeout_ms"),
        ("Shutdown", json!({ "timeout_ms": -1 }), "timeout_ms"),
        ("Qmp", json!({ "command": "query-block" }), "command"),
    ] {
        let answer = call(method, parameters.clone());
        assert_eq!(answer["error"], "io.vmrun.Machine.InvalidArgument", "{method} {parameters} {answer}");
        assert_eq!(answer["parameters"]["parameter"], parameter, "{method} {parameters} {answer}");
        assert!(answer["parameters"]["message"].is_string(), "{answer}");
    }
    for (method, parameters, parameter) in [
        ("AddDisk", json!({}), "file"),
        ("AddDisk", json!({ "file": 1 }), "file"),
        ("Pause", json!({ "hard": true }), "hard"),
    ] {
        let answer = call(method, parameters);
        assert_eq!(answer["error"], "org.varlink.service.InvalidParameter", "{answer}");
        assert_eq!(answer["parameters"]["parameter"], parameter, "{answer}");
    }
    assert_eq!(call("Nonsense", json!({}))["error"], "org.varlink.service.MethodNotFound");
    assert_eq!(call("GetStatus", json!({}))["parameters"]["status"]["state"], "running");
}

#[test]
fn while_it_is_paused() {
    let bad = Bad::running();
    bad.sandbox.ctl(["pause"]).ok();
    bad.ctl(&["powerdown"], 4, &["paused", "hint: `resume` first"]);
    // what needs no guest works
    let usb = bad.sandbox.ctl(["usb-add", "usb-kbd"]).line();
    bad.sandbox.ctl(["usb-remove", &usb]).ok();
    bad.sandbox.ctl(["pause"]).ok();
    bad.sandbox.ctl(["resume"]).ok();
    assert_eq!(bad.sandbox.ctl_json(["status"])["state"], "running");
}

#[test]
fn while_it_shuts_down() {
    let bad = Bad::new();
    let vm = bad.sandbox.foreground(["--name", "vm", "guest.img"]);
    vm.wait_for(Guest::IgnoresButton.greeting());
    let started = std::time::Instant::now();
    let mut shutdown = bad.sandbox.vmrun();
    let shutdown =
        shutdown.args(["ctl", "shutdown", "--timeout", "30s"]).stdout(std::process::Stdio::piped());
    let shutdown = shutdown.stderr(std::process::Stdio::piped()).spawn().unwrap();
    while bad.sandbox.ctl_json(["status"])["state"] != "stopping" {}
    for command in [
        &["usb-add", "usb-kbd"][..],
        &["disk-add", "new.img,size=1"],
        &["port-add", "0:80"],
        &["device-add", "virtio-rng-pci"],
        &["disk-resize", "disk0", "1G"],
        &["pause"],
        &["powerdown"],
    ] {
        bad.ctl(command, 4, &["the VM is shutting down"]);
    }
    // a second one waits for the same end, and shortens it
    let forced = bad.sandbox.ctl(["shutdown", "--force"]);
    assert_eq!(forced.code, 0, "{forced:#?}");
    let first = Done::of(shutdown.wait_with_output().unwrap());
    assert_eq!(first.code, 12, "{first:#?}");
    assert_eq!(vm.end().code(), 12);
    assert!(started.elapsed().as_secs() < 25, "the second request did not shorten the first");
    bad.ctl(&["status"], 3, &["no VM is running"]);
}

#[test]
fn a_qemu_that_is_killed_answers_those_who_wait() {
    let bad = Bad::new();
    let vm = bad.sandbox.foreground(["--name", "vm", "guest.img"]);
    vm.wait_for(Guest::IgnoresButton.greeting());
    let qemu = bad.sandbox.ctl_json(["status"])["qemu_pid"].as_i64().unwrap();
    kill(Pid::from_raw(i32::try_from(qemu).unwrap()), Signal::SIGKILL).unwrap();
    let ended = vm.end();
    assert_eq!(ended.code(), 11, "{ended:#?}");
    bad.ctl(&["status"], 3, &["no VM is running"]);
    assert_eq!(std::fs::read_dir(bad.sandbox.runtime()).unwrap().count(), 0);
}
